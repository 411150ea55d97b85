"""The peer: PyTorch running the same network on the same weights, driven as bench/forward.c is.

    torch_forward.py MODEL_DIR

reads commands, a line each, and answers each with a line:

    engine KIND                 prepares it; answers PyTorch's version
    run KIND B MILLISECONDS     the median CPU nanoseconds of one forward pass of B rows
    logits KIND B IN OUT        reads v (B, D) from IN, writes the logits (B, T) to OUT, both f32
    export FILE                 writes the network as ONNX; answers D

KIND: eager, traced (traced and frozen), optimized (traced, frozen and optimize_for_inference), bf16 (traced under
bf16 autocast). One thread. It starts from the feature vector v: looking up embeddings is on our side only.
"""

import json
import struct
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

N_SETS, WARM_UP = 4, 3


def read_safetensors(path):
    data = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    out = {}
    for name, t in header.items():
        first, last = t["data_offsets"]
        a = np.frombuffer(data[8 + n + first : 8 + n + last], dtype=np.float32).reshape(t["shape"])
        out[name] = torch.from_numpy(a.copy())
    return out


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


class FeatureGate(nn.Module):
    def __init__(self, t, name):
        super().__init__()
        down, up = t[f"{name}.down"], t[f"{name}.up"]
        self.down = linear(down.reshape(-1, down.shape[2]), None)  # all branches at once
        self.up = nn.ModuleList(linear(u, None) for u in up)
        self.mix = linear(t[f"{name}.mix.weight"], t[f"{name}.mix.bias"])
        self.rank = down.shape[1]

    def forward(self, x):
        p = torch.softmax(self.mix(x), dim=1)
        low = self.down(x)
        gate = 0
        for i, up in enumerate(self.up):
            gate = gate + p[:, i : i + 1] * 2 * torch.sigmoid(up(low[:, i * self.rank : (i + 1) * self.rank]))
        return x * gate


class Expert(nn.Module):
    """Linear -> batch norm -> Swish, batch norm folded into the Linear."""

    def __init__(self, t, name, k, depth, eps):
        super().__init__()
        layers = []
        for i in range(depth):
            n = f"{name}.expert.{i}"
            scale = t[f"{n}.norm.weight"][k] / torch.sqrt(t[f"{n}.norm.running_var"][k] + eps)
            bias = (t[f"{n}.bias"][k] - t[f"{n}.norm.running_mean"][k]) * scale + t[f"{n}.norm.bias"][k]
            layers.append(linear(t[f"{n}.weight"][k] * scale[:, None], bias))
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = F.silu(layer(x))
        return x


class Unit(nn.Module):
    def __init__(self, t, layer, unit, eps):
        super().__init__()
        name = f"{layer}.{unit['name']}"
        self.name, self.inputs = unit["name"], unit["input"]
        self.gate_inputs, self.mixes = unit.get("gate_input", unit["input"]), unit.get("mix", [])
        self.feature_gate = FeatureGate(t, f"{name}.feature_gate") if "feature_gate" in unit else None
        self.experts = nn.ModuleList(Expert(t, name, k, len(unit["hidden"]), eps) for k in range(unit["experts"]))
        self.gate = linear(t[f"{name}.gate.weight"], t[f"{name}.gate.bias"]) if self.mixes else None
        self.self_gate = None
        if unit.get("self_gate"):
            self.self_gate = linear(t[f"{name}.self_gate.weight"], t[f"{name}.self_gate.bias"])

    def run_experts(self, values):
        x = torch.cat([values[i] for i in self.inputs], dim=1) if len(self.inputs) > 1 else values[self.inputs[0]]
        if self.feature_gate is not None:
            x = self.feature_gate(x)
        return [e(x) for e in self.experts]

    def run_mix(self, values, experts):
        g = [values[i] for i in self.gate_inputs]
        g = torch.cat(g, dim=1) if len(g) > 1 else g[0]
        mixed = torch.stack([e for u in self.mixes for e in experts[u]], dim=1)
        y = torch.bmm(torch.softmax(self.gate(g), dim=1).unsqueeze(1), mixed).squeeze(1)
        if self.self_gate is not None:
            own, z = experts[self.name], self.self_gate(g)
            s = torch.sigmoid(z) if len(own) == 1 else torch.softmax(z, dim=1)
            for k, e in enumerate(own):
                y = y + s[:, k : k + 1] * e
        return y


class Network(nn.Module):
    def __init__(self, folder):
        super().__init__()
        config = json.loads((Path(folder) / "config.json").read_text())
        t = read_safetensors(Path(folder) / "model.safetensors")
        net = config["network"]
        eps = net.get("norm_eps", 1e-5)
        self.layer_names = [layer["name"] for layer in net["layers"]]
        self.layers = nn.ModuleList(
            nn.ModuleList(Unit(t, layer["name"], u, eps) for u in layer["units"]) for layer in net["layers"])
        self.task_inputs = [task["input"] for task in net["tasks"]]
        self.towers = nn.ModuleList()
        for task in net["tasks"]:
            n = len(task["tower"]) + 1
            parts = [linear(t[f"tower.{task['name']}.{i}.weight"], t[f"tower.{task['name']}.{i}.bias"])
                     for i in range(n)]
            self.towers.append(nn.Sequential(*[m for p in parts for m in (p, nn.ReLU())][:-1]))

    def forward(self, v):
        values = {"features": v}
        for name, units in zip(self.layer_names, self.layers):
            experts = {u.name: u.run_experts(values) for u in units}
            values.update({f"{name}.{u.name}": u.run_mix(values, experts) for u in units if u.mixes})
        return torch.cat([tower(values[i]) for tower, i in zip(self.towers, self.task_inputs)], dim=1)


class Peer:
    def __init__(self, folder):
        self.network = Network(folder).eval()
        self.width = self.network.layers[0][0].experts[0].layers[0].in_features
        self.kinds, self.sets, self.warm = {"eager": self.network}, {}, set()

    def kind(self, name):
        if name not in self.kinds:
            example = torch.zeros(64, self.width)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16", cache_enabled=False):
                traced = torch.jit.freeze(torch.jit.trace(self.network, example, check_trace=False))
            self.kinds[name] = torch.jit.optimize_for_inference(traced) if name == "optimized" else traced
        return self.kinds[name]

    def forward(self, name, v):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16", cache_enabled=False):
            return self.kind(name)(v)

    def inputs(self, n_rows):
        if n_rows not in self.sets:
            rng = np.random.default_rng(n_rows)
            self.sets = {n_rows: [torch.from_numpy(rng.standard_normal((n_rows, self.width), dtype=np.float32))
                                  for _ in range(N_SETS)]}
        return self.sets[n_rows]

    def run(self, name, n_rows, milliseconds):
        sets, samples = self.inputs(n_rows), []
        for i in range(0 if (name, n_rows) in self.warm else WARM_UP):
            self.forward(name, sets[i % N_SETS])
        self.warm.add((name, n_rows))
        end = time.monotonic() + milliseconds / 1e3
        while not samples or time.monotonic() < end:
            v = sets[len(samples) % N_SETS]
            start = time.process_time_ns()
            self.forward(name, v)
            samples.append(time.process_time_ns() - start)
        return sorted(samples)[len(samples) // 2]

    def export(self, path):
        torch.onnx.export(self.network, torch.zeros(64, self.width), path, input_names=["v"], output_names=["logits"],
                          dynamic_axes={"v": {0: "rows"}, "logits": {0: "rows"}}, opset_version=13)

    def logits(self, name, n_rows, path_in, path_out):
        v = torch.from_numpy(np.fromfile(path_in, dtype=np.float32).reshape(n_rows, self.width))
        self.forward(name, v).float().numpy().tofile(path_out)


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    peer = Peer(sys.argv[1])
    for line in sys.stdin:
        verb, *args = line.split()
        answer = "ok"
        if verb == "engine":
            peer.kind(args[0])
            answer = torch.__version__
        elif verb == "run":
            answer = str(peer.run(args[0], int(args[1]), int(args[2])))
        elif verb == "export":
            peer.export(args[0])
            answer = str(peer.width)
        elif verb == "logits":
            peer.logits(args[0], int(args[1]), args[2], args[3])
        else:
            sys.exit(f"torch_forward.py: expected a command, found {line!r}")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
