"""bench/run features: records from Redis beside a bare hiredis loop, and out of the cache.

The measuring programs are bench/fetch.c (the store alone, beside the loop, layout by layout) and bench/cache_bench.c
(fetched and encoded, cached or not); they run on the server's core, Redis on the other.
"""

import json
from pathlib import Path
from urllib.parse import quote_from_bytes

import numpy as np

import feast_records
import results
import serving
import workload
import world

N_RECORDS, PER_REQUEST, IN_FLIGHT = 10000, 500, 8


LAYOUTS = ("packed", "hash", "feast")


def write_records(path):
    """Items of `base`, by the ids that fetch.c asks for."""
    config = workload.config("base")[0]
    rng = np.random.default_rng(workload.SEED)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(N_RECORDS, 2 * N_RECORDS):
            print(json.dumps(world.record(rng, config, "item", str(i), N_RECORDS), separators=(",", ":")), file=out)


def item_fields():
    config = workload.config("base")[0]
    fields = [f.get("field", f["name"]) for f in config["features"] if f["entity"] == "item"]
    return [name for name in dict.fromkeys(fields) if name != "item_id"]


def load(args, target, layout, records):
    """The records into an empty Redis: our URI, and the key and the fields that the loop reads (fetch.c)."""
    if layout == "feast":
        feast_records.write(target, records)
        key = feast_records.key("*", id_nbytes=len(str(N_RECORDS)))
        fields = [feast_records.field(name) for name in item_fields()]
        return (f"redis://{target}/0?{feast_records.PARAMETERS}", quote_from_bytes(key, safe="*"),
                [quote_from_bytes(field, safe="") for field in fields])
    uri = f"redis://{target}/0?layout={layout}"
    serving.load_features(args, uri, records)
    return uri, "hr:item:*", item_fields() if layout == "hash" else []


def fetch(args, who, uri, fields):
    out = serving.run(args, args.server_cores, args.binaries / "bench" / "fetch", who, uri, N_RECORDS, PER_REQUEST,
                      IN_FLIGHT, args.seconds, *fields)
    seen = json.loads(out)
    if seen["missing"]:
        raise SystemExit(f"bench: {seen['missing']} records were missing")
    return {"records/s": seen["records_per_s"], "p50": seen["p50_us"], "p99": seen["p99_us"],
            "records/CPU s": seen["records_per_s"] * args.seconds / seen["cpu_s"]}


def layout_lines(args, folder, layout):
    """The rows of a layout, and the ratio of records/s."""
    rounds = {"hiredis": [], "ours": []}
    with serving.redis(args, folder) as redis:
        uri, key, fields = load(args, redis.target, layout, folder / "records.jsonl")
        for i in range(args.rounds):
            rounds["hiredis"].append(fetch(args, "hiredis", f"redis://{redis.target}/{key}", fields))
            rounds["ours"].append(fetch(args, "ours", uri, item_fields() if fields else []))
            serving.progress(f"{layout}: round {i + 1} of {args.rounds}")
    m = {name: serving.medians(r) for name, r in rounds.items()}
    ratio = {k: m["ours"][k] / m["hiredis"][k] for k in ("records/s", "records/CPU s")}
    rows = [[f"{layout}: {name}", *[f"{m[name][k]:,.0f}" for k in ("records/s", "records/CPU s", "p50", "p99")]] for name in m]
    rows.append(["ours / hiredis", *[f"{r:.0%}" for r in ratio.values()], "", ""])
    return rows, ratio["records/s"]


def store_lines(args, folder):
    write_records(folder / "records.jsonl")
    rows, ratios = [], {}
    for layout in LAYOUTS:
        of_layout, ratios[layout] = layout_lines(args, folder, layout)
        rows += of_layout
    return [f"Item records of `base` from Redis, {PER_REQUEST} a request, {IN_FLIGHT} requests in flight, nothing encoded; the "
            f"loop pipelines its MGETs, or its HMGETs of all fields, on one connection. Medians of {args.rounds} rounds of "
            f"{args.seconds} s in turn.", "",
            *results.table(["", "records/s", "records/CPU s", "p50, µs", "p99, µs"], rows), "",
            f"Goal: packed, at least 85 % of the loop's records/s: {serving.verdict(ratios['packed'] >= 0.85)}."]


def cache_lines(args, folder):
    with serving.redis(args, folder) as redis:
        out = serving.run(args, args.server_cores, args.binaries / "bench" / "cache_bench", f"redis://{redis.target}",
                          args.rounds)
    said = [json.loads(line) for line in out.splitlines()]
    known = {k: v for line in said if "round" not in line for k, v in line.items()}
    rows = [["hiredis, undecoded", f"{known['hiredis']:,.0f}"], ["fetched and encoded", f"{known['plain']:,.0f}"],
            ["cached", f"{known['cached']:,.0f}"], ["cached, two features of each inline", f"{known['inline']:,.0f}"]]
    ratio = known["cached"] / known["hiredis"]
    return [f"The cache: {known['records']:,} items of {known['mean_nbytes']:.0f} bytes, all fitting, drawn by Zipf's law "
            f"(exponent 1), {PER_REQUEST} a request, as encoded rows on one thread; medians of {args.rounds} rounds in turn.",
            "", *results.table(["", "thousand records/s"], rows), "",
            f"Goal: at least 10 times the loop's: {serving.verdict(ratio >= 10)} ({ratio:.1f} times)."]


def main():
    args = serving.arguments("features", "two short rounds", rounds=5, seconds=3)
    if args.quick:
        args.rounds, args.seconds = 2, 1
    with serving.scratch() as scratch:
        lines = [*store_lines(args, Path(scratch)), "", *cache_lines(args, Path(scratch))]
    serving.report(args, lines)


if __name__ == "__main__":
    main()
