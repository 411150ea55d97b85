"""Writes the models that are measured as real model folders: config.json and
model.safetensors, random weights from a fixed seed. Every program under test reads the same files.

    workload.py base|large|tiny DIR

`base` and `large` are BENCH.md's; `tiny` is what is left of `base` where the network shall cost next to nothing.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

SEED = 20240808

TABLES = {  # name: (rows, width at D = 1024, index)
    "user": (20000, 64, "hash"),
    "video": (50000, 64, "hash"),
    "author": (20000, 64, "hash"),
    "tag": (500, 32, "direct"),
    "music": (5000, 32, "hash"),
    "profile": (64, 16, "direct"),
    "category": (128, 16, "direct"),
    "age": (8, 16, "direct"),
    "scene": (32, 16, "direct"),
}


def feature(name, entity, kind, width, **rest):
    return {"name": name, "entity": entity, "kind": kind, **rest}, width


def features_1024():
    """Features whose widths sum to 1024: a plausible user, item and context."""
    t = {name: width for name, (_, width, _) in TABLES.items()}
    out = [feature("user_id", "user", "id", t["user"], table="user")]
    for name in ("history", "long_history", "like_history"):
        out.append(feature(name, "user", "ids", t["video"], table="video", pool="mean", max_length=50))
    out.append(feature("favourite_tags", "user", "ids", t["tag"], table="tag", pool="mean", max_length=20))
    out += [feature(f"profile_{i}", "user", "id", t["profile"], table="profile") for i in range(12)]
    out.append(feature("user_state", "user", "numbers", 64, length=64))
    out.append(feature("video_id", "item", "id", t["video"], table="video", field="item_id"))
    out.append(feature("author_id", "item", "id", t["author"], table="author"))
    out.append(feature("tags", "item", "ids", t["tag"], table="tag", pool="mean", max_length=8))
    out.append(feature("music_id", "item", "id", t["music"], table="music"))
    out.append(feature("vision", "item", "numbers", 128, length=128))
    out += [feature(f"category_{i}", "item", "id", t["category"], table="category") for i in range(6)]
    out.append(feature("age_days", "item", "bucket", t["age"], table="age", boundaries=[1, 3, 7, 30]))
    out += [feature(f"count_{i}", "item", "number", 1, log1p=True, mean=3.0, std=2.0) for i in range(8)]
    out += [feature(n, "context", "id", t["scene"], table="scene") for n in ("tab", "hour")]
    out.append(feature("device", "context", "numbers", 8, length=8))
    return out


def scaled(features, factor):
    """The same features, tables and dense ones `factor` times as wide (those of width 1 stay)."""
    for f, width in features:
        if "length" in f:
            f["length"] *= factor
    return [(f, width if f["kind"] == "number" else width * factor) for f, width in features]


TINY_TABLES = {"user": (1000, 4, "hash"), "video": (1000, 4, "hash"), "scene": (32, 4, "direct")}


def features_tiny():
    t = {name: width for name, (_, width, _) in TINY_TABLES.items()}
    return [feature("user_id", "user", "id", t["user"], table="user"),
            feature("video_id", "item", "id", t["video"], table="video", field="item_id"),
            feature("count_0", "item", "number", 1, log1p=True, mean=3.0, std=2.0),
            feature("tab", "context", "id", t["scene"], table="scene")]


def network(groups, experts, hidden, rank, task_hidden, shared, per_group, tasks, per_task, tower):
    """HoME as BENCH counts it: a meta layer of groups and shared, a task layer, a tower per task."""
    gate = {"loras": 2, "rank": rank}
    meta = [{"name": g, "input": ["features"], "experts": experts, "hidden": hidden, "feature_gate": gate,
             "mix": ["shared", *groups] if g == "shared" else ["shared", g], "self_gate": True}
            for g in ["shared", *groups]]
    task = [{"name": g, "input": [f"meta.{g}"], "experts": shared if g == "shared" else per_group,
             "hidden": task_hidden} for g in ["shared", *groups]]
    names = [f"task_{i}" for i in range(tasks)]
    for i, name in enumerate(names):
        g = groups[i * len(groups) // tasks]
        task.append({"name": name, "input": [f"meta.{g}"], "experts": per_task, "hidden": task_hidden,
                     "gate_input": [f"meta.{g}", "meta.shared"], "mix": ["shared", g, name], "self_gate": True})
    return {"layers": [{"name": "meta", "units": meta}, {"name": "task", "units": task}],
            "tasks": [{"name": n, "input": f"task.{n}", "tower": tower} for n in names]}


def wide(factor):
    """The tables and features of D = 1024 * factor."""
    features = scaled(features_1024(), factor)
    if factor > 1:  # what the numbers of width 1 left short
        short = 1024 * factor - sum(w for _, w in features)
        features.append(feature("more_state", "user", "numbers", short, length=short))
    return {t: (rows, w * factor, index) for t, (rows, w, index) in TABLES.items()}, features


WORKLOADS = {  # name: its tables and features, its network
    "base": (lambda: wide(1), lambda: network(["watch", "interaction"], 2, [512, 256], 128, [256, 128], 2, 2, 12, 1,
                                              [64])),
    "large": (lambda: wide(4), lambda: network(["watch", "interaction", "follow"], 4, [1024, 512], 256, [512, 256], 4,
                                               4, 24, 2, [128])),
    "tiny": (lambda: (TINY_TABLES, features_tiny()), lambda: network(["watch"], 1, [8], 4, [8], 1, 1, 2, 1, [])),
}


def config(name):
    inputs, make = WORKLOADS[name]
    tables, features = inputs()
    net = make()
    weights = {t["name"]: 1.0 for t in net["tasks"]}
    return {"format": "homerank/1", "description": f"workload {name}, random weights",
            "tables": {t: {"rows": rows, "dim": w, "index": index} for t, (rows, w, index) in tables.items()},
            "features": [f for f, _ in features], "network": net,
            "fusion": {"kind": "weighted_sum", "weights": weights}}, sum(w for _, w in features)


class Tensors:
    def __init__(self):
        self.rng = np.random.default_rng(SEED)
        self.all = {}

    def uniform(self, name, *shape, fan_in, gain=1.0):
        bound = gain * (3.0 / fan_in) ** 0.5
        self.all[name] = self.rng.uniform(-bound, bound, shape).astype(np.float32)

    def bias(self, name, *shape):
        self.all[name] = self.rng.uniform(-0.1, 0.1, shape).astype(np.float32)

    def batch_norm(self, name, *shape):
        self.all[name + ".weight"] = self.rng.uniform(0.8, 1.2, shape).astype(np.float32)
        self.all[name + ".bias"] = self.rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        self.all[name + ".running_mean"] = self.rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        self.all[name + ".running_var"] = self.rng.uniform(0.8, 1.2, shape).astype(np.float32)


def unit_tensors(t, layer, unit, experts_of, width_of):
    """MODEL.md 2, "Tensors", for one unit. Returns the width of its output."""
    name, experts = f"{layer}.{unit['name']}", unit["experts"]
    n_in = sum(width_of[i] for i in unit["input"])
    n_gate = sum(width_of[i] for i in unit.get("gate_input", unit["input"]))
    reads = n_in
    for i, out in enumerate(unit["hidden"]):
        t.uniform(f"{name}.expert.{i}.weight", experts, out, reads, fan_in=reads, gain=1.4)
        t.bias(f"{name}.expert.{i}.bias", experts, out)
        t.batch_norm(f"{name}.expert.{i}.norm", experts, out)
        reads = out
    if "feature_gate" in unit:
        loras, rank = unit["feature_gate"]["loras"], unit["feature_gate"]["rank"]
        t.uniform(f"{name}.feature_gate.down", loras, rank, n_in, fan_in=n_in)
        t.uniform(f"{name}.feature_gate.up", loras, n_in, rank, fan_in=rank)
        t.uniform(f"{name}.feature_gate.mix.weight", loras, n_in, fan_in=n_in)
        t.bias(f"{name}.feature_gate.mix.bias", loras)
    if "mix" in unit:
        mixed = sum(experts_of[m] for m in unit["mix"])
        t.uniform(f"{name}.gate.weight", mixed, n_gate, fan_in=n_gate)
        t.bias(f"{name}.gate.bias", mixed)
        t.uniform(f"{name}.self_gate.weight", experts, n_gate, fan_in=n_gate)
        t.bias(f"{name}.self_gate.bias", experts)
    return reads


def tensors(cfg, width):
    t = Tensors()
    width_of = {"features": width}
    for name, table in cfg["tables"].items():
        t.all[f"embedding.{name}.weight"] = t.rng.standard_normal((table["rows"], table["dim"]), dtype=np.float32)
    for layer in cfg["network"]["layers"]:
        experts_of = {u["name"]: u["experts"] for u in layer["units"]}
        for unit in layer["units"]:
            width_of[f"{layer['name']}.{unit['name']}"] = unit_tensors(t, layer["name"], unit, experts_of, width_of)
    for task in cfg["network"]["tasks"]:
        reads = width_of[task["input"]]
        for i, out in enumerate([*task["tower"], 1]):
            t.uniform(f"tower.{task['name']}.{i}.weight", out, reads, fan_in=reads, gain=1.4)
            t.bias(f"tower.{task['name']}.{i}.bias", out)
            reads = out
    return t.all


def write_safetensors(path, arrays):
    header, at = {}, 0
    for name, a in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in arrays.values():
            f.write(a.tobytes())


def write(name, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cfg, width = config(name)
    write_safetensors(folder / "model.safetensors", tensors(cfg, width))
    (folder / "config.json").write_text(json.dumps(cfg, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WORKLOADS:
        sys.exit(f"usage: workload.py {'|'.join(WORKLOADS)} DIR")
    write(sys.argv[1], sys.argv[2])
