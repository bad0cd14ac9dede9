"""Scores Arrow streams by their `qed`, or misbehaves in one way. As jsonl.py, with pyarrow.

    arrow.py COUNTER BEHAVIOUR [ONCE]
"""

import os
import sys
import time

import pyarrow as pa

counter, behaviour = sys.argv[1:3]
out = sys.stdout.buffer


def append(path, numbers):
    with open(path, "a") as file:
        file.write("".join(f"{number}\n" for number in numbers))


def may_misbehave(once):
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


append(counter + ".pids", [os.getpid()])
if len(sys.argv) > 3 and not may_misbehave(sys.argv[3]):
    behaviour = "good"


def answers_to(items):
    ids, scores = items["db_idx"].to_pylist(), items["qed"].to_pylist()
    append(counter, ids)
    odd = {"nan": float("nan"), "infinite": float("inf")}.get(behaviour)
    if odd is not None:
        scores = [odd if position % 2 == 1 else score for position, score in enumerate(scores)]
    if behaviour == "text":
        scores = ["good" if position % 2 == 1 else None for position in range(len(ids))]
    if behaviour == "own reason":
        scores = [None if position % 2 == 1 else score for position, score in enumerate(scores)]
        return pa.table({"db_idx": ids, "score": scores, "reason": ["no conformer"] * len(ids)})
    if behaviour == "few":
        ids, scores = ids[:-1], scores[:-1]
    if behaviour == "many":
        ids, scores = ids + [1_000_000], scores + [0.5]
    if behaviour == "twice":
        ids, scores = ids + ids[:1], scores + [0.5]
    if behaviour == "wrong ids":
        ids = [db_idx + 1 for db_idx in ids]
    if behaviour == "without ids":
        return pa.table({"score": scores})
    if behaviour == "parts":
        # The items come back with their scores.
        return items.append_column("score", items["qed"]).append_column("energy", pa.array([-score for score in scores]))
    return pa.table({"db_idx": pa.array(ids[::-1], pa.int64()), "score": scores[::-1]})


while sys.stdin.buffer.peek(1):
    items = pa.ipc.open_stream(sys.stdin.buffer).read_all()
    if behaviour == "prints":
        print("Loading model", flush=True)
        time.sleep(600)
    if behaviour == "too long":
        out.write(b"\xff\xff\xff\xff" + (100 << 20).to_bytes(4, "little"))
        out.flush()
        time.sleep(600)
    if behaviour == "hangs":
        time.sleep(600)
    if behaviour == "closes":
        os.close(1)
        time.sleep(600)
    if behaviour == "floods":
        for _ in range(40):
            sys.stderr.write("y" * (1 << 20))
    answers = answers_to(items)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answers.schema) as stream:
        stream.write_table(answers, max_chunksize=3)
    message = sink.getvalue().to_pybytes()
    if behaviour == "exits":
        out.write(message[: len(message) // 2])
        out.flush()
        os._exit(3)
    out.write(message)
    out.flush()
