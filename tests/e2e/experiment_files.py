"""Experiments files for tests, what they say of a user by GrowthBook's specification, and models to choose from."""

import json
import os

import numpy as np

import random_models

TASKS = ("click", "like")


def fnv32a(text):
    value = 0x811C9DC5
    for character in text:
        value = ((value ^ ord(character)) * 0x01000193) & 0xFFFFFFFF
    return value


def bucket(seed, user):
    return fnv32a(str(fnv32a(seed + user))) % 10000 / 10000


def variation(experiment, user):
    """The index that the user gets; None where the experiment does not cover the user."""
    start, b = 0.0, bucket(experiment["seed"], user)
    for i, weight in enumerate(experiment["weights"]):
        if start <= b < start + experiment.get("coverage", 1) * weight:
            return i
        start += weight
    return None


def experiment(key, variations, weights, **more):
    return {"key": key, "seed": key + "-seed", "hashVersion": 2, "variations": variations, "weights": weights,
            "meta": [{"key": "%s-%d" % (key, i)} for i in range(len(variations))], **more}


def weighted_sum(**weights):
    return {"kind": "weighted_sum", "weights": weights}


def payload(**rules):
    """A payload of features with one rule each: payload(model=..., fusion=...); `ranking` is the whole."""
    names = {name: "ranking" if name == "ranking" else "ranking." + name for name in rules}
    return {"features": {names[name]: {"rules": [rule]} for name, rule in rules.items()}}


def write_tiny_model(root, name, version, bias, labels=None):
    """A model of two tasks whose logits are `bias` and -`bias`, whoever asks for whatever."""
    folder = os.path.join(root, name, str(version))
    os.makedirs(folder)
    config = {
        "format": "homerank/1",
        "tables": {"item": {"rows": 64, "dim": 2, "index": "hash"}},
        "features": [{"name": "item_id", "entity": "item", "kind": "id", "table": "item"}],
        "network": {"norm": "none",
                    "layers": [{"name": "only", "units": [{"name": "bottom", "input": ["features"], "experts": 1,
                                                           "hidden": [2], "mix": ["bottom"]}]}],
                    "tasks": [{"name": task, "input": "only.bottom", "tower": []} for task in TASKS]},
        "fusion": weighted_sum(click=1.0),
    }
    tensors = {"embedding.item.weight": np.zeros((64, 2), np.float32),
               "only.bottom.expert.0.weight": np.zeros((1, 2, 2), np.float32),
               "only.bottom.expert.0.bias": np.zeros((1, 2), np.float32)}
    for task, value in zip(TASKS, (bias, -bias)):
        tensors["tower.%s.0.weight" % task] = np.zeros((1, 2), np.float32)
        tensors["tower.%s.0.bias" % task] = np.full(1, value, np.float32)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    random_models.write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    if labels:
        with open(os.path.join(root, name, "labels.json"), "w", encoding="utf-8") as file:
            json.dump(labels, file)
