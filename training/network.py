"""The *layers of units* network of MODEL.md 2 as one PyTorch module, driven by config.json.

Letters: B rows, D width of v, E experts of a unit, L LoRA branches. Weights are [out, in], experts' [E, out, in].
Products are single `linear`s, not batched ones: on a CPU PyTorch's batched product does not use the BLAS.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

DEFAULTS = {"activation": "swish", "norm": "batch", "norm_eps": 1e-5, "tower_activation": "relu"}
ACTIVATIONS = {"swish": F.silu, "relu": F.relu}


def uniform(*shape, fan_in):
    """PyTorch's default initialisation of a Linear."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class FeatureGate(nn.Module):
    """x (.) sum_l softmax(x M^T + m)_l * 2 sigmoid((x Down_l^T) Up_l^T)"""

    def __init__(self, width, loras, rank):
        super().__init__()
        self.down = uniform(loras, rank, width, fan_in=width)
        self.up = uniform(loras, width, rank, fan_in=rank)
        self.mix = nn.Linear(width, loras)

    def forward(self, x):
        mix = torch.softmax(self.mix(x), 1)
        down = F.linear(x, self.down.flatten(0, 1)).split(self.down.shape[1], 1)
        branches = [2 * torch.sigmoid(F.linear(d, up)) for d, up in zip(down, self.up)]
        return x * sum(mix[:, l : l + 1] * branch for l, branch in enumerate(branches))


class ExpertLayer(nn.Module):
    """Linear -> Norm -> Activation of E experts side by side; reads (B, in) or (B, E, in), gives (B, E, out)."""

    def __init__(self, experts, width_in, width_out, network):
        super().__init__()
        self.weight = uniform(experts, width_out, width_in, fan_in=width_in)
        self.bias = uniform(experts, width_out, fan_in=width_in)
        self.kind, self.eps = network["norm"], network["norm_eps"]
        self.activation = ACTIVATIONS[network["activation"]]
        if self.kind == "batch":
            self.norm = nn.BatchNorm1d(experts * width_out, eps=self.eps)
        elif self.kind == "layer":
            self.norm = nn.Module()
            self.norm.weight = nn.Parameter(torch.ones(experts, width_out))
            self.norm.bias = nn.Parameter(torch.zeros(experts, width_out))

    def forward(self, x):
        if x.dim() == 2:
            h = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).view(len(x), *self.bias.shape)
        else:
            h = torch.stack([F.linear(x[:, e], w, b) for e, (w, b) in enumerate(zip(self.weight, self.bias))], 1)
        if self.kind == "batch":
            h = self.norm(h.flatten(1)).view_as(h)
        elif self.kind == "layer":
            h = F.layer_norm(h, h.shape[-1:], eps=self.eps) * self.norm.weight + self.norm.bias
        return self.activation(h)


class Unit(nn.Module):
    """A unit's experts, feature gate, gate and self gate; widths come from the layers before it."""

    def __init__(self, unit, width, gate_width, n_mixed, network):
        super().__init__()
        self.n_experts = unit.get("experts", 0)
        gate = unit.get("feature_gate")
        self.feature_gate = FeatureGate(width, gate["loras"], gate["rank"]) if gate else None
        widths = [width] + (unit.get("hidden", []) if self.n_experts else [])
        self.expert = nn.ModuleList(
            ExpertLayer(self.n_experts, i, o, network) for i, o in zip(widths, widths[1:])
        )
        self.gate = nn.Linear(gate_width, n_mixed) if n_mixed > 1 else None
        self.self_gate = nn.Linear(gate_width, self.n_experts) if unit.get("self_gate", False) else None

    def experts(self, x):
        h = self.feature_gate(x) if self.feature_gate else x
        for layer in self.expert:
            h = layer(h)
        return h  # (B, E, width)

    def mix(self, g, mixed, own):
        """mixed (B, n_mixed, width): the experts this gate may see; own (B, E, width)."""
        y = mixed[:, 0] if self.gate is None else self.weigh(self.gate(g).softmax(1), mixed)
        if self.self_gate is not None:
            logits = self.self_gate(g)
            y = y + self.weigh(logits.softmax(1) if self.n_experts > 1 else logits.sigmoid(), own)
        return y

    @staticmethod
    def weigh(weights, experts):
        return (weights.unsqueeze(2) * experts).sum(1)


class Network(nn.Module):
    """All of a config's network and embedding tables. forward takes {feature name: tensor} and gives logits (B, T).

    Modules are filed under the config's names with an underscore behind, for a task may be called "forward".
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.network = {**DEFAULTS, **config["network"]}
        self.embedding = nn.ModuleDict(
            {name + "_": nn.Embedding(t["rows"], t["dim"]) for name, t in config["tables"].items()}
        )
        for table in self.embedding.values():
            nn.init.normal_(table.weight, std=0.01)
        self.widths = {"features": sum(map(self.feature_width, config["features"]))}
        self.layer = nn.ModuleDict()
        for layer in self.network["layers"]:
            self._add_layer(layer)
        self.tower = nn.ModuleDict()
        for task in self.network["tasks"]:
            widths = [self.widths[task["input"]], *task["tower"], 1]
            self.tower[task["name"] + "_"] = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:]))

    def feature_width(self, feature):
        if feature["kind"] == "number":
            return 1
        if feature["kind"] == "numbers":
            return feature["length"]
        return self.config["tables"][feature["table"]]["dim"]

    def _add_layer(self, layer):
        experts = {u["name"]: u.get("experts", 0) for u in layer["units"]}
        hidden = {u["name"]: u["hidden"][-1] for u in layer["units"] if u.get("experts", 0)}
        units, outputs = nn.ModuleDict(), {}
        for unit in layer["units"]:
            width = sum(self.widths[i] for i in unit["input"])
            gate_width = sum(self.widths[i] for i in unit.get("gate_input", unit["input"]))
            n_mixed = sum(experts[name] for name in unit.get("mix", []))
            units[unit["name"] + "_"] = Unit(unit, width, gate_width, n_mixed, self.network)
            if unit.get("mix"):
                lender = next(name for name in unit["mix"] if experts[name])
                outputs[f"{layer['name']}.{unit['name']}"] = hidden[lender]
        self.layer[layer["name"] + "_"] = units
        self.widths.update(outputs)

    def vector(self, columns):
        """v: the concatenation of the features' outputs (MODEL.md 3)."""
        parts = []
        for feature in self.config["features"]:
            column = columns[feature["name"]]
            if feature["kind"] in ("number", "numbers"):
                parts.append(column)
            elif feature["kind"] == "ids":
                parts.append(self._pool(feature, column))
            else:
                parts.append(self.embedding[feature["table"] + "_"](column))
        return torch.cat(parts, 1)

    def _pool(self, feature, column):
        valid = (column >= 0).unsqueeze(2).to(self.embedding[feature["table"] + "_"].weight.dtype)
        total = (self.embedding[feature["table"] + "_"](column.clamp(min=0)) * valid).sum(1)
        return total if feature.get("pool", "mean") == "sum" else total / valid.sum(1).clamp(min=1)

    def units(self, v):
        """Runs all layers; returns {"layer.unit": output}, and v as "features"."""
        values = {"features": v}
        for layer in self.network["layers"]:
            modules = self.layer[layer["name"] + "_"]
            experts = {}
            for unit in layer["units"]:
                if unit.get("experts", 0):
                    x = torch.cat([values[i] for i in unit["input"]], 1)
                    experts[unit["name"]] = modules[unit["name"] + "_"].experts(x)
            outputs = {}
            for unit in layer["units"]:
                if not unit.get("mix"):
                    continue
                g = torch.cat([values[i] for i in unit.get("gate_input", unit["input"])], 1)
                mixed = torch.cat([experts[name] for name in unit["mix"] if name in experts], 1)
                outputs[f"{layer['name']}.{unit['name']}"] = modules[unit["name"] + "_"].mix(
                    g, mixed, experts.get(unit["name"])
                )
            values.update(outputs)
        return values

    def logits(self, values):
        activation = ACTIVATIONS[self.network["tower_activation"]]
        columns = []
        for task in self.network["tasks"]:
            h, tower = values[task["input"]], self.tower[task["name"] + "_"]
            for linear in tower[:-1]:
                h = activation(linear(h))
            columns.append(tower[-1](h))
        return torch.cat(columns, 1)

    def forward(self, columns):
        return self.logits(self.units(self.vector(columns)))

    def tensors(self):
        """{MODEL.md's tensor name: tensor}, all that serving needs and nothing else."""
        tensors = {f"embedding.{name[:-1]}.weight": t.weight for name, t in self.embedding.items()}
        for layer in self.network["layers"]:
            for unit in layer["units"]:
                module = self.layer[layer["name"] + "_"][unit["name"] + "_"]
                tensors.update(self._unit_tensors(f"{layer['name']}.{unit['name']}", module))
        for name, tower in self.tower.items():
            for i, linear in enumerate(tower):
                at = f"tower.{name[:-1]}.{i}"
                tensors[f"{at}.weight"], tensors[f"{at}.bias"] = linear.weight, linear.bias
        return {name: t.detach().contiguous() for name, t in tensors.items()}

    @staticmethod
    def _unit_tensors(prefix, unit):
        tensors = {}
        for i, layer in enumerate(unit.expert):
            at = f"{prefix}.expert.{i}"
            tensors[f"{at}.weight"], tensors[f"{at}.bias"] = layer.weight, layer.bias
            if layer.kind != "none":
                names = ["weight", "bias"] + (["running_mean", "running_var"] if layer.kind == "batch" else [])
                for name in names:
                    tensors[f"{at}.norm.{name}"] = getattr(layer.norm, name).view_as(layer.bias)
        if unit.feature_gate is not None:
            gate = unit.feature_gate
            tensors[f"{prefix}.feature_gate.down"], tensors[f"{prefix}.feature_gate.up"] = gate.down, gate.up
            tensors[f"{prefix}.feature_gate.mix.weight"] = gate.mix.weight
            tensors[f"{prefix}.feature_gate.mix.bias"] = gate.mix.bias
        for name in ("gate", "self_gate"):
            linear = getattr(unit, name)
            if linear is not None:
                tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"] = linear.weight, linear.bias
        return tensors
