"""Scores JSON lines by `weight`, and gives every outcome. Standard library only.

    outcomes.py [ASKED]

ASKED (`asked.txt`) gets a line for each item that is asked. What it does with them, files in the working directory say:
where there is `fails`, every third item fails; where there is `rejects`, every fifth is rejected; where there is
`stalls`, it goes to sleep over the item whose number stands in it, and where there is `exits`, it exits there.
"""

import json
import os
import sys
import time

asked = open(sys.argv[1] if len(sys.argv) > 1 else "asked.txt", "a")


def number_in(path):
    try:
        return int(open(path).read())
    except FileNotFoundError:
        return None


def answer(item):
    n = item["db_idx"]
    if n == number_in("stalls"):
        open("stalled", "w").close()
        time.sleep(600)
    if n == number_in("exits"):
        sys.exit(3)
    print(n, file=asked, flush=True)
    if os.path.exists("fails") and n % 3 == 0:
        return {"score": None, "reason": "no conformer"}
    if os.path.exists("rejects") and n % 5 == 1:
        return {"score": None, "outcome": "rejected", "reason": "a known toxin"}
    return {"score": item["weight"]}


for line in sys.stdin:
    if line.strip():
        item = json.loads(line)
        print(json.dumps({"db_idx": item["db_idx"], **answer(item)}), flush=True)
    else:
        print(flush=True)
