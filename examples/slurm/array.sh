#!/bin/bash
# One run for each target, as a job array:
#
#     sbatch examples/slurm/array.sh egfr braf jak2
#
# After any end of a job, the same command resumes its run. --resume also starts a run that does not exist yet. The run
# folders may be on any file system with locks. Each batch of scores is stored durably there when it is finished.
#SBATCH --job-name=uphill
#SBATCH --array=0-2
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
targets=("$@")
target=${targets[$SLURM_ARRAY_TASK_ID]}

# Two minutes before the time limit, SIGTERM stops the search, which can then be resumed.
uphill search run.toml --out "arr/target=$target" --resume \
    --set "score.command=[\"python3\",\"dock.py\",\"$target\"]" --set "score.workers=${SLURM_CPUS_PER_TASK:-1}" >/dev/null &
search=$!
trap 'kill -TERM $search' TERM
wait $search
code=$?
# A signal ends the first `wait`, but not the search.
if kill -0 $search 2>/dev/null; then
    wait $search
    code=$?
fi
case $code in
75 | 143) scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" ;; # scorer unavailable, or stopped: requeue
*) exit $code ;;
esac
