"""A scorer for pools of workers, which counts: 10 ms an item.

`Scorer()` scores a batch, a list of dicts, by `qed`; run as a script it is a command of JSON lines. The file that
COUNTER names gets a line for each item that it is asked for: the process, and the item.
"""

import json
import os
import sys
import time


class Scorer:
    def __call__(self, items):
        return [self.score(item) for item in items]

    def score(self, item):
        with open(os.environ["COUNTER"], "a") as counter:
            counter.write(f"{os.getpid()} {item['db_idx']}\n")
        time.sleep(0.01)
        return {"db_idx": item["db_idx"], "score": item["qed"]}


if __name__ == "__main__":
    batch, scorer = [], Scorer()
    for line in sys.stdin:
        if line.strip():
            batch.append(json.loads(line))
            continue
        for answer in scorer(batch):
            print(json.dumps(answer))
        print(flush=True)
        batch = []
