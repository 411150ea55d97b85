"""KuaiRand-Pure's files as records (what the store holds) and impressions (what is learned from)."""

import array
import csv
import gzip
import json
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from training import DataError

# Column of the log -> task, in the order of the towers.
LABELS = {"is_click": "click", "long_view": "long_view", "is_like": "like", "is_profile_enter": "profile_enter",
          "is_comment": "comment", "is_follow": "follow", "is_forward": "forward"}
GROUPS = {"watch": ["click", "long_view"],
          "interaction": ["like", "profile_enter", "comment", "follow", "forward"]}
LOG_COLUMNS = ["user_id", "video_id", "date", "hourmin", "tab", "time_ms"]
TASKS = list(LABELS.values())
N_FREQUENT = 4  # the first of TASKS: those with enough positives for a claim
TEXT_FIELDS = ["user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
               "register_days_range"]
NUMBER_FIELDS = ["is_live_streamer", "is_video_author", "follow_user_num", "fans_user_num", "friend_user_num",
                 "register_days"] + [f"onehot_feat{i}" for i in range(18)]
DURATION_BOUNDARIES = [7000, 10000, 15000, 20000, 30000, 45000, 60000, 90000, 150000, 240000]
ONEHOT_ROWS = [3, 8, 51, 1472, 16, 35, 4, 119, 455, 8, 6, 6, 3, 3, 3, 3, 3, 3]


def read_csv(path, columns, convert):
    """convert(row) of every row, a {column: text}; it raises ValueError of a row that is wrong."""
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            absent = [name for name in columns if name not in (reader.fieldnames or [])]
            if absent:
                raise DataError(f"{path}: expected the columns {', '.join(columns)}, found no {', '.join(absent)}")
            for row in reader:
                try:
                    if None in row or None in row.values():  # what the reader makes of fields too many or too few
                        raise ValueError(f"expected {len(reader.fieldnames)} fields, found more or less")
                    converted = convert(row)
                except ValueError as error:
                    raise DataError(f"{path}:{reader.line_num}: {error}") from None
                yield converted
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a gzipped CSV file, found: {error}") from None


def value(text):
    """A number of the files as an integer where it is one; None where empty."""
    if text == "":
        return None
    x = float(text)
    if not math.isfinite(x):
        raise ValueError(f"expected a number, found {text!r}")
    return int(x) if x.is_integer() else x


def integers(text, separator=None):
    """Of a list in one field."""
    return [int(part) for part in text.split(separator) if part]


def without_missing(features):
    return {name: v for name, v in features.items() if v is not None}


def video_records(folder):
    def convert(row):
        features = {"author_id": value(row["author_id"]), "tag": integers(row["tag"], ","),
                    "video_duration": value(row["video_duration"]), "music_type": value(row["music_type"]),
                    "upload_type": row["upload_type"] or None}
        return row["video_id"], without_missing(features)

    columns = ["video_id", "author_id", "tag", "video_duration", "music_type", "upload_type"]
    return read_csv(folder / "videos.csv.gz", columns, convert)


def sequence_features(folder, tags):
    """{user id: what a user's sequences tell}; they stem from before the first day of the log."""
    def convert(row):
        watched, liked, long_watched = (integers(row[k]) for k in ("watch_seq", "like_seq", "long_watch_seq"))
        features = {"history": watched, "long_history": long_watched, "like_history": liked,
                    "history_len": value(row["history_len"]),
                    "long_tags": [t for v in long_watched for t in tags.get(str(v), [])][:64]}
        if watched:
            features.update(long_rate=round(len(long_watched) / len(watched), 4),
                            like_rate=round(len(liked) / len(watched), 4))
        return row["user_id"], without_missing(features)

    columns = ["user_id", "history_len", "watch_seq", "like_seq", "long_watch_seq"]
    return dict(read_csv(folder / "user_sequences.csv.gz", columns, convert))


def user_records(folder, tags):
    """tags: {video id: its tags}."""
    sequences = sequence_features(folder, tags)

    def convert(row):
        features = {name: row[name] or None for name in TEXT_FIELDS}
        features.update({name: value(row[name]) for name in NUMBER_FIELDS})
        return row["user_id"], {**without_missing(features), **sequences.get(row["user_id"], {})}

    return read_csv(folder / "users.csv.gz", ["user_id", *TEXT_FIELDS, *NUMBER_FIELDS], convert)


def write_records(folder, path):
    """Writes the records of all users and videos, one JSON line each, ready for `homerank features load`."""
    videos = dict(video_records(folder))
    tags = {video: features["tag"] for video, features in videos.items()}
    n = 0
    with open(path, "w", encoding="utf-8") as file:
        for entity, records in (("item", videos.items()), ("user", user_records(folder, tags))):
            for record_id, features in records:
                line = {"entity": entity, "id": record_id, "features": features}
                file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
                n += 1
    return n


def log_row(row):
    """The row's numbers, and a hash by which to know it again."""
    numbers = [int(row[name]) for name in (*LOG_COLUMNS, *LABELS)]
    for name, number in zip((*LOG_COLUMNS, *LABELS), numbers):
        if not 0 <= number < (2 if name in LABELS else 1 << 62):
            raise ValueError(f"{name}: expected {'0 or 1' if name in LABELS else 'a number >= 0'}, found {number}")
    return numbers, hash(tuple(row.values()))


def write_impressions(folder, path):
    """All log_*.csv.gz as arrays, ordered by time: user, video, date, hour, tab, time_ms, labels (n, T). A row that
    is there twice, because files overlap, counts once."""
    logs = sorted(folder.glob("log_*.csv.gz"))
    if not logs:
        raise DataError(f"{folder}: expected log_*.csv.gz, found none")
    flat, seen = array.array("q"), set()
    for log in logs:
        for numbers, identity in read_csv(log, [*LOG_COLUMNS, *LABELS], log_row):
            if identity not in seen:
                seen.add(identity)
                flat.extend(numbers)
    table = np.array(flat, np.int64).reshape(-1, len(LOG_COLUMNS) + len(LABELS))
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
    """The impressions of the days first to last, as the arrays that write_impressions names. There is at least one."""

    def __init__(self, folder, first, last):
        path = Path(folder) / "impressions.npz"
        try:
            with np.load(path) as file:
                dates = file["date"]
                keep = (dates >= first) & (dates <= last)
                for name in ("user", "video", "date", "hour", "tab", "time_ms", "labels"):
                    setattr(self, name, file[name][keep])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: expected what prepare writes, found: {error}") from None
        if not keep.any():
            there = f"{dates.min()} to {dates.max()}" if len(dates) else "none"
            raise DataError(f"{path}: expected impressions from {first} to {last}, found {there}")

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
    features = [{**f, "entity": entity}
                for entity, fs in (("user", user), ("item", item), ("context", context)) for f in fs]
    return {"tables": {name: {"rows": r, "dim": d, "index": i} for name, (r, d, i) in tables.items()},
            "features": features}
