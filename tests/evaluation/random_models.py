"""Seeded random models, records and requests that reach into every corner of MODEL.md.

    python3 tests/evaluation/random_models.py --kind home2 --seed 7 --out DIR

writes DIR/home2/1/{config.json,model.safetensors}, DIR/records.jsonl (lines of `features load`) and
DIR/requests.jsonl (lines of `homerank score`). The same kind and seed give the same files.
"""

import argparse
import json
import os
import struct

import numpy as np

from homerank_eval import Model, expected_shapes

KINDS = ("home1", "home2", "home3", "mmoe", "cgc", "ple", "shared_bottom", "odd")

# --- the network section -------------------------------------------------------------------------------------


def _pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def _hidden(rng, last):
    return [int(rng.integers(7, 40)) for _ in range(rng.integers(0, 3))] + [last]


def _feature_gate(rng):
    return {"loras": int(rng.integers(1, 4)), "rank": int(rng.integers(1, 20))}


def _unit(rng, name, inputs, experts, width, mix=None, gate_input=None, self_gate=None):
    unit = {"name": name, "input": inputs, "experts": experts}
    if experts:
        unit["hidden"] = _hidden(rng, width)
        if rng.random() < 0.6:
            unit["feature_gate"] = _feature_gate(rng)
    elif rng.random() < 0.5:
        unit["hidden"] = []
    if gate_input:
        unit["gate_input"] = gate_input
    if mix:
        unit["mix"] = mix
        if experts and (rng.random() < 0.6 if self_gate is None else self_gate):
            unit["self_gate"] = True
        elif rng.random() < 0.3:
            unit["self_gate"] = False
    return unit


def _group_layer(rng, name, groups, previous):
    """HoME's first and middle layers: a shared unit sees all groups, a group sees itself and the shared unit."""
    width, units = int(rng.integers(7, 30)), []
    for unit in ["shared"] + groups:
        mix = ["shared"] + groups if unit == "shared" else ["shared", unit]
        inputs = ["features"] if previous is None else ["%s.%s" % (previous, unit)]
        if previous and rng.random() < 0.3:
            inputs.append("features")
        units.append(_unit(rng, unit, inputs, int(rng.integers(1, 4)), width, mix))
    return {"name": name, "units": units}


def _task_layer(rng, groups, tasks, previous):
    """HoME's last layer: tasks mix the shared, their group's and their own experts."""
    width, units = int(rng.integers(7, 30)), []
    source = (lambda unit: "features") if previous is None else (lambda unit: "%s.%s" % (previous, unit))
    for unit in ["shared"] + groups:
        units.append(_unit(rng, unit, [source(unit)], int(rng.integers(1, 3)), width))
    for i, task in enumerate(tasks):
        group = groups[i % len(groups)]
        gate_input = [source(group), source("shared")] if previous and rng.random() < 0.7 else None
        units.append(_unit(rng, task, [source(group)], int(rng.integers(1, 3)), width, ["shared", group, task],
                           gate_input))
    return {"name": "task", "units": units}


def _home(rng, depth, tasks):
    groups, layers = ["watch", "interaction"], []
    for i in range(depth - 1):
        layers.append(_group_layer(rng, "meta%d" % i, groups, layers[-1]["name"] if layers else None))
    layers.append(_task_layer(rng, groups, tasks, layers[-1]["name"] if layers else None))
    return layers, ["task." + task for task in tasks]


def _mmoe(rng, tasks):
    width = int(rng.integers(7, 30))
    units = [_unit(rng, "experts", ["features"], int(rng.integers(2, 6)), width)]
    units += [_unit(rng, task, ["features"], 0, width, ["experts"]) for task in tasks]
    return [{"name": "mmoe", "units": units}], ["mmoe." + task for task in tasks]


def _ple(rng, depth, tasks):
    layers, previous = [], None
    for i in range(depth):
        last, width, units = i == depth - 1, int(rng.integers(7, 30)), []
        source = (lambda unit: "features") if previous is None else (lambda unit: "%s.%s" % (previous, unit))
        units.append(_unit(rng, "shared", [source("shared")], int(rng.integers(1, 4)), width,
                           None if last else ["shared"] + tasks))
        for task in tasks:
            units.append(_unit(rng, task, [source(task)], int(rng.integers(1, 3)), width, ["shared", task]))
        previous = "extract%d" % i
        layers.append({"name": previous, "units": units})
    return layers, ["%s.%s" % (previous, task) for task in tasks]


def _shared_bottom(rng, tasks):
    units = [_unit(rng, "bottom", ["features"], 1, int(rng.integers(7, 40)), ["bottom"], None, rng.random() < 0.3)]
    return [{"name": "bottom", "units": units}], ["bottom.bottom"] * len(tasks)


def _odd(rng, tasks):
    """What no paper draws: deep, lopsided, several inputs, gates without experts between the layers, skips to v."""
    layers, readable = [], ["features"]
    for i in range(int(rng.integers(1, 5))):
        name, width = "l%d-x" % i, int(rng.integers(7, 24))
        units = [_unit(rng, "U%d" % k, _some(rng, readable, 3), int(rng.integers(0, 4)), width)
                 for k in range(int(rng.integers(2, 6)))]
        if not any(unit["experts"] for unit in units):
            units[0] = _unit(rng, "U0", ["features"], 1, width)
        lenders = [unit["name"] for unit in units if unit["experts"]]
        for unit in units:
            if rng.random() < 0.75 or unit is units[-1]:
                mix = _some(rng, lenders, len(lenders))
                if rng.random() < 0.2:  # a unit without experts adds nothing to a mix, and may stand in one
                    mix += [u["name"] for u in units if not u["experts"]][:1]
                unit["mix"] = mix
                if unit["experts"] and rng.random() < 0.5:
                    unit["self_gate"] = True
                if rng.random() < 0.4:
                    unit["gate_input"] = _some(rng, readable, 2)
        layers.append({"name": name, "units": units})
        readable += ["%s.%s" % (name, unit["name"]) for unit in units if "mix" in unit]
    outputs = readable[1:]
    return layers, [outputs[-1]] + [_pick(rng, *outputs) for _ in tasks[1:]]


def _some(rng, names, most):
    """A few of the names, in any order, none twice."""
    order = rng.permutation(len(names))[:int(rng.integers(1, most + 1))]
    return [names[i] for i in order]


def _network(rng, kind, seed):
    tasks = ["click", "like", "long_view", "follow", "share", "buy"][:int(rng.integers(1, 7))]
    if kind.startswith("home"):
        tasks = (tasks * 2)[:max(2, len(tasks))] if len(tasks) > 1 else ["click", "like"]
        layers, inputs = _home(rng, int(kind[4:]), tasks)
    elif kind == "mmoe":
        layers, inputs = _mmoe(rng, tasks)
    elif kind in ("cgc", "ple"):
        layers, inputs = _ple(rng, 1 if kind == "cgc" else int(rng.integers(2, 4)), tasks)
    elif kind == "shared_bottom":
        layers, inputs = _shared_bottom(rng, tasks)
    else:
        layers, inputs = _odd(rng, tasks)
    network = {"norm": ("batch", "layer", "none")[seed % 3], "layers": layers, "tasks": []}
    if network["norm"] == "batch" and rng.random() < 0.5:
        del network["norm"]
    network["activation"] = ("swish", "relu")[seed // 3 % 2]
    if rng.random() < 0.5:
        network["norm_eps"] = float(_pick(rng, 1e-5, 1e-3, 1e-6))
    if rng.random() < 0.7:
        network["tower_activation"] = _pick(rng, "swish", "relu")
    for i, (task, source) in enumerate(zip(tasks, inputs)):
        entry = {"name": task, "input": source, "output": ("sigmoid", "identity", "softplus", "exp")[(seed + i) % 4]}
        if entry["output"] == "sigmoid" and rng.random() < 0.5:
            del entry["output"]
        tower = [int(rng.integers(3, 30)) for _ in range(int(rng.integers(0, 3)))]
        if tower or rng.random() < 0.5:
            entry["tower"] = tower
        network["tasks"].append(entry)
    return network


def _fusion(rng, tasks):
    positive = [task["name"] for task in tasks if task.get("output") != "identity"]
    if positive and rng.random() < 0.5:
        terms = {}
        for name in _some(rng, positive, len(positive)):
            terms[name] = {"power": round(float(rng.uniform(0.2, 2)), 3), "offset": round(float(rng.uniform(0, 1)), 3)}
            if rng.random() < 0.3:
                del terms[name][_pick(rng, "power", "offset")]
        return {"kind": "power_product", "terms": terms}
    names = _some(rng, [task["name"] for task in tasks], len(tasks))
    return {"kind": "weighted_sum", "weights": {name: round(float(rng.uniform(-2, 8)), 3) for name in names}}


# --- tables and features -------------------------------------------------------------------------------------


def _schema(rng):
    """Each entity has one feature of every kind at least once over a few seeds; every table is read."""
    tables, features = {}, []

    def table(rows, index=None):
        name = "t%d" % len(tables)
        tables[name] = {"rows": rows, "dim": int(_pick(rng, 1, 3, 4, 8, 16)),
                        "index": index or _pick(rng, "hash", "direct")}
        return name

    def shared_table():
        return _pick(rng, *tables) if tables and rng.random() < 0.3 else table(int(_pick(rng, 2, 3, 11, 100, 3000)))

    features.append({"name": "user_id", "entity": "user", "kind": "id", "table": table(200)})
    features.append({"name": "item", "field": "item_id", "entity": "item", "kind": "id", "table": table(300)})
    for i in range(int(rng.integers(6, 13))):
        kind = ("id", "ids", "number", "bucket", "numbers")[i % 5]
        feature = {"name": "%s_%d" % (kind, i), "entity": _pick(rng, "user", "item", "item", "context"), "kind": kind}
        if kind in ("id", "ids"):
            feature["table"] = shared_table()
        if kind == "ids":
            if rng.random() < 0.7:
                feature["max_length"] = int(_pick(rng, 1, 3, 8, 50))
            if rng.random() < 0.7:
                feature["pool"] = "sum" if feature.get("max_length", 50) <= 8 and rng.random() < 0.5 else "mean"
        elif kind == "number":
            if rng.random() < 0.6:
                feature["log1p"] = bool(rng.random() < 0.8)
            if rng.random() < 0.7 or feature.get("log1p"):
                feature["mean"] = round(float(rng.normal()) + 4.0 * feature.get("log1p", False), 3)
                feature["std"] = round(float(rng.uniform(1, 3)), 3)
        elif kind == "bucket":
            count = int(rng.integers(1, 7))
            feature["boundaries"] = sorted({_pick(rng, float(round(rng.normal() * 3, 2)), int(rng.integers(-5, 9)))
                                            for _ in range(count)})
            feature["table"] = table(len(feature["boundaries"]) + 2 + int(rng.integers(0, 3)))
            numbers = [f for f in features if f["kind"] == "number"]
            if numbers and rng.random() < 0.5:  # two features may read one field
                feature["entity"] = numbers[-1]["entity"]
                feature["field"] = numbers[-1].get("field", numbers[-1]["name"])
        elif kind == "numbers":
            feature["length"] = int(_pick(rng, 1, 3, 8))
        if "field" not in feature and rng.random() < 0.3:
            feature["field"] = "f%d" % i
        features.append(feature)
    rng.shuffle(features)
    return tables, features


# --- values --------------------------------------------------------------------------------------------------

_TEXTS = ("a", "full_active", "[100,1k)", "x" * 31, "y" * 32, "zug–Straße–東京", "007", "-3", "1.0", "+5", " 7",
          "1e3", "99999999999999999999999", "a,b,c", "\t\"\\\u0001", "0", "null")


def _id(rng, rows):
    """A value for an `id`: text, integer, number with an integral value."""
    n = int(rng.integers(0, rows + 3))
    return _pick(rng, str(n), n, float(n), n, str(n), _pick(rng, *_TEXTS), -n, float(2**40 + n), 1e21, "")


def _number(rng, log1p=False, types=(int, float, str)):
    """A number, or a text that counts as one; large ones only where log1p tames them."""
    value = _pick(rng, int(rng.integers(-3, 4)), round(float(rng.normal() * 2), 3), float(rng.normal()),
                  "%.4g" % rng.normal(), "%d" % rng.integers(0, 4), "12.5e-1", "-0", "3E+0", "0.5", 0, -0.0)
    if log1p and rng.random() < 0.5:
        value = _pick(rng, int(rng.integers(0, 10**5)), "3E+2", "%d" % rng.integers(0, 5000), 1234.5)
    return value if type(value) in types else _number(rng, log1p, types)


def _value(rng, feature, config):
    """A valid value of the feature, as JSON."""
    kind = feature["kind"]
    if kind in ("number", "bucket"):
        if kind == "bucket" and rng.random() < 0.3:
            return _pick(rng, *feature["boundaries"])  # the rule is b <= x
        return _number(rng, feature.get("log1p", False))
    if kind == "numbers":
        if feature["length"] == 1 and rng.random() < 0.5:
            return _number(rng)
        # A list with a text among its elements is a list of texts, so texts and fractions do not meet in one.
        allowed = _pick(rng, (int, float), (str, int))
        values = [_number(rng, types=allowed) for _ in range(feature["length"])]
        if feature["length"] > 1 and allowed == (int, float) and rng.random() < 0.1:
            values[0], values[1] = None, 0.5
        return values
    rows = config["tables"][feature["table"]]["rows"]
    if kind == "id":
        return _id(rng, rows)
    if rng.random() < 0.1:
        return _id(rng, rows)  # one value is a list of one
    longest = feature.get("max_length", 50)
    n = int(_pick(rng, 0, 1, 2, 5, longest, longest + 1, longest + 7))
    if rng.random() < 0.5:
        return [int(x) or None for x in rng.integers(0, rows + 3, n)]
    return [_pick(rng, str(rng.integers(0, rows + 3)), _pick(rng, *_TEXTS), "", None) for _ in range(n)]


def _wrong(rng, feature):
    """A value of the wrong kind, or with such elements: for stored records only."""
    kind = feature["kind"]
    if kind == "id":
        return _pick(rng, 1.5, ["a", "b"], [1, 2], [0.5], -1e-3)
    if kind == "ids":
        return _pick(rng, 2.5, [1.5, 2, 3], [1, None, 3.5], [0.25])
    if kind == "numbers":
        n = feature["length"]
        return _pick(rng, [1.0] * (n + 1), [], ["x"] * n, ["1", "2", "3", "x"][-n:], "abc", [None] * (n + 1), "1e999")
    return _pick(rng, "abc", "", " 1", "1.", ".5", "0x10", "1e999", [1.5], ["2"], "nan", "Infinity", "٣")


def _record(rng, features, config, stored):
    """A record of one entity, or what a request gives inline."""
    record = {}
    for feature in features:
        field = feature.get("field", feature["name"])
        if field in ("user_id", "item_id"):
            if rng.random() < 0.2:
                record[field] = "not this one"
            continue
        roll = rng.random()
        if roll < 0.15 or (not stored and roll < 0.5):
            continue
        elif roll < 0.2 or (not stored and roll < 0.6):
            record[field] = None
        elif stored and roll < 0.3:
            record[field] = _wrong(rng, feature)
        else:
            record[field] = _value(rng, feature, config)
    if rng.random() < 0.3:
        record["field_that_no_feature_reads"] = _pick(rng, "x", 1, [1, 2], 2.5, None)
    return record


def _complete(rng, features, config):
    """Every field of the features, some of them null."""
    return {f.get("field", f["name"]): None if rng.random() < 0.1 else _value(rng, f, config) for f in features}


def _ids(entity, n):
    return ["%d" % i if i % 3 else "%s-%d" % (entity, i) for i in range(n)]


def make_records(rng, config, n_users=12, n_items=60):
    by_entity = _by_entity(config)
    return [{"entity": entity, "id": identity, "features": _record(rng, by_entity[entity], config, True)}
            for entity, n in (("user", n_users), ("item", n_items)) for identity in _ids(entity, n)]


def _by_entity(config):
    return {entity: [f for f in config["features"] if f["entity"] == entity] for entity in ("user", "item", "context")}


def make_requests(rng, config, n_requests=12):
    by_entity, requests = _by_entity(config), []
    users, items = _ids("user", 12) + ["unknown", "13"], _ids("item", 60) + ["no-such-item", "777", "Ünbekannt"]
    tasks = [task["name"] for task in config["network"]["tasks"]]
    for i in range(n_requests):
        n = int(_pick(rng, 1, 2, 7, 17, 33)) if i else 140
        item_ids = [items[k] for k in rng.permutation(len(items))[:n]]
        if i == 0:  # more items than there are: with repetitions
            item_ids = [_pick(rng, *items) for _ in range(n)]
        if n > 2:
            item_ids[-1] = item_ids[0]
        request = {"request_id": "r%d" % i, "user_id": _pick(rng, *users), "item_ids": item_ids,
                   "context": _record(rng, by_entity["context"], config, False)}
        if rng.random() < 0.5:
            request["user_features"] = _record(rng, by_entity["user"], config, False)
        if rng.random() < 0.6:
            request["item_features"] = [_record(rng, by_entity["item"], config, False) if rng.random() < 0.6 else {}
                                        for _ in item_ids]
        if rng.random() < 0.3:
            request["tasks"] = _some(rng, tasks, len(tasks))
        if rng.random() < 0.2:
            request["top_k"] = int(rng.integers(1, n + 5))
        requests.append(request)
    return requests


def make_inline_requests(rng, config, n_requests=6):
    """Requests with every feature inline, as verify.jsonl has them; no item twice."""
    by_entity = _by_entity(config)
    return [{"request_id": "v%d" % i, "user_id": "user-%d" % i, "item_ids": ["%d" % k for k in range(5)],
             "context": _complete(rng, by_entity["context"], config),
             "user_features": _complete(rng, by_entity["user"], config),
             "item_features": [_complete(rng, by_entity["item"], config) for _ in range(5)]}
            for i in range(n_requests)]


# --- tensors and files ---------------------------------------------------------------------------------------


def encode_tensor(values, dtype):
    """The bytes of an array in F32, F16 or BF16 (rounded to nearest even)."""
    values = np.asarray(values, np.float32)
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path, tensors, dtypes=None, metadata=None):
    """Writes {name: array}; dtypes: {name: dtype}, F32 where not given."""
    header, blobs, at = {}, [], 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, values in tensors.items():
        dtype = (dtypes or {}).get(name, "F32")
        blob = encode_tensor(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(np.shape(values)), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def make_tensors(rng, shapes):
    """Weights that keep activations near 1 through any depth; statistics as training leaves them."""
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            tensors[name] = rng.uniform(0.3, 2.0, shape)
        elif name.endswith("norm.weight"):
            tensors[name] = rng.uniform(0.5, 1.5, shape)
        elif name.startswith("embedding."):
            tensors[name] = rng.normal(0, 0.5, shape)
        elif name.endswith(("bias", "running_mean")):
            tensors[name] = rng.normal(0, 0.3, shape)
        else:  # Swish, relu and mixing all shrink what experts and towers pass on
            gain = 1.4 if ".expert." in name or name.startswith("tower.") else 0.9
            tensors[name] = rng.normal(0, gain / np.sqrt(shape[-1]), shape)
    return tensors


def make_config(kind, seed):
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    tables, features = _schema(rng)
    network = _network(rng, kind, seed)
    config = {"format": "homerank/1", "description": "%s, seed %d" % (kind, seed), "tables": tables,
              "features": features, "network": network, "fusion": _fusion(rng, network["tasks"])}
    return config, rng


def calibrate(config, tensors, requests, store):
    """Scales the towers' ends so that logits are well below one unit: a saturated output tests nothing.

    Nor would wide ones test more: bf16's rounding grows with them, and MODEL 5 bounds it by what is nearly a
    constant.
    """
    model = Model(config=config, tensors=tensors)
    v = np.concatenate([model.vectors(request, store) for request in requests])
    logits = model.forward(v)
    for t, task in enumerate(config["network"]["tasks"]):
        end = "tower.%s.%d." % (task["name"], len(task.get("tower", [])))
        spread = np.sqrt(np.mean((logits[:, t] - tensors[end + "bias"][0])**2))
        tensors[end + "weight"] = tensors[end + "weight"] * (0.25 / spread if spread > 0 else 1.0)


def write_model(folder, config, tensors, rng):
    """config.json and model.safetensors, the tensors in mixed order and dtypes."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    names = list(tensors)
    rng.shuffle(names)
    dtypes = {name: _pick(rng, "F32", "F32", "F16", "BF16") for name in names}
    write_safetensors(os.path.join(folder, "model.safetensors"), {name: tensors[name] for name in names}, dtypes,
                      {"made_by": "random_models"} if rng.random() < 0.5 else None)


def write_lines(path, values):
    with open(path, "w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def write_verify(folder, model, requests):
    """verify.jsonl of the model: requests with every feature inline, and their logits in float64."""
    lines = []
    for request in requests:
        items = model.evaluate(request, {})["items"]
        lines.append({"request": request, "logits": {item["item_id"]: item["logits"] for item in items}})
    write_lines(os.path.join(folder, "verify.jsonl"), lines)
    return lines


def generate(out, kind, seed, n_requests=12, verify=False):
    """Writes a case below `out`; {"model", "records", "requests"}: the paths."""
    config, rng = make_config(kind, seed)
    paths = {"model": os.path.join(out, kind, "1"), "records": os.path.join(out, "records.jsonl"),
             "requests": os.path.join(out, "requests.jsonl")}
    records, requests = make_records(rng, config), make_requests(rng, config, n_requests)
    store = {entity: {r["id"]: r["features"] for r in records if r["entity"] == entity} for entity in ("user", "item")}
    tensors = make_tensors(rng, expected_shapes(config))
    calibrate(config, tensors, requests, store)
    write_model(paths["model"], config, tensors, rng)
    write_lines(paths["records"], records)
    write_lines(paths["requests"], requests)
    if verify:
        write_verify(paths["model"], Model(paths["model"]), make_inline_requests(rng, config))
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--verify", action="store_true", help="write verify.jsonl too")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    paths = generate(arguments.out, arguments.kind, arguments.seed, arguments.requests, arguments.verify)
    print("\n".join("%s: %s" % entry for entry in paths.items()))


if __name__ == "__main__":
    main()
