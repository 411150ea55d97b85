"""A float64 evaluation of MODEL.md, independent of the service: the judge of its scores.

It shares nothing with the C code but the page itself: its own safetensors reader, its own XXH64, its own
encoder and network, all in NumPy doubles and written for being read beside MODEL.md, whose sections it cites.

    model = Model("ROOT/home/1")
    result = model.evaluate(request, {"user": {"u1": {...}}, "item": {"i1": {...}}})

Letters as there: B rows, D width of v, E experts of a unit, L branches of a feature gate, T tasks.
"""

import gzip
import json
import math
import os
import re
import struct

import numpy as np

# --- XXH64 (xxHash fast digest algorithm specification, version 0.1.1) ---------------------------------------

_MASK = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                           0x27D4EB2F165667C5)


def _rotl(x, r):
    return ((x << r) | (x >> (64 - r))) & _MASK


def _round(acc, lane):
    return _rotl((acc + lane * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data, seed=0):
    """The 64-bit xxHash of bytes."""
    n, at = len(data), 0
    if n >= 32:
        acc = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 32 <= n:
            lanes = struct.unpack_from("<4Q", data, at)
            acc = [_round(a, lane) for a, lane in zip(acc, lanes)]
            at += 32
        h = sum(_rotl(a, r) for a, r in zip(acc, (1, 7, 12, 18))) & _MASK
        for a in acc:
            h = ((h ^ _round(0, a)) * _P1 + _P4) & _MASK
    else:
        h = (seed + _P5) & _MASK
    h = (h + n) & _MASK
    while at + 8 <= n:
        lane = struct.unpack_from("<Q", data, at)[0]
        h = (_rotl(h ^ _round(0, lane), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= n:
        lane = struct.unpack_from("<I", data, at)[0]
        h = (_rotl(h ^ (lane * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        h = _rotl(h ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    h = (h ^ (h >> 33)) * _P2 & _MASK
    h = (h ^ (h >> 29)) * _P3 & _MASK
    return h ^ (h >> 32)


# --- safetensors ---------------------------------------------------------------------------------------------


def _bf16(raw):
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


_DTYPES = {"F32": lambda raw: np.frombuffer(raw, "<f4"), "F16": lambda raw: np.frombuffer(raw, "<f2"),
           "BF16": _bf16}


def read_safetensors(path):
    """{name: float64 array} of a file."""
    with open(path, "rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_header))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = _DTYPES[entry["dtype"]](data[begin:end]).astype(np.float64).reshape(entry["shape"])
    return tensors


# --- section 3: values ---------------------------------------------------------------------------------------


class WrongKind(ValueError):
    """An inline value of the wrong kind: INVALID_ARGUMENT in the service."""


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_DIRECT = re.compile(r"0|[1-9][0-9]*", re.ASCII)


def feature_value(value):
    """DESIGN 5, JSON form: a JSON value as (kind, content), None where it is missing."""
    if value is None:
        return None
    if isinstance(value, bool) or isinstance(value, dict):
        return ("other", None)
    if isinstance(value, str):
        return ("id", value)
    if isinstance(value, int):
        return ("id", str(value))
    if isinstance(value, float):
        return ("number", value)
    types = set(map(type, value))
    if types <= {int}:
        return ("ids", list(map(str, value)))
    if str in types or types <= {int, type(None)}:  # a null keeps integers what they are
        return ("ids", ["" if element is None else _element_text(element) for element in value])
    return ("numbers", [float("nan") if element is None else float(element) for element in value])


def _element_text(element):
    """The text that a list of texts carries for a number among them."""
    if isinstance(element, float) and not element.is_integer():
        return repr(element)
    return _id_text(element)


def _id_text(element):
    return element if isinstance(element, str) else integral_text(element)


def integral_text(x):
    """The shortest decimal form of a number with an integral value; WrongKind for any other."""
    if isinstance(x, float) and not x.is_integer():
        raise WrongKind("a number that is no integer has no text")
    return str(int(x))


def _number(kind, content):
    """The number that a single value stands for."""
    if kind == "number":
        return content
    if kind == "id" and _NUMBER.fullmatch(content):
        return float(content)
    raise WrongKind("expected a number, found %s %r" % (kind, content))


class Encoder:
    """Records to table rows and dense values. Counts in `n_invalid` what stored records held of a wrong kind."""

    def __init__(self, tables, features):
        self.tables = tables
        self.features = features
        self.n_invalid = 0
        self._rows = {}

    def row(self, table, text):
        """Row of a text."""
        key = (table, text)
        if key not in self._rows:
            self._rows[key] = self._row(self.tables[table], text)
        return self._rows[key]

    @staticmethod
    def _row(table, text):
        if text == "":
            return 0
        if table["index"] == "hash":
            return 1 + xxh64(text.encode("utf-8", "surrogateescape")) % (table["rows"] - 1)
        if _DIRECT.fullmatch(text) and int(text) < table["rows"] - 1:
            return int(text) + 1
        return 0

    def value(self, feature, record, inline, entity_id):
        """One feature of one entity: a row, (rows) for ids, or the final dense values."""
        field = feature.get("field", feature["name"])
        if entity_id is not None and field == feature["entity"] + "_id":
            return self._read(feature, ("id", entity_id), strict=False)
        if field in inline:
            return self._read(feature, feature_value(inline[field]), strict=True)
        return self._read(feature, feature_value(record.get(field)), strict=False)

    def _read(self, feature, value, strict):
        read = getattr(self, "_read_" + feature["kind"])
        if value is None:
            return read(feature, None, strict)
        try:
            return read(feature, value, strict)
        except WrongKind as error:
            if strict:
                raise WrongKind("feature %s: %s" % (feature["name"], error)) from None
            self.n_invalid += 1
            return read(feature, None, strict)

    def _read_id(self, feature, value, strict):
        if value is None:
            return 0
        kind, content = value
        if kind == "id":
            return self.row(feature["table"], content)
        if kind == "number":
            return self.row(feature["table"], integral_text(content))
        raise WrongKind("expected one id, found %s" % kind)

    def _read_ids(self, feature, value, strict):
        if value is None:
            return []
        kind, content = value
        if kind in ("id", "number"):
            content = [content]
        elif kind not in ("ids", "numbers"):
            raise WrongKind("expected ids, found %s" % kind)
        content = content[:feature.get("max_length", 50)]
        if kind == "ids":
            return [self.row(feature["table"], text) for text in content]
        rows = []
        for element in content:
            if kind == "numbers" and math.isnan(element):  # a null: missing, not of the wrong kind
                rows.append(0)
                continue
            try:
                rows.append(self.row(feature["table"], _id_text(element)))
            except (WrongKind, OverflowError, ValueError) as error:
                if strict:
                    raise WrongKind(str(error)) from None
                self.n_invalid += 1
                rows.append(0)
        return rows

    def _read_number(self, feature, value, strict):
        if value is None:
            return [0.0]
        x = _number(*value)
        if feature.get("log1p", False):
            if x < 0:
                return [0.0]
            x = np.log1p(x)
        x = (x - feature.get("mean", 0.0)) / feature.get("std", 1.0)
        return [float(x) if np.isfinite(x) else 0.0]

    def _read_bucket(self, feature, value, strict):
        if value is None:
            return 0
        x = _number(*value)
        if not np.isfinite(x):
            return 0
        return 1 + sum(b <= x for b in feature["boundaries"])

    def _read_numbers(self, feature, value, strict):
        length = feature["length"]
        if value is None:
            return [0.0] * length
        kind, content = value
        if kind in ("id", "number"):
            numbers = [_number(kind, content)]
        elif kind in ("ids", "numbers"):  # a null among texts is the empty one
            numbers = [math.nan if element == "" else _number(kind[:-1], element) for element in content]
        else:
            raise WrongKind("expected numbers, found %s" % kind)
        if len(numbers) != length:
            raise WrongKind("expected %d numbers, found %d" % (length, len(numbers)))
        return numbers if np.all(np.isfinite(numbers)) else [0.0] * length


# --- section 2: the network ----------------------------------------------------------------------------------


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ACTIVATIONS = {"swish": lambda x: x * sigmoid(x), "relu": lambda x: np.maximum(x, 0.0)}


def apply_output(kind, z):
    """A task's output from its logit."""
    with np.errstate(over="ignore"):
        return {"sigmoid": sigmoid, "identity": lambda x: x, "softplus": lambda x: np.logaddexp(0.0, x),
                "exp": np.exp}[kind](np.asarray(z, np.float64))


def expected_shapes(config):
    """Section 2, Tensors: {name: shape} of all that config.json calls for."""
    shapes, widths = {}, {"features": 0}
    for feature in config["features"]:
        if "table" in feature:
            widths["features"] += config["tables"][feature["table"]]["dim"]
        else:
            widths["features"] += feature.get("length", 1)
    for name, table in config["tables"].items():
        shapes["embedding.%s.weight" % name] = (table["rows"], table["dim"])
    network = config["network"]
    for layer in network["layers"]:
        units = {unit["name"]: unit for unit in layer["units"]}
        for unit in layer["units"]:
            shapes.update(_unit_shapes(network.get("norm", "batch"), layer, unit, units, widths))
        for unit in layer["units"]:
            if "mix" in unit:
                lender = next(name for name in unit["mix"] if units[name]["experts"])
                widths[layer["name"] + "." + unit["name"]] = units[lender]["hidden"][-1]
    for task in network["tasks"]:
        sizes = [widths[task["input"]]] + task.get("tower", []) + [1]
        for i in range(len(sizes) - 1):
            shapes["tower.%s.%d.weight" % (task["name"], i)] = (sizes[i + 1], sizes[i])
            shapes["tower.%s.%d.bias" % (task["name"], i)] = (sizes[i + 1],)
    return shapes


_NORM_TENSORS = {"batch": ("weight", "bias", "running_mean", "running_var"), "layer": ("weight", "bias"), "none": ()}


def _unit_shapes(norm, layer, unit, units, widths):
    prefix, n, shapes = "%s.%s." % (layer["name"], unit["name"]), unit["experts"], {}
    width = sum(widths[name] for name in unit["input"])
    gate_width = sum(widths[name] for name in unit.get("gate_input", unit["input"]))
    sizes = [width] + (unit.get("hidden", []) if n else [])
    for i in range(len(sizes) - 1):
        shapes[prefix + "expert.%d.weight" % i] = (n, sizes[i + 1], sizes[i])
        shapes[prefix + "expert.%d.bias" % i] = (n, sizes[i + 1])
        for part in _NORM_TENSORS[norm]:
            shapes[prefix + "expert.%d.norm.%s" % (i, part)] = (n, sizes[i + 1])
    if unit.get("feature_gate"):
        loras, rank = unit["feature_gate"]["loras"], unit["feature_gate"]["rank"]
        shapes[prefix + "feature_gate.down"] = (loras, rank, width)
        shapes[prefix + "feature_gate.up"] = (loras, width, rank)
        shapes[prefix + "feature_gate.mix.weight"] = (loras, width)
        shapes[prefix + "feature_gate.mix.bias"] = (loras,)
    n_mixed = sum(units[name]["experts"] for name in unit.get("mix", []))
    if n_mixed > 1:
        shapes[prefix + "gate.weight"], shapes[prefix + "gate.bias"] = (n_mixed, gate_width), (n_mixed,)
    if unit.get("self_gate", False):
        shapes[prefix + "self_gate.weight"], shapes[prefix + "self_gate.bias"] = (n, gate_width), (n,)
    return shapes


class Model:
    """A model, evaluated in float64: Model(folder), or of a config and tensors in memory."""

    def __init__(self, folder=None, config=None, tensors=None):
        if folder is not None:
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
            tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
        if config["format"] != "homerank/1":
            raise ValueError("format %r" % config["format"])
        self.config, self.tensors, self.network = config, tensors, config["network"]
        self.encoder = Encoder(config["tables"], config["features"])
        self.tasks = self.network["tasks"]
        self.task_names = [task["name"] for task in self.tasks]
        self.norm = self.network.get("norm", "batch")
        self.norm_eps = self.network.get("norm_eps", 1e-5)
        self.activation = ACTIVATIONS[self.network.get("activation", "swish")]
        self.tower_activation = ACTIVATIONS[self.network.get("tower_activation", "relu")]
        self._check_tensors()

    def _check_tensors(self):
        """A file with other tensors is not evaluated."""
        expected = expected_shapes(self.config)
        for name, shape in expected.items():
            if name not in self.tensors:
                raise ValueError("tensor %s: expected %s, found none" % (name, list(shape)))
            if self.tensors[name].shape != shape:
                raise ValueError("tensor %s: expected %s, found %s" %
                                 (name, list(shape), list(self.tensors[name].shape)))
        surplus = sorted(set(self.tensors) - set(expected))
        if surplus:
            raise ValueError("tensor %s: nothing calls for it" % surplus[0])

    # Section 3: the vector v.

    def encode(self, entity, record, inline, entity_id=None):
        """The parts of v that come from one entity: {feature index: (width)}."""
        parts = {}
        for i, feature in enumerate(self.encoder.features):
            if feature["entity"] != entity:
                continue
            value = self.encoder.value(feature, record, inline, entity_id)
            if "table" not in feature:
                parts[i] = np.asarray(value, np.float64)
                continue
            table = self.tensors["embedding.%s.weight" % feature["table"]]
            if feature["kind"] != "ids":
                parts[i] = table[value]
            elif not value:
                parts[i] = np.zeros(table.shape[1])
            else:
                rows = table[value]
                parts[i] = rows.sum(0) if feature.get("pool", "mean") == "sum" else rows.mean(0)
        return parts

    def vector(self, *parts):
        """v (D) of one row, from the parts of its user, item and context."""
        merged = {}
        for part in parts:
            merged.update(part)
        return np.concatenate([merged[i] for i in range(len(merged))])

    # Section 2: v (B, D) to logits (B, T).

    def forward(self, v):
        outputs = {"features": v}
        for layer in self.network["layers"]:
            self._layer(layer, outputs)
        logits = []
        for task in self.tasks:
            h = outputs[task["input"]]
            tower = task.get("tower", [])
            for i in range(len(tower) + 1):
                name = "tower.%s.%d" % (task["name"], i)
                h = h @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]
                if i < len(tower):
                    h = self.tower_activation(h)
            logits.append(h[:, 0])
        return np.stack(logits, axis=1)

    def _layer(self, layer, outputs):
        experts, gate_inputs = {}, {}
        for unit in layer["units"]:
            x = np.concatenate([outputs[name] for name in unit["input"]], axis=1)
            gate_inputs[unit["name"]] = np.concatenate(
                [outputs[name] for name in unit.get("gate_input", unit["input"])], axis=1)
            experts[unit["name"]] = self._experts(layer, unit, x)
        for unit in layer["units"]:
            if "mix" in unit:
                outputs[layer["name"] + "." + unit["name"]] = self._mix(layer, unit, experts,
                                                                        gate_inputs[unit["name"]])

    def _experts(self, layer, unit, x):
        """Steps 3 and 4: the unit's experts, a list of (B, width)."""
        prefix = "%s.%s." % (layer["name"], unit["name"])
        if unit.get("feature_gate"):
            x = x * self._feature_gate(prefix + "feature_gate.", x)
        experts = []
        for k in range(unit["experts"]):
            h = x
            for i in range(len(unit["hidden"])):
                name = prefix + "expert.%d." % i
                h = h @ self.tensors[name + "weight"][k].T + self.tensors[name + "bias"][k]
                h = self.activation(self._normalise(name + "norm.", k, h))
            experts.append(h)
        return experts

    def _feature_gate(self, prefix, x):
        weights = softmax(x @ self.tensors[prefix + "mix.weight"].T + self.tensors[prefix + "mix.bias"])
        gate = np.zeros_like(x)
        for branch, (down, up) in enumerate(zip(self.tensors[prefix + "down"], self.tensors[prefix + "up"])):
            gate += weights[:, branch:branch + 1] * 2.0 * sigmoid((x @ down.T) @ up.T)
        return gate

    def _normalise(self, prefix, k, h):
        if self.norm == "none":
            return h
        if self.norm == "batch":
            mean, variance = self.tensors[prefix + "running_mean"][k], self.tensors[prefix + "running_var"][k]
        else:
            mean, variance = h.mean(1, keepdims=True), h.var(1, keepdims=True)
        h = (h - mean) / np.sqrt(variance + self.norm_eps)
        return h * self.tensors[prefix + "weight"][k] + self.tensors[prefix + "bias"][k]

    def _mix(self, layer, unit, experts, g):
        """Steps 5 and 6: the unit's output (B, width)."""
        prefix = "%s.%s." % (layer["name"], unit["name"])
        mixed = [expert for name in unit["mix"] for expert in experts[name]]
        if len(mixed) == 1:
            y = mixed[0]
        else:
            weights = softmax(g @ self.tensors[prefix + "gate.weight"].T + self.tensors[prefix + "gate.bias"])
            y = sum(weights[:, j:j + 1] * expert for j, expert in enumerate(mixed))
        if unit.get("self_gate", False):
            own = experts[unit["name"]]
            s = g @ self.tensors[prefix + "self_gate.weight"].T + self.tensors[prefix + "self_gate.bias"]
            s = softmax(s) if len(own) > 1 else sigmoid(s)
            y = y + sum(s[:, k:k + 1] * expert for k, expert in enumerate(own))
        return y

    # Section 4 and the whole of a request.

    def outputs(self, logits):
        """(B, T) outputs of (B, T) logits."""
        return np.stack([apply_output(task.get("output", "sigmoid"), logits[:, t])
                         for t, task in enumerate(self.tasks)], axis=1)

    def fuse(self, outputs):
        """(B) scores of (B, T) outputs."""
        fusion = self.config["fusion"]
        with np.errstate(over="ignore", invalid="ignore"):
            if fusion["kind"] == "weighted_sum":
                return sum((weight * outputs[:, self.task_names.index(name)]
                            for name, weight in fusion["weights"].items()), np.zeros(len(outputs)))
            score = np.ones(len(outputs))
            for name, term in fusion["terms"].items():
                base = term.get("offset", 0.0) + outputs[:, self.task_names.index(name)]
                score = score * base**term.get("power", 1.0)
            return score

    def vectors(self, request, store):
        """v (B, D) of a request's items."""
        inline = request.get("item_features") or [{}] * len(request["item_ids"])
        if len(inline) != len(request["item_ids"]):
            raise ValueError("item_features: expected one per item")
        user_id = request.get("user_id", "")
        user = self.encode("user", store.get("user", {}).get(user_id, {}), request.get("user_features", {}), user_id)
        context = self.encode("context", {}, request.get("context", {}))
        rows = []
        for item_id, features in zip(request["item_ids"], inline):
            item = self.encode("item", store.get("item", {}).get(item_id, {}), features, item_id)
            rows.append(self.vector(user, context, item))
        return np.stack(rows)

    def evaluate(self, request, store):
        """Per item, in the request's order: {"item_id", "score", "tasks", "logits"}; and the ranking."""
        logits = self.forward(self.vectors(request, store))
        return self.answer(request["item_ids"], logits)

    def answer(self, item_ids, logits):
        outputs = self.outputs(logits)
        scores = self.fuse(outputs)
        items = [{"item_id": item_id, "score": float(scores[i]),
                  "tasks": {name: float(outputs[i, t]) for t, name in enumerate(self.task_names)},
                  "logits": {name: float(logits[i, t]) for t, name in enumerate(self.task_names)}}
                 for i, item_id in enumerate(item_ids)]
        finite = np.isfinite(scores) & np.isfinite(outputs).all(axis=1)
        order = sorted(range(len(items)), key=lambda i: (not finite[i], -scores[i] if finite[i] else 0.0, i))
        return {"items": items, "order": order}


def read_store(path):
    """{"user": {id: features}, "item": {id: features}} from a file of `features load` lines, .gz by name."""
    store = {"user": {}, "item": {}}
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                record = json.loads(line)
                store[record["entity"]][record["id"]] = record["features"]
    return store
