//! Dispatches items to scorers: in requests, to as many workers as each scorer has, in the foreground or the background.
//!
//! A scorer is the score itself, or each part of a sum. A *batch* in this file is the batch of one request, not that of an
//! iteration. Answers are durable before anything depends on them. After an error in one batch no further batches start,
//! but the answers of batches that workers are scoring are kept.

use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use polars::prelude::*;

use super::store::{AnswerStore, Ordinals};
use crate::error::{Error, Result, WrapErr};
use crate::frame::schema::{self, DB_IDX};
use crate::panics::{Panic, catch, lock, wait};
use crate::score::{OnError, PartialSums, Score, batch_count, score_batch, split_batches, split_failures};

/// Worker threads that score batches, earlier jobs first. Dropping it waits for the batches that are being scored, and keeps
/// their answers.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The score, and where to store its answers.
pub(super) struct DispatchContext {
    pub(super) score: Arc<dyn Score>,
    pub(super) store: Arc<Mutex<AnswerStore>>,
    pub(super) on_error: OnError,
    pub(super) interrupt: Option<Arc<AtomicBool>>,
    /// The number of pending items.
    pub(super) pending: Arc<AtomicUsize>,
}

struct Shared {
    context: DispatchContext,
    state: Mutex<State>,
    changed: Condvar,
}

/// The items of one iteration, or of one call of [`Dispatcher::score`].
struct Job {
    iteration: Option<u32>,
    ordinals: Ordinals,
    /// The partial results of a sum.
    sums: Option<Mutex<PartialSums>>,
    /// The number of unanswered batches of the current stage. A sum scores its parts in stages.
    unanswered_batches: AtomicUsize,
}

/// A batch of a job for one scorer.
struct Task {
    job: Arc<Job>,
    scorer: usize,
    items: DataFrame,
}

#[derive(Default)]
struct State {
    queues: Vec<ScorerQueue>,
    /// The number of unanswered batches of each job.
    unanswered: HashMap<Option<u32>, usize>,
    /// The number of batches so far.
    batch_count: usize,
    stop_cause: Option<(Option<u32>, StopCause)>,
    is_closed: bool,
}

/// The queue of batches for a scorer.
struct ScorerQueue {
    workers: usize,
    running: usize,
    /// In the order of jobs, then of arrival.
    tasks: BTreeMap<(Option<u32>, usize), Task>,
}

/// Why scoring stopped.
enum StopCause {
    Error(Error),
    Panic(Panic),
}

impl DispatchContext {
    /// The score itself, or the parts of a sum.
    fn scorers(&self) -> Vec<&dyn Score> {
        match self.score.as_sum() {
            Some(sum) => sum.parts().iter().map(|part| &*part.score).collect(),
            None => vec![&*self.score],
        }
    }
}

impl Dispatcher {
    /// A dispatcher without workers.
    fn new(context: DispatchContext) -> Self {
        let queue =
            |score: &&dyn Score| ScorerQueue { workers: score.workers().max(1), running: 0, tasks: BTreeMap::new() };
        let queues = context.scorers().iter().map(queue).collect();
        let state = Mutex::new(State { queues, ..State::default() });
        Dispatcher { shared: Arc::new(Shared { context, state, changed: Condvar::new() }), threads: Vec::new() }
    }

    /// Starts as many background workers as the scorers have.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(context: DispatchContext) -> Result<Self> {
        let workers = context.scorers().iter().map(|score| score.workers().max(1)).sum();
        let mut dispatcher = Self::new(context);
        dispatcher.add_workers(workers)?;
        Ok(dispatcher)
    }

    /// Scores items, and waits for the answers. The caller is one of the workers.
    ///
    /// # Errors
    /// The error that stopped scoring; a thread cannot be started.
    pub(super) fn score(context: DispatchContext, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let worker_count = |score: &&dyn Score| score.workers().clamp(1, batch_count(items.height(), *score).max(1));
        let workers: usize = context.scorers().iter().map(worker_count).sum();
        let mut dispatcher = Self::new(context);
        dispatcher.add_workers(workers - 1)?;
        dispatcher.send(None, items, ordinals)?;
        dispatcher.shared.work(|state| state.is_answered(None));
        dispatcher.wait(None)
    }

    fn add_workers(&mut self, workers: usize) -> Result<()> {
        for _ in 0..workers {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().spawn(move || shared.work(|_| false));
            self.threads.push(thread.wrap_err("starting a worker")?);
        }
        Ok(())
    }

    /// Queues items.
    pub(super) fn send(&self, iteration: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<()> {
        let tasks = self.shared.start_job(iteration, items, ordinals)?;
        let mut state = lock(&self.shared.state);
        state.unanswered.insert(iteration, 0);
        state.push(tasks);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until all items of a job are answered.
    ///
    /// # Errors
    /// The error that stopped scoring.
    pub(super) fn wait(&self, iteration: Option<u32>) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while !state.is_answered(iteration) {
            match state.stop_cause.take() {
                Some((iteration, StopCause::Error(error))) => {
                    return Err(iteration.into_iter().fold(error, Error::in_iteration));
                }
                Some((_, StopCause::Panic(panic))) => {
                    drop(state);
                    resume_unwind(panic)
                }
                None if state.is_closed => return Err(Error::Interrupted),
                None => state = wait(&self.shared.changed, state),
            }
        }
        state.unanswered.remove(&iteration);
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn is_answered(&self, iteration: Option<u32>) -> bool {
        self.unanswered.get(&iteration).is_none_or(|batches| *batches == 0)
    }

    fn push(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            let iteration = task.job.iteration;
            *self.unanswered.entry(iteration).or_default() += 1;
            self.batch_count += 1;
            self.queues[task.scorer].tasks.insert((iteration, self.batch_count), task);
        }
    }

    /// The next batch of a scorer with a free worker.
    fn pop(&mut self) -> Option<Task> {
        let free = self.queues.iter_mut().filter(|queue| queue.running < queue.workers);
        let next = free.filter_map(|queue| Some((*queue.tasks.first_key_value()?.0, queue)));
        let (_, queue) = next.min_by_key(|(key, _)| *key)?;
        let (_, task) = queue.tasks.pop_first()?;
        queue.running += 1;
        Some(task)
    }
}

impl Shared {
    /// Creates a job, and its first batches.
    fn start_job(&self, iteration: Option<u32>, items: &DataFrame, ordinals: Ordinals) -> Result<Vec<Task>> {
        let DispatchContext { score, store, .. } = &self.context;
        let Some(sum) = score.as_sum() else {
            let unanswered_batches = AtomicUsize::new(batch_count(items.height(), &**score));
            return Ok(split_tasks(
                &Arc::new(Job { iteration, ordinals, sums: None, unanswered_batches }),
                0,
                items,
                &**score,
            ));
        };
        let stored_parts = lock(store).answers.stored_parts(&schema::u64s(items, DB_IDX)?);
        let mut sums = sum.partial_sums(items, &stored_parts)?;
        if let Some(complete) = sums.newly_complete(&sums.rows())? {
            lock(store).write(&complete, &ordinals, score.is_paid())?;
            self.count_answered(complete.height());
        }
        let (sums, unanswered_batches) = (Some(Mutex::new(sums)), AtomicUsize::new(0));
        self.next_stage(&Arc::new(Job { iteration, ordinals, sums, unanswered_batches }))
    }

    /// The batches of the next stage of a sum.
    fn next_stage(&self, job: &Arc<Job>) -> Result<Vec<Task>> {
        let (Some(sum), Some(sums)) = (self.context.score.as_sum(), &job.sums) else { return Ok(Vec::new()) };
        let requests = lock(sums).next_requests()?;
        let tasks =
            requests.iter().flat_map(|(part, items)| split_tasks(job, *part, items, &*sum.parts()[*part].score));
        let tasks: Vec<Task> = tasks.collect();
        job.unanswered_batches.store(tasks.len(), Ordering::Release);
        Ok(tasks)
    }

    /// The loop of a worker, until `is_done` holds.
    fn work(&self, is_done: impl Fn(&State) -> bool) {
        while let Some(task) = self.next(&is_done) {
            let result = catch(|| {
                self.score(&task)?;
                // The worker that finishes the last batch of a stage starts the next stage.
                let is_last = task.job.unanswered_batches.fetch_sub(1, Ordering::AcqRel) == 1;
                if is_last { self.next_stage(&task.job) } else { Ok(Vec::new()) }
            });
            let mut state = lock(&self.state);
            state.queues[task.scorer].running -= 1;
            let stop_cause = match result {
                Ok(Ok(more)) => {
                    state.push(more);
                    state.unanswered.get_mut(&task.job.iteration).into_iter().for_each(|batches| *batches -= 1);
                    None
                }
                Ok(Err(error)) => Some(StopCause::Error(error)),
                Err(panic) => Some(StopCause::Panic(panic)),
            };
            if let Some(stop_cause) = stop_cause.filter(|_| !state.is_closed) {
                (state.stop_cause, state.is_closed) = (Some((task.job.iteration, stop_cause)), true);
            }
            self.changed.notify_all();
        }
    }

    /// Waits for the next batch. `None` when there is nothing more to score.
    fn next(&self, is_done: impl Fn(&State) -> bool) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed || is_done(&state) {
                return None;
            }
            if let Some(task) = state.pop() {
                return Some(task);
            }
            state = wait(&self.changed, state);
        }
    }

    /// Scores one batch, and stores its answers as they arrive.
    fn score(&self, task: &Task) -> Result<()> {
        let DispatchContext { score, store, on_error, interrupt, .. } = &self.context;
        if interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let part = score.as_sum().map(|sum| &sum.parts()[task.scorer]);
        let scorer = part.map_or(&**score, |part| &*part.score);
        let mut in_flight = match &mut lock(store).folder {
            Some(folder) if scorer.is_paid() => Some(folder.start_in_flight(task.items.height())?),
            _ => None,
        };
        let mut failure = None;
        let result = score_batch(scorer, &task.items, &mut |answers| {
            let answered = answers.height();
            let answers = match on_error {
                OnError::Null => answers,
                OnError::Stop => {
                    let (others, failed) = split_failures(answers, part.map(|part| part.name()))?;
                    failure = failure.take().or(failed);
                    others
                }
            };
            if answers.height() > 0 {
                self.store(task, &answers)?;
            }
            in_flight.as_mut().map_or(Ok(()), |in_flight| in_flight.subtract(answered))
        });
        // No item of this batch is in flight any more.
        if let (Ok(()) | Err(Error::Unavailable { .. } | Error::Score { .. }), Some(in_flight)) = (&result, in_flight) {
            in_flight.close()?;
        }
        result.and(failure.map_or(Ok(()), Err))
    }

    /// Stores the answers of a scorer.
    fn store(&self, task: &Task, answers: &DataFrame) -> Result<()> {
        let DispatchContext { score, store, .. } = &self.context;
        let write = |answers: &DataFrame| lock(store).write(answers, &task.job.ordinals, score.is_paid());
        let complete = match &task.job.sums {
            None => {
                write(answers)?;
                answers.height()
            }
            Some(sums) => {
                // Hold the lock while storing, so that the answers of an item are stored in their order of arrival.
                let mut sums = lock(sums);
                let rows = sums.record(task.scorer, answers)?;
                let (complete, rows) = sums.rows_to_store(task.scorer, &rows)?;
                rows.map_or(Ok(()), |rows| write(&rows))?;
                complete
            }
        };
        self.count_answered(complete);
        Ok(())
    }

    /// Subtracts answered items from the pending ones.
    fn count_answered(&self, items: usize) {
        let remaining = |pending: usize| Some(pending.saturating_sub(items));
        let _ = self.context.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, remaining);
    }
}

/// Splits the items of a job into batches for a scorer.
fn split_tasks(job: &Arc<Job>, scorer: usize, items: &DataFrame, score: &dyn Score) -> Vec<Task> {
    let task = |items| Task { job: job.clone(), scorer, items };
    split_batches(items, score).into_iter().map(task).collect()
}
