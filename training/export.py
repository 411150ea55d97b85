"""Writes a trained network as the model folder that is served: config.json, model.safetensors, verify.jsonl."""

import copy
import json
import os
import struct
from pathlib import Path

import numpy as np
import torch

from training import DataError


def write_whole(path, pieces):
    """Writes pieces of bytes as the file at path, which is never seen in part: a server may be looking."""
    draft = path.with_name(path.name + ".draft")
    with open(draft, "wb") as file:
        for piece in pieces:
            file.write(piece)
    os.replace(draft, path)


def safetensors(tensors):
    """Yields a file of the public safetensors format, F32; tensors in name order."""
    header, offset = {}, 0
    for name in sorted(tensors):
        nbytes = tensors[name].numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in sorted(tensors):
        yield tensors[name].to(torch.float32).numpy().astype("<f4").tobytes()


def evaluate_logits(model, columns):
    """The network's logits (B, T) in float64, in inference form."""
    judge = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        columns = {k: c.double() if c.is_floating_point() else c for k, c in columns.items()}
        return judge(columns).numpy()


def judge(model, dataset, batch_size=4096):
    """Logits (n, T): float64's, rounded to float32, so that alike rows have one score wherever they stand in a batch."""
    parts = [evaluate_logits(model, dataset.batch(rows)[0]) for rows in torch.arange(len(dataset)).split(batch_size)]
    return np.concatenate(parts).astype(np.float32)


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
        chosen = [str(v) for v in rng.choice(item_ids, min(8, len(item_ids)), replace=False)]
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
    """Writes the model folder `out`, config.json last; nothing where a weight is not finite."""
    tensors = model.tensors()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DataError(f"export: tensor {name}: expected finite values, found others; training diverged")
    lines = [verify_line(model, encoder, request) for request in verify_requests]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "verify.jsonl", (json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
    write_whole(out / "model.safetensors", safetensors(tensors))
    write_whole(out / "config.json", [json.dumps(config, indent=1, ensure_ascii=False).encode(), b"\n"])


def read_safetensors(path):
    data = Path(path).read_bytes()
    tensors = {}
    try:
        (n,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + n])
        header.pop("__metadata__", None)
        for name, t in header.items():
            if t["dtype"] != "F32":
                raise ValueError(f"tensor {name}: expected dtype F32, found {t['dtype']}")
            begin, end = t["data_offsets"]
            array = np.frombuffer(data[8 + n + begin : 8 + n + end], "<f4").reshape(t["shape"]).copy()
            tensors[name] = torch.from_numpy(array)
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: expected a safetensors file as the exporter writes it, found: {error}") from None
    return tensors


def read_network(network_class, path):
    """The network that the config.json at path describes, untrained, and the config."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return network_class(config), config
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(f"{path}: expected a model's config, found: {error!r}") from None


def load(network_class, folder):
    """The network of an exported model folder, and its config."""
    model, config = read_network(network_class, Path(folder) / "config.json")
    path = Path(folder) / "model.safetensors"
    stored, own = read_safetensors(path), model.tensors()
    if own.keys() != stored.keys():
        raise DataError(f"{path}: expected config.json's tensors, found others: {sorted(own.keys() ^ stored.keys())}")
    for name, tensor in own.items():
        if tensor.shape != stored[name].shape:
            raise DataError(f"{path}: tensor {name}: expected shape {list(tensor.shape)}, "
                            f"found {list(stored[name].shape)}")
        tensor.copy_(stored[name])  # shares memory with the module's parameters
    return model.eval(), config
