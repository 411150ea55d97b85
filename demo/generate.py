#!/usr/bin/env python3
"""Writes the demo's world: a catalogue of short videos, their viewers, and a HoME model to rank them.

    demo/generate.py --out DIR [--seed N] [--videos N] [--users N]

DIR/features.jsonl    the records, for `homerank features load`
DIR/requests.jsonl    a dozen requests, for `homerank score`
DIR/models/home/1/    config.json and model.safetensors

Everything follows from the seed. The model's weights are random: they are scaled so that each task's
probability is plausible, and say nothing about taste.
"""
import argparse
import json
import os
import struct

import numpy as np

CATALOGUE = {
    "food": (["slow-cooked", "five-minute", "midnight", "grandma's", "smoky", "one-pan", "street-style", "crispy"],
             ["ramen", "carbonara", "dumplings", "tacos", "sourdough", "curry", "shakshuka", "cheesecake"]),
    "travel": (["hidden", "rainy", "48 hours in", "sunrise over", "by train to", "on foot through", "cheap", "old"],
               ["Lisbon", "Kyoto", "Tbilisi", "Oaxaca", "Hanoi", "the Dolomites", "Marrakesh", "Bergen"]),
    "music": (["live", "acoustic", "lo-fi", "rooftop", "eight-bit", "orchestral", "late-night", "one-take"],
              ["piano cover", "drum solo", "jazz session", "choir", "guitar loop", "DJ set", "violin duet", "beat tape"]),
    "gaming": (["speedrun of", "no-hit", "co-op", "first look at", "chaotic", "pacifist", "blindfolded", "glitchless"],
               ["dungeon crawl", "kart race", "castle siege", "farm sim", "boss rush", "puzzle rooms", "space trader", "chess"]),
    "fitness": (["ten-minute", "beginner", "no-equipment", "morning", "brutal", "low-impact", "hotel-room", "weekly"],
                ["core workout", "mobility flow", "sprint drill", "kettlebell set", "yoga", "climbing warm-up", "run club", "stretch"]),
    "diy": (["weekend", "cheap", "tiny", "rescued", "no-drill", "upcycled", "hand-cut", "solar"],
            ["bookshelf", "desk lamp", "workbench", "bike repair", "planter", "chair", "birdhouse", "radio"]),
    "pets": (["sleepy", "first-day", "talkative", "rescued", "muddy", "clever", "stubborn", "tiny"],
             ["corgi", "tabby", "parrot", "ferret", "tortoise", "puppy", "rabbit", "goat"]),
    "science": (["how they built", "the physics of", "inside", "what if", "slow motion", "the maths of", "the story of", "why"],
                ["lightning", "a black hole", "bread foam", "the tides", "a heart valve", "mirrors", "volcanoes", "ice"]),
    "comedy": (["awkward", "office", "family", "improvised", "deadpan", "one-minute", "terrible", "overheard"],
               ["elevator sketch", "job interview", "wedding toast", "phone call", "magic trick", "road trip", "barber shop", "blind date"]),
    "football": (["sunday-league", "last-minute", "top ten", "every", "analysed:", "underrated", "street", "training-ground"],
                 ["free kicks", "own goal", "volleys", "saves", "derby", "nutmegs", "counter-attack", "penalties"]),
}
NAMES = ["ada", "bela", "chidi", "dana", "emre", "fatou", "goran", "hana", "ines", "jonas", "kofi", "lena", "mina",
         "noor", "olga", "pablo", "quinn", "rosa", "sami", "tomas", "uma", "vera", "wren", "xenia", "yuki", "zara"]
COUNTRIES, LANGUAGES = ["BR", "DE", "ID", "IN", "JP", "MX", "NG", "US"], ["de", "en", "es", "hi", "id", "ja", "pt"]
ACTIVITY, DEVICES = ["new", "weekly", "daily", "heavy"], ["phone", "tablet", "tv"]

# Task -> (its group of HoME's hierarchy, the probability of an average item).
TASKS = {"click": ("watch", 0.30), "long_view": ("watch", 0.18), "like": ("interaction", 0.05),
         "share": ("interaction", 0.015)}


def pick(rng, values):
    return values[rng.randint(len(values))]


def slug(text):
    words = "".join(c if c.isalnum() or c == "-" else " " for c in text.lower().replace("'", ""))
    return "-".join(words.split())


def make_videos(rng, count):
    titles = sorted({(category, f"{first} {second}") for category, (firsts, seconds) in CATALOGUE.items()
                     for first in firsts for second in seconds})
    videos = []
    for i, t in enumerate(rng.permutation(len(titles))[:count]):
        category, title = titles[t]
        tags = sorted({category, slug(title).split("-")[-1], pick(rng, ["hd", "subtitled", "vertical", "series"])})
        age = int(min(365, rng.exponential(20)))
        videos.append((f"v{i:03d}-{slug(title)}", {
            "title": title, "category": category, "tags": tags, "author": f"@{pick(rng, NAMES)}.{category}",
            "language": pick(rng, LANGUAGES), "duration_s": round(float(np.exp(rng.normal(3.6, 0.7))), 1),
            "age_days": age, "plays": int(np.exp(rng.normal(6 + 0.4 * np.log1p(age), 1.4)))}))
    return videos


def make_users(rng, count, videos):
    users = []
    for i in range(count):
        interests = [str(c) for c in rng.permutation(sorted(CATALOGUE))[:1 + rng.randint(4)]]
        liked = [v for v, f in videos if f["category"] in interests]
        watched = int(min(30, rng.exponential(10)))
        history = [pick(rng, liked) if rng.rand() < 0.8 else pick(rng, videos)[0] for _ in range(watched)]
        user = {"country": pick(rng, COUNTRIES), "language": pick(rng, LANGUAGES), "interests": interests,
                "activity": ACTIVITY[min(3, watched // 6)], "history": history,
                "registered_days": int(rng.exponential(400))}
        users.append((f"u{i:03d}-{pick(rng, NAMES)}", user))
    return users


def schema():
    def table(rows, dim):
        return {"rows": rows, "dim": dim, "index": "hash"}

    def feature(name, entity, kind, **more):
        return dict({"name": name, "entity": entity, "kind": kind}, **more)

    tables = {"user": table(512, 8), "video": table(2048, 16), "author": table(512, 8), "category": table(64, 8),
              "tag": table(256, 8), "country": table(32, 4), "language": table(32, 4), "activity": table(16, 4),
              "device": table(16, 4), "age": {"rows": 7, "dim": 4, "index": "direct"},
              "hour": {"rows": 25, "dim": 4, "index": "direct"}}
    features = [
        feature("user_id", "user", "id", table="user"),
        feature("country", "user", "id", table="country"),
        feature("user_language", "user", "id", field="language", table="language"),
        feature("activity", "user", "id", table="activity"),
        feature("interests", "user", "ids", table="category", max_length=8),
        feature("history", "user", "ids", table="video", max_length=30),
        feature("registered_days", "user", "number", log1p=True, mean=5.4, std=1.2),
        feature("video_id", "item", "id", field="item_id", table="video"),
        feature("author", "item", "id", table="author"),
        feature("category", "item", "id", table="category"),
        feature("tags", "item", "ids", table="tag", max_length=8),
        feature("video_language", "item", "id", field="language", table="language"),
        feature("duration_s", "item", "number", log1p=True, mean=3.6, std=0.7),
        feature("plays", "item", "number", log1p=True, mean=7.0, std=1.5),
        feature("age", "item", "bucket", field="age_days", boundaries=[1, 3, 7, 30, 90], table="age"),
        feature("hour", "context", "id", table="hour"),
        feature("device", "context", "id", table="device")]
    return tables, features


def width(tables, feature):
    return 1 if feature["kind"] == "number" else tables[feature["table"]]["dim"]


def network(v_width):
    """HoME: a meta layer of shared and per-group experts, a task layer that adds one expert per task."""
    groups = sorted({group for group, _ in TASKS.values()})
    gate = {"loras": 2, "rank": v_width // 2}

    def meta(name, mix):
        return {"name": name, "input": ["features"], "experts": 2, "hidden": [64, 32], "feature_gate": gate,
                "mix": mix, "self_gate": True}

    def lender(name):
        return {"name": name, "input": [f"meta.{name}"], "experts": 1, "hidden": [32]}

    def task(name, group):
        return {"name": name, "input": [f"meta.{group}"], "experts": 1, "hidden": [32],
                "gate_input": [f"meta.{group}", "meta.shared"], "mix": ["shared", group, name], "self_gate": True}

    return {"activation": "swish", "norm": "batch", "layers": [
        {"name": "meta", "units": [meta("shared", ["shared"] + groups)] + [meta(g, ["shared", g]) for g in groups]},
        {"name": "task", "units": [lender(g) for g in ["shared"] + groups] +
                                  [task(name, group) for name, (group, _) in TASKS.items()]}],
        "tasks": [{"name": name, "input": f"task.{name}", "tower": [16]} for name in TASKS]}


def make_tensors(rng, config, v_width):
    """Random weights of unit gain, so that every layer's output varies by about one."""
    tensors = {}

    def normal(name, shape, sd):
        tensors[name] = (rng.standard_normal(shape) * sd).astype("<f4")

    def linear(name, shape, gain=1.0):
        normal(name + ".weight", shape, gain / np.sqrt(shape[-1]))
        tensors[name + ".bias"] = np.zeros(shape[:-1], "<f4")

    for name, t in config["tables"].items():
        normal(f"embedding.{name}.weight", (t["rows"], t["dim"]), 1.0)
    widths = {"features": v_width}
    for layer in config["network"]["layers"]:
        units = {unit["name"]: unit for unit in layer["units"]}
        for unit in layer["units"]:
            path, experts = f"{layer['name']}.{unit['name']}", unit["experts"]
            x = sum(widths[source] for source in unit["input"])
            g = sum(widths[source] for source in unit.get("gate_input", unit["input"]))
            for i, (fan_in, fan_out) in enumerate(zip([x] + unit["hidden"], unit["hidden"])):
                linear(f"{path}.expert.{i}", (experts, fan_out, fan_in))
                for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 0.5)):
                    tensors[f"{path}.expert.{i}.norm.{part}"] = np.full((experts, fan_out), value, "<f4")
            if "feature_gate" in unit:
                loras, rank = unit["feature_gate"]["loras"], unit["feature_gate"]["rank"]
                normal(f"{path}.feature_gate.down", (loras, rank, x), 1 / np.sqrt(x))
                normal(f"{path}.feature_gate.up", (loras, x, rank), 1 / np.sqrt(rank))
                linear(f"{path}.feature_gate.mix", (loras, x))
            if "mix" in unit:
                linear(f"{path}.gate", (sum(units[name]["experts"] for name in unit["mix"]), g))
                linear(f"{path}.self_gate", (experts, g))
                widths[path] = unit["hidden"][-1]
    for task in config["network"]["tasks"]:
        name, (rate, inner) = task["name"], (TASKS[task["name"]][1], task["tower"][0])
        linear(f"tower.{name}.0", (inner, widths[task["input"]]), gain=2.0)
        linear(f"tower.{name}.1", (1, inner), gain=1.0)
        tensors[f"tower.{name}.1.weight"] -= tensors[f"tower.{name}.1.weight"].mean()
        tensors[f"tower.{name}.1.bias"][:] = np.log(rate / (1 - rate))
    return tensors


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            out.write(tensor.tobytes())


def write_model(rng, folder):
    tables, features = schema()
    v_width = sum(width(tables, feature) for feature in features)
    config = {"format": "homerank/1", "description": "The demo's HoME, with random weights.", "tables": tables,
              "features": features, "network": network(v_width),
              "fusion": {"kind": "weighted_sum", "weights": {"click": 1.0, "long_view": 1.0, "like": 4.0, "share": 8.0}}}
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out, indent=1)
        out.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), make_tensors(rng, config, v_width))


def write_lines(path, values):
    with open(path, "w", encoding="utf-8") as out:
        for value in values:
            out.write(json.dumps(value, ensure_ascii=False) + "\n")


def make_requests(rng, videos, users, count):
    for i in range(count):
        items = [videos[k][0] for k in rng.permutation(len(videos))[:20]]
        yield {"request_id": f"demo-{i}", "user_id": pick(rng, users)[0], "item_ids": items,
               "context": {"hour": int(rng.randint(24)), "device": pick(rng, DEVICES)}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--users", type=int, default=100)
    args = parser.parse_args()
    rng = np.random.RandomState(args.seed)  # whose stream NumPy has frozen
    videos = make_videos(rng, args.videos)
    users = make_users(rng, args.users, videos)
    write_model(rng, os.path.join(args.out, "models", "home", "1"))
    records = [("user", *user) for user in users] + [("item", *video) for video in videos]
    write_lines(os.path.join(args.out, "features.jsonl"),
                ({"entity": entity, "id": key, "features": features} for entity, key, features in records))
    write_lines(os.path.join(args.out, "requests.jsonl"), make_requests(rng, videos, users, 12))


if __name__ == "__main__":
    main()
