"""Writes a trained network as the model folder that is served: config.json, model.safetensors, verify.jsonl."""

import copy
import json
import struct
from pathlib import Path

import numpy as np
import torch


def write_safetensors(path, tensors):
    """The public safetensors format, F32; tensors in name order."""
    header, offset = {}, 0
    for name in sorted(tensors):
        nbytes = tensors[name].numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name].to(torch.float32).numpy().astype("<f4").tobytes())


def evaluate_logits(model, columns):
    """The network's logits (B, T) in float64, in inference form."""
    judge = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        columns = {k: c.double() if c.is_floating_point() else c for k, c in columns.items()}
        return judge(columns).numpy()


def verify_line(model, encoder, request):
    """One line of verify.jsonl: a request with every feature inline, and its logits by item and task."""
    items = request["item_ids"]
    columns = encoder.columns("item", items, request["item_features"])
    for entity, ids, record in (("user", [request["user_id"]], request["user_features"]),
                                ("context", None, request["context"])):
        for name, column in encoder.columns(entity, ids, [record]).items():
            columns[name] = np.repeat(column, len(items), 0)
    logits = evaluate_logits(model, {k: torch.from_numpy(c) for k, c in columns.items()})
    tasks = [task["name"] for task in model.config["network"]["tasks"]]
    return {"request": request,
            "logits": {item: dict(zip(tasks, map(float, row))) for item, row in zip(items, logits)}}


def verify_requests(users, items, context, long_lists, seed, n_known=8):
    """Requests with every feature inline: real users and items, then unknown ids, missing values, long lists.
    users, items: {id: record}; context(rng) and long_lists(rng) draw a context and user fields of long lists."""
    rng = np.random.default_rng(seed)
    user_ids, item_ids = sorted(users), sorted(items)

    def request(name, user, features, chosen, item_features, context):
        return {"request_id": name, "user_id": user, "item_ids": chosen, "context": context,
                "user_features": features, "item_features": item_features}

    requests = []
    for i in range(n_known):
        user = str(rng.choice(user_ids))
        chosen = [str(v) for v in rng.choice(item_ids, 8, replace=False)]
        requests.append(request(f"known-{i}", user, users[user], chosen, [items[v] for v in chosen], context(rng)))
    user, chosen = requests[0]["user_id"], requests[0]["item_ids"]
    features, item_features = requests[0]["user_features"], requests[0]["item_features"]
    unseen = {name: "never-seen" for name in requests[0]["context"]}
    requests.append(request("unknown-ids", "nobody", {}, ["no-such-item", "99999999"], [{}, {}], unseen))
    requests.append(request("missing-values", user, {name: None for name in features}, chosen,
                            [{name: None for name in record} for record in item_features], {}))
    requests.append(request("long-lists", user, {**features, **long_lists(rng)}, chosen, item_features, context(rng)))
    return requests


def export(model, config, encoder, verify_requests, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_safetensors(out / "model.safetensors", model.tensors())
    with open(out / "verify.jsonl", "w") as file:
        for request in verify_requests:
            file.write(json.dumps(verify_line(model, encoder, request), ensure_ascii=False) + "\n")


def read_safetensors(path):
    data = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    tensors = {}
    for name, t in header.items():
        if t["dtype"] != "F32":
            raise ValueError(f"{path}: tensor {name}: expected dtype F32, found {t['dtype']}")
        begin, end = t["data_offsets"]
        array = np.frombuffer(data[8 + n + begin : 8 + n + end], "<f4").reshape(t["shape"]).copy()
        tensors[name] = torch.from_numpy(array)
    return tensors


def load(network_class, folder):
    """The network of an exported model folder, and its config."""
    config = json.loads((Path(folder) / "config.json").read_text())
    model = network_class(config)
    stored = read_safetensors(Path(folder) / "model.safetensors")
    own = model.tensors()
    if own.keys() != stored.keys():
        raise ValueError(f"{folder}: tensors differ from config.json's: {sorted(own.keys() ^ stored.keys())}")
    for name, tensor in own.items():
        tensor.copy_(stored[name])  # shares memory with the module's parameters
    return model.eval(), config
