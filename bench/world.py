"""The records that a workload's features read, and requests for them: random, from a fixed seed.

    world.py WORKLOAD DIR [--users N] [--items N]

writes DIR/WORKLOAD/1/ (the model's folder), DIR/records.jsonl (lines of `features load`).
Users are u0, u1, …; items v0, v1, …, as `homerank load` makes them up.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import workload


def value_of(rng, feature, tables, n_items):
    """One stored value that the feature can read, so that no default is used."""
    kind = feature["kind"]
    if kind == "number":
        return round(float(rng.gamma(1.5, 20.0)), 2)
    if kind == "bucket":
        return round(float(rng.exponential(10.0)), 2)
    if kind == "numbers":
        return [round(float(x), 4) for x in rng.standard_normal(feature["length"])]
    rows = tables[feature["table"]]["rows"]
    top = n_items if feature["table"] == "video" else rows - 1
    prefix = "v" if feature["table"] == "video" else ""
    if kind == "id":
        return f"{prefix}{rng.integers(top)}"
    return [f"{prefix}{x}" for x in rng.integers(top, size=feature["max_length"])]


def record(rng, config, entity, identity, n_items):
    features = {f.get("field", f["name"]): value_of(rng, f, config["tables"], n_items)
                for f in config["features"]
                if f["entity"] == entity and f.get("field", f["name"]) not in ("user_id", "item_id")}
    return {"entity": entity, "id": identity, "features": features}


def write_records(config, path, n_users, n_items):
    rng = np.random.default_rng(workload.SEED)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(n_users):
            print(json.dumps(record(rng, config, "user", f"u{i}", n_items), separators=(",", ":")), file=out)
        for i in range(n_items):
            print(json.dumps(record(rng, config, "item", f"v{i}", n_items), separators=(",", ":")), file=out)


def context_of(rng, config):
    return {f["name"]: value_of(rng, f, config["tables"], 1) for f in config["features"] if f["entity"] == "context"}


def write_requests(config, path, n_requests, sizes, n_users, n_items):
    """RankRequests with a context, for distinct items; sizes are taken in turn."""
    rng = np.random.default_rng(workload.SEED + 1)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(n_requests):
            items = rng.choice(n_items, size=sizes[i % len(sizes)], replace=False)
            request = {"request_id": f"r{i}", "user_id": f"u{rng.integers(n_users)}",
                       "item_ids": [f"v{x}" for x in items], "context": context_of(rng, config)}
            print(json.dumps(request, separators=(",", ":")), file=out)


def write(name, folder, n_users, n_items):
    """The model ROOT/name/1 and records.jsonl; returns the configuration."""
    folder = Path(folder)
    workload.write(name, folder / "models" / name / "1")
    config = workload.config(name)[0]
    write_records(config, folder / "records.jsonl", n_users, n_items)
    return config


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=sorted(workload.WORKLOADS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=10000)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.workload, args.folder, args.users, args.items)


if __name__ == "__main__":
    main()
