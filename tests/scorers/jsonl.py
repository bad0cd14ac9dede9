"""Scores JSON lines by their `qed`, or misbehaves in one way. Standard library only.

    jsonl.py COUNTER BEHAVIOUR [ONCE]

COUNTER gets a line for each item that is scored, COUNTER.pids the id of each process. With a path
ONCE only the process that creates that file misbehaves; the others are good. Where there is a file
COUNTER.good, all are.
"""

import json
import os
import subprocess
import sys
import time

counter, behaviour = sys.argv[1:3]
out = sys.stdout


def append(path, number):
    with open(path, "a") as file:
        file.write(f"{number}\n")


def may_misbehave(once):
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


append(counter + ".pids", os.getpid())
if os.path.exists(counter + ".good") or len(sys.argv) > 3 and not may_misbehave(sys.argv[3]):
    behaviour = "good"


def answer(db_idx, score, **more):
    append(counter, int(db_idx))
    out.write(json.dumps({"db_idx": db_idx, "score": score, **more}) + "\n")
    out.flush()


def misbehave(answered, db_idx):
    """Some processes go wrong after two answers, some at an item: `exits at 17`."""
    global behaviour
    if behaviour.endswith(f" at {db_idx}"):
        behaviour = behaviour.split(" at ")[0]
    elif answered != 2 or " at " in behaviour:
        return
    if behaviour == "exits":
        sys.exit(3)
    if behaviour == "killed":
        os.kill(os.getpid(), 9)
    if behaviour == "hangs":
        time.sleep(600)
    if behaviour == "spawns":
        append(counter + ".pids", subprocess.Popen(["sleep", "600"]).pid)
        time.sleep(600)
    if behaviour == "closes":
        os.close(1)
        time.sleep(600)
    if behaviour == "prints":
        print("Loading model", flush=True)
        time.sleep(600)
    if behaviour == "long line":
        try:
            for _ in range(80):
                out.write("x" * (1 << 20))
        except BrokenPipeError:
            os._exit(1)


def score_one(position, item):
    if behaviour == "slow":
        time.sleep(0.02)
    db_idx, score = item["db_idx"], item["qed"]
    odd = position % 2 == 1
    if behaviour == "nan" and odd:
        score = float("nan")
    if behaviour == "infinite" and odd:
        score = float("-inf")
    if behaviour == "text" and odd:
        score = "good"
    if behaviour == "own reason" and odd:
        return answer(db_idx, None, reason="no conformer")
    if behaviour == "parts":
        return answer(db_idx, score, energy=-score, note="kept too", other=["kept by nobody"], qed=score)
    if behaviour == "floods":
        for _ in range(8):
            sys.stderr.write("y" * (1 << 20))
    if behaviour == "float ids":
        db_idx = float(db_idx)
    if behaviour == "text ids":
        db_idx = str(db_idx)
    if behaviour == "rejects" and db_idx % 3 == 0:
        return answer(db_idx, None, outcome="rejected", reason="a known toxin")
    if behaviour == "taken names":
        return answer(db_idx, score, distance=1.0, iteration=2, evaluation=3, _x=4, energy=-score)
    answer(db_idx + 1 if behaviour == "wrong ids" else db_idx, score)


def stall():
    """Goes to sleep over a batch, once eight items are scored."""
    if os.path.exists(counter) and len(open(counter).readlines()) >= 8:
        append(counter + ".stalled", os.getpid())
        time.sleep(600)


def score_all(items):
    if behaviour == "stalls":
        stall()
    # Backwards: the order of the answers means nothing.
    if behaviour == "good":
        items = items[::-1]
    if behaviour == "few":
        items = items[:-1]
    for position, item in enumerate(items):
        misbehave(position, item["db_idx"])
        score_one(position, item)
    if behaviour == "many":
        answer(1_000_000, 0.5)
    if behaviour == "twice":
        answer(items[0]["db_idx"], 0.5)


batch = []
for line in sys.stdin:
    if line.strip():
        batch.append(json.loads(line))
        continue
    score_all(batch)
    batch = []
    if behaviour != "no empty line":
        print(flush=True)
    if behaviour == "stray":
        print("that was a batch", flush=True)
