"""bench/run experiments-serving: what experiments and shadows cost a server's other work.

Calls under 50 running experiments, whose exposures are logged to a file, beside the same calls without any: two servers,
in turn, closed loop; calls of 100 items of `base`, and of one item of `tiny`, the hard case. Then calls that are all
scored by a second version too, as shadows, beside the same arrivals without: open loop, one worker thread.
"""

import json
import re
import statistics
import urllib.request
from pathlib import Path

import numpy as np

import results
import serving
import workload
import world
from forward import has_bf16

N_USERS, N_ITEMS, N_REQUESTS, CALL_ITEMS = 1000, 10000, 1000, 100
N_EXPERIMENTS = 50
LOAD, WARM_S = 0.35, 2
ATTRIBUTES = {"country": "de", "age": 31, "plan": "pro", "device": "phone", "app": "7.12.3"}


def experiments(name):
    """The file of bench/experiments.c's `users`: layers of experiments that take 4 % of some countries' users. Their
    variations ask for as much work as there is without them."""
    tasks = [t["name"] for t in workload.config(name)[0]["network"]["tasks"]]
    fusions = [{"kind": "weighted_sum", "weights": {t: w for t in tasks}} for w in (1.0, 2.0)]
    layers = {"ranking.model": [f"{name}@1", name], "ranking.fusion": fusions, "ranking.tasks": [tasks, tasks[::-1]]}
    features = {layer: {"rules": []} for layer in layers}
    for i in range(N_EXPERIMENTS):
        layer = list(layers)[i % len(layers)]
        features[layer]["rules"].append({
            "key": f"exp-{i}", "seed": f"exp-{i}", "hashVersion": 2, "coverage": 0.04, "variations": layers[layer],
            "weights": [0.5, 0.5],
            "condition": {"country": {"$in": ["de", "fr", "it"]}, "age": {"$gte": 18}}})
    return {"features": features}


def write_requests(path, n_items):
    rng = np.random.default_rng(workload.SEED)
    with open(path, "w", encoding="utf-8") as out:
        for i in range(N_REQUESTS):
            items = rng.choice(N_ITEMS, size=n_items, replace=False)
            print(json.dumps({"request_id": f"r{i}", "user_id": f"u{rng.integers(N_USERS)}", "attributes": ATTRIBUTES,
                              "item_ids": [f"v{x}" for x in items]}), file=out)


def make_world(args, name, folder, n_items):
    """The store, and a file of requests."""
    folder.mkdir(parents=True)
    world.write(name, folder, N_USERS, N_ITEMS)
    store = f"lmdb:{folder}/{name}.lmdb"
    serving.load_features(args, store, folder / "records.jsonl")
    write_requests(folder / "requests.jsonl", n_items)
    return store


def serve(args, folder, kind, store, *flags, **options):
    """A server with a folder of its own."""
    (folder / kind).mkdir()
    return serving.serve(args, folder / kind, folder / "models", store, "--precision", args.precision, *flags, **options)


def serve_with(args, folder, kind, payload, store, *flags, **options):
    """... under experiments, its exposures in the file exposures.jsonl of that folder."""
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    return serve(args, folder, kind, store, "--experiments", path, "--exposures", folder / kind / "exposures.jsonl", *flags,
                 **options)


# --- throughput ----------------------------------------------------------------------------------------------


def measure_calls(args, server, folder, in_flight):
    phase, cpu_s = serving.load_with_cpu(args, server, **{"in": folder / "requests.jsonl"}, in_flight=in_flight,
                                         duration_s=args.seconds, timeout_ms=60000)
    serving.require_all_answered(phase)
    return {"calls/s": phase["answers_per_s"], "calls/CPU s": phase["answered"] / cpu_s, "answered": phase["answered"]}


def throughput(args, name, folder, n_items, in_flight):
    """Rounds of calls without and with experiments, and the exposures a call."""
    store = make_world(args, name, folder, n_items)
    rounds = {"none": [], "with": []}
    with serve(args, folder, "none", store) as none, serve_with(args, folder, "with", experiments(name), store) as under:
        for server in (none, under):
            serving.load(args, server.target, **{"in": folder / "requests.jsonl"}, in_flight=in_flight, duration_s=1, warmup_s=0)
        for i in range(args.rounds):
            rounds["none"].append(measure_calls(args, none, folder, in_flight))
            rounds["with"].append(measure_calls(args, under, folder, in_flight))
            serving.progress(f"{name}, {n_items} item(s): round {i + 1} of {args.rounds}: " + ", ".join(
                f"{k} {rounds['with'][-1][k] / rounds['none'][-1][k]:.3f}" for k in ("calls/s", "calls/CPU s")))
    with open(folder / "with" / "exposures.jsonl", encoding="utf-8") as lines:
        users = {line["request_id"] for line in map(json.loads, lines)}
    return rounds, len(users) / N_REQUESTS


def throughput_rows(label, rounds):
    m = {kind: serving.medians(r) for kind, r in rounds.items()}
    keys = ("calls/s", "calls/CPU s")
    ratios = {k: [b[k] / a[k] for a, b in zip(rounds["none"], rounds["with"])] for k in keys}
    rows = [[label, kind, *[f"{m[at][k]:,.1f}" for k in keys]] for kind, at in (("none", "none"), (N_EXPERIMENTS, "with"))]
    rows.append(["", "ratio", *[f"{statistics.median(ratios[k]):.3f} ({serving.spread(ratios[k])})" for k in keys]])
    return rows, statistics.median(ratios["calls/CPU s"])


def throughput_lines(args, scratch):
    large, in_some = throughput(args, "base", scratch / "large", CALL_ITEMS, 4 * args.n_server_cores)
    small, _ = throughput(args, "tiny", scratch / "small", 1, 64)
    large_rows, ratio = throughput_rows(f"`base`, {CALL_ITEMS} items", large)
    small_rows, _ = throughput_rows("`tiny`, one item", small)
    return [f"{N_EXPERIMENTS} experiments in three layers, each taking 4 % of the users; {in_some:.0%} of the requests are in one "
            f"or more, and every exposure is logged to a file. Model {args.precision}, embedded store, closed loop, two servers in "
            f"turn; medians of {args.rounds} rounds of {args.seconds} s, and the median and spread of the rounds' ratios.", "",
            *results.table(["calls", "experiments", "calls/s", "calls/CPU s"], large_rows + small_rows), "",
            f"Goal: with {N_EXPERIMENTS} experiments at least 0.98 of the throughput without, `base`: "
            f"{serving.verdict(ratio >= 0.98)} (per CPU second {ratio:.3f})."]


# --- shadows -------------------------------------------------------------------------------------------------


def shadows(server):
    """{result: number} so far."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=serving.WAIT_S) as answer:
        text = answer.read().decode()
    return {r: int(n) for r, n in re.findall(r'(?m)^homerank_shadows_total\{result="(\w+)"\} (\d+)', text)}


def at_load(args, server, folder, rate, seed):
    phase = serving.load(args, server.target, **{"in": folder / "requests.jsonl"}, rate=f"{rate:.6f}", seed=seed,
                         duration_s=args.shadow_seconds, warmup_s=WARM_S, timeout_ms=10000)["phases"][0]
    serving.require_all_answered(phase)
    return {"p50": phase["latency_us"]["p50"] / 1e3, "p99": phase["latency_us"]["p99"] / 1e3, "calls": phase["sent"],
            "buckets": phase["latency_us"]["buckets"]}


def shadow_rounds(args, folder, store):
    payload = {"features": {"ranking": {"defaultValue": {"model": "base@1", "shadow": {"model": "base@2", "percent": 100}}}}}
    flags = ("--version-policy", "all", "--default-model", "base@1", "--http", "127.0.0.1:0")
    alone, shadowed = [], []
    with serve(args, folder, "alone", store, *flags, threads=1) as none, \
            serve_with(args, folder, "shadowed", payload, store, *flags, threads=1) as with_shadow:
        with_shadow.http = "127.0.0.1:" + with_shadow.line(r'"serving HTTP".*"port":(\d+)').group(1)
        peak = statistics.median(serving.load(args, none.target, **{"in": folder / "requests.jsonl"}, in_flight=4,
                                              duration_s=2)["phases"][0]["answers_per_s"] for _ in range(3))
        for i in range(args.rounds):
            sides = [(alone, none), (shadowed, with_shadow)]
            for rounds, server in sides if i % 2 == 0 else sides[::-1]:  # who comes first is not to matter
                rounds.append(at_load(args, server, folder, LOAD * peak, i))
            serving.progress(f"shadows: round {i + 1} of {args.rounds}: p99 {alone[-1]['p99']:.2f} ms alone, "
                             f"{shadowed[-1]['p99']:.2f} ms shadowed; {shadows(with_shadow)}")
        return peak, alone, shadowed, shadows(with_shadow)


def shadow_lines(args, folder):
    store = make_world(args, "base", folder, CALL_ITEMS)
    workload.write("base", folder / "models" / "base" / "2")
    peak, alone, shadowed, results_of = shadow_rounds(args, folder, store)
    pooled = [[serving.pooled([r["buckets"] for r in rounds], q) for q in (0.5, 0.99)] for rounds in (alone, shadowed)]
    rows = [[name, *[f"{ms:,.2f}" for ms in side]] for name, side in zip(("alone", "all shadowed"), pooled)]
    ratios = [b / a for a, b in zip(*pooled)]
    spreads = [serving.spread([b[q] / a[q] for a, b in zip(alone, shadowed)]) for q in ("p50", "p99")]
    rows += [["ratio", *[f"{r:.2f}" for r in ratios]], ["of the single rounds", *spreads]]
    return [f"Shadows of every call: {CALL_ITEMS} items of `base@1`, shadowed by `base@2`, {args.precision}, one worker thread, open "
            f"loop at {LOAD:.0%} of the {peak:,.1f} calls/s that are its most without shadows; the same arrivals in both, "
            f"{args.rounds} rounds of {args.shadow_seconds} s in turn, {sum(r['calls'] for r in alone):,} calls each.", "",
            *results.table(["milliseconds, all rounds together", "p50", "p99"], rows), "",
            "Shadows, warm-ups among them: " + ", ".join(f"{n:,} {r}" for r, n in results_of.items()) + ".", "",
            f"Goal: p99 within 1.1 times: {serving.verdict(ratios[1] <= 1.1)} ({ratios[1]:.2f})."]


def main():
    args = serving.arguments("experiments-serving", "two short rounds", rounds=6, seconds=4, shadow_seconds=25,
                             precision="bf16" if has_bf16() else "f32")
    if args.quick:
        args.rounds, args.seconds, args.shadow_seconds = 2, 2, 5
    with serving.scratch() as scratch:
        lines = throughput_lines(args, Path(scratch))
        lines += ["", *shadow_lines(args, Path(scratch) / "shadow")]
    serving.report(args, lines)


if __name__ == "__main__":
    main()
