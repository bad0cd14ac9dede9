"""Scores a Parquet file by its `qed` into another, or misbehaves in one way.

    parquet.py COUNTER BEHAVIOUR INPUT OUTPUT

Where there is a file COUNTER.good, it is good.
"""

import os
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq

counter, behaviour, source, target = sys.argv[1:]


def append(path, numbers):
    with open(path, "a") as file:
        file.write("".join(f"{number}\n" for number in numbers))


append(counter + ".pids", [os.getpid()])
if os.path.exists(counter + ".good"):
    behaviour = "good"
print("a line that is no answer")
if behaviour == "exits":
    sys.exit(3)
if behaviour == "hangs":
    time.sleep(600)
if behaviour == "stalls" and os.path.exists(counter) and len(open(counter).readlines()) >= 8:
    append(counter + ".stalled", [os.getpid()])
    time.sleep(600)
if behaviour == "nothing":
    sys.exit()
if behaviour == "not parquet":
    open(target, "w").write("scores")
    sys.exit()
items = pq.read_table(source)
ids, scores = items["db_idx"].to_pylist(), items["qed"].to_pylist()
if behaviour == "few":
    ids, scores = ids[:-1], scores[:-1]
append(counter, ids)
pq.write_table(pa.table({"score": scores[::-1], "db_idx": ids[::-1]}), target)
