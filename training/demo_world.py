#!/usr/bin/python3
"""Trains the model of ./demo.sh on a simulation of its world, and exports it to demo/models/home/1.

    demo_world.py [--out demo/models/home/1] [--impressions N] [--seed N]

Viewers prefer videos of their interests and language, and fresh and well-made ones; a tablet or a television is
for long ones. What they then do is drawn at random. The model sees the features alone.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo import generate  # noqa: E402
from training import builders, export, metrics, trainer  # noqa: E402
from training.encoder import Encoder  # noqa: E402
from training.network import Network  # noqa: E402

GROUPS = {"watch": ["click", "long_view"], "interaction": ["like", "share"]}
FUSION = {"kind": "weighted_sum", "weights": {"click": 1.0, "long_view": 1.0, "like": 4.0, "share": 8.0}}
SETTINGS = argparse.Namespace(epochs=2, batch_size=512, rate=2e-3, embedding_rate=1e-2, decay=1e-2,
                              embedding_decay=1e-2, final_rate=0.0, seed=1, weights=[1.0] * 4, shuffle=True)


def make_config():
    def table(rows, dim):
        return {"rows": rows, "dim": dim, "index": "hash"}

    def feature(name, entity, kind, **more):
        return {"name": name, "entity": entity, "kind": kind, **more}

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
    width = sum(1 if f["kind"] == "number" else tables[f["table"]]["dim"] for f in features)
    return {"format": "homerank/1", "description": "HoME for the demo's world, trained on a simulation of it.",
            "tables": tables, "features": features, "fusion": FUSION,
            "network": builders.home(GROUPS, width, meta_hidden=(64, 32), task_hidden=(32,), tower=(16,))}


def tastes(user, video, quality, context):
    """The logits of click, long_view after a click, like and share."""
    interest = video["category"] in user["interests"]
    language = video["language"] == user["language"]
    length = (np.log(video["duration_s"]) - 3.6) / 0.7
    settled = context["device"] != "phone"
    appeal = 1.8 * interest + 0.8 * language + quality - 0.15 * np.log1p(video["age_days"])
    return (appeal - 1.5 + 0.3 * (context["hour"] >= 18), appeal - 0.6 - 0.7 * length + 0.9 * settled * length,
            1.3 * appeal - 4.2, 0.8 * appeal - 5.2 + 0.8 * (video["category"] == "comedy"))


def simulate(rng, videos, users, qualities, n):
    """n impressions: user ids, video ids, contexts, labels (n, T) in GROUPS' order. qualities: one per video."""
    user_ids, video_ids, contexts, labels = [], [], [], np.zeros((n, 4), np.int8)
    for i in range(n):
        (user_id, user), v = users[rng.integers(len(users))], rng.integers(len(videos))
        contexts.append({"hour": int(rng.integers(24)), "device": generate.DEVICES[rng.integers(3)]})
        click, long_view, like, share = (
            rng.random() < 1 / (1 + np.exp(-z)) for z in tastes(user, videos[v][1], qualities[v], contexts[-1]))
        labels[i] = click, click and long_view, click and like, click and share
        user_ids.append(user_id)
        video_ids.append(videos[v][0])
    return user_ids, video_ids, contexts, labels


def verify_requests(videos, users, seed):
    names = [video for video, _ in videos]

    def context(rng):
        return {"hour": int(rng.integers(24)), "device": str(rng.choice(generate.DEVICES))}

    def long_lists(rng):
        return {"history": [str(v) for v in rng.choice(names, 100)]}

    return export.verify_requests(dict(users), dict(videos), context, long_lists, seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(ROOT / "demo" / "models" / "home" / "1"))
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    videos, users = generate.make_world()
    config = make_config()
    columns = trainer.Columns(Encoder(config), dict(users), dict(videos))
    rng = np.random.default_rng(options.seed)
    qualities = rng.normal(0, 0.7, len(videos))
    data = [simulate(rng, videos, users, qualities, n) for n in (options.impressions, options.impressions // 10)]
    model = Network(config)
    trainer.train(model, trainer.Dataset(columns, *data[0]), SETTINGS)
    held_out = trainer.Dataset(columns, *data[1])
    for t, (task, scores) in enumerate(zip(sum(GROUPS.values(), []), trainer.predict(model, held_out).T)):
        print(f"{task:<10} AUC {metrics.auc(data[1][3][:, t], scores):.4f} on held-out impressions")
    export.export(model, config, columns.encoder, verify_requests(videos, users, options.seed), options.out)


if __name__ == "__main__":
    main()
