#!/usr/bin/python3
"""Has the real Feast write users and items into a real redis-server, and writes what lies there to feast_golden.jsonl.

    tests/features/feast_store.py [--venv FOLDER]

Makes a scratch virtual environment (or uses the one at FOLDER) with Feast from PyPI, so it needs a network; the tests
read only the file. One line a hash: the versions, whose record it is, the redis key and the hash's fields as they lie
in Redis (hexadecimal), and as `read` what Feast itself reads back, by "view:feature".

Users have text ids and come by `materialize` from Parquet, items have int64 ids and come by
`write_to_online_store`; both entity key serialization versions.
"""
import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "feast_golden.jsonl"
PACKAGES = ["feast[redis]==0.67.0"]
PROJECT = "shop"
TIME = "2024-05-01T12:00:00+00:00"


def serve():
    """A redis-server of its own: (process, port)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"],
        stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except ConnectionRefusedError:
            if process.poll() is not None:
                sys.exit("feast_store: redis-server does not start")
            time.sleep(0.01)


def users(pandas, now):
    rows = [
        dict(user_id="u1", age=31, city="Bergen", spent=12.5, rate=0.1, member=True, seen=now, small=-7,
             tags=["p", "q"], visits=[1, 22, 333], vector=[0.5, -2.25, 3.0], scores=[0.1, 1e300], flags=[True, False],
             token=b"abc", blobs=[b"x", b"y"], times=[now, now]),
        dict(user_id="\u00e9:2", age=-(2**63), city="", spent=float("nan"), rate=None, member=False, seen=None,
             small=2**31 - 1, tags=[], visits=[2**63 - 1, 0], vector=[], scores=[float("inf")], flags=[], token=b"",
             blobs=[], times=[]),
        dict(user_id="3", age=None, city=None, spent=None, rate=None, member=None, seen=None, small=None, tags=None,
             visits=None, vector=None, scores=None, flags=None, token=b"\xff\x00", blobs=None, times=None),
    ]
    frame = pandas.DataFrame(rows)
    frame["age"] = frame["age"].astype("Int64")
    frame["small"] = frame["small"].astype("Int32")
    frame["rate"] = frame["rate"].astype("float32")
    frame["member"] = frame["member"].astype("boolean")
    frame["event_timestamp"] = now
    return frame


def items(pandas, now):
    return pandas.DataFrame([
        dict(item_id=7, price=9.75, kind="video", event_timestamp=now),
        dict(item_id=-(2**40), price=0.0, kind="photo", event_timestamp=now),
    ])


def views(feast, folder):
    """The definitions: entities and three views, two of them of the user."""
    from feast import types
    from feast.value_type import ValueType
    user = feast.Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    item = feast.Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    fields = dict(age=types.Int64, city=types.String, spent=types.Float64, rate=types.Float32, member=types.Bool,
                  seen=types.UnixTimestamp, small=types.Int32, tags=types.Array(types.String),
                  visits=types.Array(types.Int64), vector=types.Array(types.Float32),
                  scores=types.Array(types.Float64), flags=types.Array(types.Bool), token=types.Bytes,
                  blobs=types.Array(types.Bytes), times=types.Array(types.UnixTimestamp))
    source = feast.FileSource(path=str(folder / "users.parquet"), timestamp_field="event_timestamp")
    profile = feast.FeatureView(name="user_profile", entities=[user], source=source,
                                schema=[feast.Field(name=n, dtype=t) for n, t in fields.items()])
    again = feast.FeatureView(name="user_again", entities=[user], source=source,
                              schema=[feast.Field(name="age", dtype=types.Int64)])
    stats = feast.FeatureView(name="item_stats", entities=[item],
                              source=feast.FileSource(path=str(folder / "items.parquet"),
                                                      timestamp_field="event_timestamp"),
                              schema=[feast.Field(name="price", dtype=types.Float64),
                                      feast.Field(name="kind", dtype=types.String)])
    return [user, item, profile, again, stats]


def plain(value):
    """A value that Feast read, as JSON: times as their seconds, bytes as their text or hexadecimal."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if hasattr(value, "timestamp"):
        return int(value.timestamp())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": str(value)}
    return value


def write(version, port):
    """Writes the store with the real Feast and yields the lines."""
    import warnings
    warnings.simplefilter("ignore")
    import feast
    import pandas
    import redis
    now = pandas.Timestamp(TIME)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        users(pandas, now).to_parquet(folder / "users.parquet")
        items(pandas, now).to_parquet(folder / "items.parquet")
        store = feast.FeatureStore(config=feast.RepoConfig(
            project=PROJECT, provider="local", registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
            offline_store={"type": "file"}, entity_key_serialization_version=version))
        definitions = views(feast, folder)
        store.apply(definitions)
        store.materialize(now - pandas.Timedelta(days=1), now + pandas.Timedelta(days=1),
                          feature_views=["user_profile", "user_again"])
        store.write_to_online_store("item_stats", items(pandas, now))
        client = redis.Redis(port=port)
        lines = []
        for join_key, ids, of in (("user_id", ["u1", "\u00e9:2", "3"], definitions[2:4]),
                                  ("item_id", [7, -(2**40)], definitions[4:5])):
            names = [f"{view.name}:{field.name}" for view in of for field in view.features]
            for id in ids:
                before = set(client.keys())
                read = store.get_online_features(names, [{join_key: id}], full_feature_names=True).to_dict()
                from feast.infra.online_stores.helpers import _redis_key
                from feast.protos.feast.types.EntityKey_pb2 import EntityKey
                from feast.protos.feast.types.Value_pb2 import Value
                value = Value(string_val=id) if isinstance(id, str) else Value(int64_val=id)
                key = _redis_key(PROJECT, EntityKey(join_keys=[join_key], entity_values=[value]), version)
                if key not in before:
                    sys.exit(f"feast_store: {join_key} {id}: not among the keys that Feast wrote")
                lines.append({
                    "feast": feast.__version__, "version": version, "project": PROJECT,
                    "entity": join_key.split("_")[0], "id": str(id), "key": key.hex(),
                    "fields": {f.hex(): v.hex() for f, v in sorted(client.hgetall(key).items())},
                    "read": {n: plain(read[n.replace(":", "__")][0]) for n in names}})
        if len(lines) != len(client.keys()):
            sys.exit(f"feast_store: expected {len(lines)} keys, found {len(client.keys())}")
        client.flushall()
        return lines


def in_venv(folder):
    """Runs this script again under the environment's interpreter, which has Feast."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return subprocess.run([python, __file__, "--write"], check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=pathlib.Path, help="a virtual environment to use, made where there is none")
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.write:
        with tempfile.TemporaryDirectory() as scratch:
            return in_venv((options.venv or pathlib.Path(scratch) / "venv").absolute())
    os.environ["FEAST_USAGE"] = "False"
    process, port = serve()
    try:
        lines = [line for version in (2, 3) for line in write(version, port)]
    finally:
        process.kill()
        process.wait()
    GOLDEN.write_text("".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines), encoding="utf-8")
    print(f"{GOLDEN}: {len(lines)} records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
