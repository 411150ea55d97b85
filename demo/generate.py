#!/usr/bin/env python3
"""Writes the demo's world: a catalogue of short videos and their viewers.

    demo/generate.py --out DIR [--seed N] [--videos N] [--users N]

DIR/features.jsonl    the records, for `homerank features load`
DIR/requests.jsonl    a dozen requests, for `homerank score`

Everything follows from the seed. demo/models/home/1 was trained on a simulation of this world (training/demo_world.py).
"""
import argparse
import json
import os

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


def write_lines(path, values):
    with open(path, "w", encoding="utf-8") as out:
        for value in values:
            out.write(json.dumps(value, ensure_ascii=False) + "\n")


def make_requests(rng, videos, users, count):
    for i in range(count):
        items = [videos[k][0] for k in rng.permutation(len(videos))[:20]]
        yield {"request_id": f"demo-{i}", "user_id": pick(rng, users)[0], "item_ids": items,
               "context": {"hour": int(rng.randint(24)), "device": pick(rng, DEVICES)}}


def make_world(seed=1, n_videos=400, n_users=100):
    """[(video id, record)] and [(user id, record)]."""
    rng = np.random.RandomState(seed)  # whose stream NumPy has frozen
    videos = make_videos(rng, n_videos)
    return videos, make_users(rng, n_users, videos)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--users", type=int, default=100)
    args = parser.parse_args()
    videos, users = make_world(args.seed, args.videos, args.users)
    os.makedirs(args.out, exist_ok=True)
    records = [("user", *user) for user in users] + [("item", *video) for video in videos]
    write_lines(os.path.join(args.out, "features.jsonl"),
                ({"entity": entity, "id": key, "features": features} for entity, key, features in records))
    requests = make_requests(np.random.RandomState(args.seed), videos, users, 12)
    write_lines(os.path.join(args.out, "requests.jsonl"), requests)


if __name__ == "__main__":
    main()
