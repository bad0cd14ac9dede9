"""Scores JSON lines by their `qed`, and does not look at some items. Standard library only.

    busy.py COUNTER BEHAVIOUR

COUNTER gets a line for each item that is scored, COUNTER.pids the id of each process, COUNTER.times the time of each batch.
Where there is a file COUNTER.good, it scores everything.

    odd         the items at odd places, when they are asked for first
    odd 1.5     as `odd`, and asks to wait for so many seconds
    always      all items, always
    after 16    all items, once so many are scored
    exits 16    exits with status 75 before a batch, once so many are scored
"""

import json
import os
import sys
import time

counter, behaviour = sys.argv[1:3]
kind, _, number = behaviour.partition(" ")
seen = set()


def append(path, value):
    with open(path, "a") as file:
        file.write(f"{value}\n")


def scored():
    return len(open(counter).readlines()) if os.path.exists(counter) else 0


def is_unavailable(position, db_idx):
    if os.path.exists(counter + ".good"):
        return False
    if kind == "odd":
        first = db_idx not in seen
        seen.add(db_idx)
        return first and position % 2 == 1
    return kind == "always" or kind == "after" and scored() >= int(number)


append(counter + ".pids", os.getpid())
batch = []
for line in sys.stdin:
    if line.strip():
        batch.append(json.loads(line))
        continue
    append(counter + ".times", time.time())
    if kind == "exits" and scored() >= int(number) and not os.path.exists(counter + ".good"):
        sys.exit(75)
    for position, item in enumerate(batch):
        answer = {"db_idx": item["db_idx"], "score": item["qed"]}
        if is_unavailable(position, item["db_idx"]):
            # A score beside it counts for nothing.
            answer |= {"outcome": "unavailable", "reason": "the queue is full", "energy": 1.0}
            if kind == "odd" and number:
                answer["retry_after"] = float(number)
        else:
            append(counter, item["db_idx"])
        print(json.dumps(answer), flush=True)
    batch = []
    print(flush=True)
