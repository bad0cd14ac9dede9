# Scores by weight, but for every seventh item, which fails; notes what it was asked.
import json, sys

asked = open("asked.txt", "a")
for line in sys.stdin:
    if not line.strip():
        print(flush=True)
        continue
    item = json.loads(line)
    print(item["db_idx"], file=asked, flush=True)
    if item["db_idx"] % 7 == 0:
        print(json.dumps({"db_idx": item["db_idx"], "score": None, "reason": "no conformer"}))
    else:
        print(json.dumps({"db_idx": item["db_idx"], "score": 3 * item["weight"]}))
