"""KuaiRand-Pure's files as records (what the store holds) and impressions (what is learned from)."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np

# Column of the log -> task, in the order of the towers.
LABELS = {"is_click": "click", "long_view": "long_view", "is_like": "like", "is_profile_enter": "profile_enter",
          "is_comment": "comment", "is_follow": "follow", "is_forward": "forward"}
GROUPS = {"watch": ["click", "long_view"],
          "interaction": ["like", "profile_enter", "comment", "follow", "forward"]}
TASKS = list(LABELS.values())
TEXT_FIELDS = ["user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
               "register_days_range"]
NUMBER_FIELDS = ["is_live_streamer", "is_video_author", "follow_user_num", "fans_user_num", "friend_user_num",
                 "register_days"] + [f"onehot_feat{i}" for i in range(18)]
DURATION_BOUNDARIES = [7000, 10000, 15000, 20000, 30000, 45000, 60000, 90000, 150000, 240000]
ONEHOT_ROWS = [3, 8, 51, 1472, 16, 35, 4, 119, 455, 8, 6, 6, 3, 3, 3, 3, 3, 3]


def read_csv(path):
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def value(text):
    """A number of the files as an integer where it is one; None where empty."""
    if text == "":
        return None
    x = float(text)
    return int(x) if x.is_integer() else x


def video_list(text):
    return [int(v) for v in text.split()]


def video_records(folder):
    for row in read_csv(folder / "videos.csv.gz"):
        features = {"author_id": value(row["author_id"]), "tag": [int(t) for t in row["tag"].split(",") if t],
                    "video_duration": value(row["video_duration"]), "music_type": value(row["music_type"]),
                    "upload_type": row["upload_type"] or None}
        yield row["video_id"], {name: v for name, v in features.items() if v is not None}


def user_records(folder, tags):
    """tags: {video id: its tags}. A user's sequences stem from before the first day of the log."""
    sequences = {row["user_id"]: row for row in read_csv(folder / "user_sequences.csv.gz")}
    for row in read_csv(folder / "users.csv.gz"):
        features = {name: row[name] or None for name in TEXT_FIELDS}
        features.update({name: value(row[name]) for name in NUMBER_FIELDS})
        sequence = sequences.get(row["user_id"])
        if sequence is not None:
            watched, liked, long_watched = (video_list(sequence[k]) for k in ("watch_seq", "like_seq", "long_watch_seq"))
            features.update(history=watched, long_history=long_watched, like_history=liked,
                            history_len=value(sequence["history_len"]),
                            long_tags=[t for v in long_watched for t in tags.get(str(v), [])][:64])
            if watched:
                features.update(long_rate=round(len(long_watched) / len(watched), 4),
                                like_rate=round(len(liked) / len(watched), 4))
        yield row["user_id"], {name: v for name, v in features.items() if v is not None}


def write_records(folder, path):
    """Writes the records of all users and videos, one JSON line each, ready for `homerank features load`."""
    videos = dict(video_records(folder))
    tags = {video: features["tag"] for video, features in videos.items()}
    n = 0
    with open(path, "w") as file:
        for entity, records in (("item", videos.items()), ("user", user_records(folder, tags))):
            for record_id, features in records:
                line = {"entity": entity, "id": record_id, "features": features}
                file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
                n += 1
    return n


def write_impressions(folder, path):
    """All log_*.csv.gz as arrays, ordered by time: user, video, date, hour, tab, time_ms, labels (n, T)."""
    logs = sorted(folder.glob("log_*.csv.gz"))
    if not logs:
        raise FileNotFoundError(f"{folder}: expected log_*.csv.gz, found none")
    names = ["user_id", "video_id", "date", "hourmin", "tab", "time_ms", *LABELS]
    table = np.array([[row[name] for name in names] for log in logs for row in read_csv(log)]).astype(np.int64)
    table = table[np.argsort(table[:, 5], kind="stable")]
    np.savez_compressed(path, user=table[:, 0], video=table[:, 1], date=table[:, 2], hour=table[:, 3] // 100,
                        tab=table[:, 4], time_ms=table[:, 5], labels=table[:, 6:].astype(np.int8))
    return len(table)


def prepare(data, out):
    data, out = Path(data), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    n_records = write_records(data, out / "records.jsonl")
    n_impressions = write_impressions(data, out / "impressions.npz")
    return n_records, n_impressions


class Impressions:
    """The impressions of some days; iterable as columns."""

    def __init__(self, folder, first, last):
        with np.load(Path(folder) / "impressions.npz") as file:
            keep = (file["date"] >= first) & (file["date"] <= last)
            for name in file.files:
                setattr(self, name, file[name][keep])

    def __len__(self):
        return len(self.user)


def features_config(id_dim=32):
    """`tables` and `features` of config.json for these records; `tab` and `hour` come with the request."""
    tables = {"user": (27286, id_dim, "direct"), "video": (7584, id_dim, "direct"), "author": (16384, id_dim, "hash"),
              "tag": (128, 16, "direct"), "tab": (17, 8, "direct"), "hour": (25, 4, "direct"),
              "duration": (len(DURATION_BOUNDARIES) + 2, 8, "direct"), "music_type": (64, 4, "hash"),
              "upload_type": (256, 4, "hash")}
    user = [{"name": "user_id", "kind": "id", "table": "user"}]
    user += [{"name": name, "kind": "ids", "table": "video", "max_length": 50}
             for name in ("history", "long_history", "like_history")]
    user += [{"name": "long_tags", "kind": "ids", "table": "tag", "max_length": 64}]
    for name in TEXT_FIELDS + ["is_live_streamer", "is_video_author"]:
        tables[name] = (64, 4, "hash")
        user.append({"name": name, "kind": "id", "table": name})
    for i, rows in enumerate(ONEHOT_ROWS):
        tables[f"onehot_feat{i}"] = (rows, 8 if rows > 50 else 4, "direct")
        user.append({"name": f"onehot_feat{i}", "kind": "id", "table": f"onehot_feat{i}"})
    for name, mean, std in (("follow_user_num", 4.9431, 1.6161), ("fans_user_num", 3.9031, 2.0084),
                            ("friend_user_num", 2.9281, 1.9927), ("register_days", 6.8252, 0.8972),
                            ("history_len", 3.3773, 1.0513)):
        user.append({"name": name, "kind": "number", "log1p": True, "mean": mean, "std": std})
    user.append({"name": "long_rate", "kind": "number", "mean": 0.4529, "std": 0.2657})
    user.append({"name": "like_rate", "kind": "number", "mean": 0.0253, "std": 0.0875})
    item = [{"name": "video_id", "field": "item_id", "kind": "id", "table": "video"},
            {"name": "author_id", "kind": "id", "table": "author"},
            {"name": "tag", "kind": "ids", "table": "tag", "max_length": 8},
            {"name": "video_duration", "kind": "number", "log1p": True, "mean": 11.1354, "std": 1.0337},
            {"name": "duration_bucket", "field": "video_duration", "kind": "bucket", "table": "duration",
             "boundaries": DURATION_BOUNDARIES},
            {"name": "music_type", "kind": "id", "table": "music_type"},
            {"name": "upload_type", "kind": "id", "table": "upload_type"}]
    context = [{"name": "tab", "kind": "id", "table": "tab"}, {"name": "hour", "kind": "id", "table": "hour"}]
    features = [{**f, "entity": entity} for entity, fs in (("user", user), ("item", item), ("context", context)) for f in fs]
    return {"tables": {name: {"rows": r, "dim": d, "index": i} for name, (r, d, i) in tables.items()},
            "features": features}
