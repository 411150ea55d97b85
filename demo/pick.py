#!/usr/bin/env python3
"""Prints a user, some items and another user of a features file, to try: ID, then ID,ID,..., then ID.

    demo/pick.py FILE.jsonl[.gz] [HOW_MANY_ITEMS]
"""
import gzip
import json
import random
import sys

ids = {"user": [], "item": []}
path, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
    for line in lines:
        record = json.loads(line)
        if "," not in str(record["id"]):
            ids[record["entity"]].append(str(record["id"]))
if not ids["user"] or not ids["item"]:
    sys.exit(f"pick: expected users and items in {path}, found {len(ids['user'])} and {len(ids['item'])}")
rng = random.Random(1)
users = rng.sample(ids["user"], min(2, len(ids["user"])))
print(users[0], ",".join(rng.sample(ids["item"], min(count, len(ids["item"])))), users[-1], sep="\n")
