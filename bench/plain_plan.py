"""Writes a model's folder as one flat file that C reads without a JSON library (bench/plain_plan.h).

    plain_plan.py MODEL_DIR FILE

Batch norm is folded into the experts' weights, in double.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

MAGIC = 0x31505248
FEATURES = 0xFFFFFFFF
ENTITIES = ["user", "item", "context"]
KINDS = ["id", "ids", "number", "bucket", "numbers"]
POOLS = ["mean", "sum"]
ACTIVATIONS = ["relu", "swish"]


def read_safetensors(path):
    data = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]], np.float32)
            .reshape(t["shape"]) for name, t in header.items()}


class Writer:
    def __init__(self, config, tensors):
        self.config, self.t, self.parts = config, tensors, []
        self.tables = sorted(config["tables"])

    def words(self, *values):
        self.parts.append(np.array([v % 2**32 for v in values], "<u4").tobytes())

    def floats(self, values):
        self.parts.append(np.ascontiguousarray(values, "<f4").tobytes())

    def schema(self):
        tables = self.config["tables"]
        self.words(len(self.tables))
        for name in self.tables:
            self.words(tables[name]["rows"], tables[name]["dim"])
        self.words(len(self.config["features"]))
        for f in self.config["features"]:
            dense = f["kind"] in ("number", "numbers")
            width = f.get("length", 1) if dense else tables[f["table"]]["dim"]
            self.words(ENTITIES.index(f["entity"]), KINDS.index(f["kind"]), 0 if dense else self.tables.index(f["table"]),
                       POOLS.index(f.get("pool", "mean")), f.get("max_length", 50), width)
        for name in self.tables:
            self.floats(self.t[f"embedding.{name}.weight"])

    def input(self, names):
        self.words(len(names))
        for name in names:
            self.words(*self.place(name))

    def place(self, name):
        """(layer, unit) of "features" or "layer.unit"."""
        if name == "features":
            return FEATURES, 0
        layer, unit = name.split(".")
        layers = self.config["network"]["layers"]
        at = [one["name"] for one in layers].index(layer)
        return at, [u["name"] for u in layers[at]["units"]].index(unit)

    def experts(self, name, u):
        hidden = u.get("hidden", []) if u["experts"] else []
        norm = self.config["network"].get("norm", "batch")
        eps = self.config["network"].get("norm_eps", 1e-5)
        self.words(u["experts"], len(hidden))
        for i, out in enumerate(hidden):
            n = f"{name}.expert.{i}"
            weight, bias = self.t[f"{n}.weight"].astype(np.float64), self.t[f"{n}.bias"].astype(np.float64)
            if norm == "batch":
                scale = self.t[f"{n}.norm.weight"] / np.sqrt(self.t[f"{n}.norm.running_var"].astype(np.float64) + eps)
                weight = weight * scale[:, :, None]
                bias = (bias - self.t[f"{n}.norm.running_mean"]) * scale + self.t[f"{n}.norm.bias"]
            self.words(out)
            self.floats(weight)
            self.floats(bias)
            if norm == "layer":
                self.floats(self.t[f"{n}.norm.weight"])
                self.floats(self.t[f"{n}.norm.bias"])

    def unit(self, layer, u):
        name = f"{layer['name']}.{u['name']}"
        self.input(u["input"])
        self.input(u.get("gate_input", u["input"]))
        self.experts(name, u)
        gate = u.get("feature_gate")
        self.words(*((gate["loras"], gate["rank"]) if gate else (0, 0)))
        if gate:
            for part in ("down", "up", "mix.weight", "mix.bias"):
                self.floats(self.t[f"{name}.feature_gate.{part}"])
        units = {one["name"]: one for one in layer["units"]}
        mix = u.get("mix", [])
        n_mixed = sum(units[m]["experts"] for m in mix)
        width = next((units[m]["hidden"][-1] for m in mix if units[m]["experts"]), (u.get("hidden") or [0])[-1])
        self.words(len(mix), *(list(units).index(m) for m in mix), n_mixed, width)
        if n_mixed > 1:
            self.floats(self.t[f"{name}.gate.weight"])
            self.floats(self.t[f"{name}.gate.bias"])
        self.words(int(bool(u.get("self_gate"))))
        if u.get("self_gate"):
            self.floats(self.t[f"{name}.self_gate.weight"])
            self.floats(self.t[f"{name}.self_gate.bias"])

    def network(self):
        net = self.config["network"]
        self.words(ACTIVATIONS.index(net.get("activation", "swish")),
                   ACTIVATIONS.index(net.get("tower_activation", "relu")), int(net.get("norm", "batch") == "layer"))
        self.floats([net.get("norm_eps", 1e-5)])
        self.words(len(net["layers"]))
        for layer in net["layers"]:
            self.words(len(layer["units"]))
            for u in layer["units"]:
                self.unit(layer, u)
        self.words(len(net["tasks"]))
        for task in net["tasks"]:
            sides = [*task["tower"], 1]
            self.words(*self.place(task["input"]), len(sides))
            for i, out in enumerate(sides):
                self.words(out)
                self.floats(self.t[f"tower.{task['name']}.{i}.weight"])
                self.floats(self.t[f"tower.{task['name']}.{i}.bias"])


def write(folder, path):
    config = json.loads((Path(folder) / "config.json").read_text())
    writer = Writer(config, read_safetensors(Path(folder) / "model.safetensors"))
    writer.words(MAGIC)
    writer.schema()
    writer.network()
    with open(path, "wb") as file:
        file.writelines(writer.parts)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: plain_plan.py MODEL_DIR FILE")
    write(sys.argv[1], sys.argv[2])
