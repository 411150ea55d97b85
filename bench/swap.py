"""bench/run swap: latencies while versions of the model are swapped, beside the same load without.

Half of what the server can do, open loop, the same arrivals in both. A swap is a new version's folder put into the model
repository, which the server polls; every fifth is broken (cut short), and must change nothing.
"""

import json
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

import results
import serving
import world

N_USERS, N_ITEMS, CALL_ITEMS = 1000, 10000, 100
LOAD, WARM_S, POLL_MS, BROKEN_EVERY = 0.5, 2, 100, 5


class Swapper:
    """Puts versions into a repository, `every` seconds, until it is stopped."""

    def __init__(self, folder, every):
        self.folder, self.every = folder, every
        self.version, self.good, self.broken = 1, 0, 0
        self.ended = threading.Event()
        self.thread = None

    def put(self):
        self.version += 1
        made = self.folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        for name in ("config.json", "model.safetensors"):
            os.link(self.folder / "base" / name, made / name)
        if self.version % BROKEN_EVERY == 0:
            os.unlink(made / "config.json")
            (made / "config.json").write_bytes((self.folder / "base" / "config.json").read_bytes()[:-100])
            self.broken += 1
        else:
            self.good += 1
        made.rename(self.folder / "models" / "base" / str(self.version))

    def run(self):
        while not self.ended.wait(self.every):
            self.put()

    def __enter__(self):
        self.ended.clear()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def events(server, text):
    """How many lines of the server's log say so."""
    lines = Path(server.log).read_text(encoding="utf-8").splitlines()
    return sum(text in json.loads(line).get("message", json.loads(line).get("msg", "")) for line in lines if line)


def measure(args, server, rate, seed):
    phase = serving.load(args, server.target, rate=f"{rate:.6f}", seed=seed, duration_s=args.seconds, warmup_s=WARM_S,
                         items=CALL_ITEMS, users=f"u0..u{N_USERS - 1}", item_ids=f"v0..v{N_ITEMS - 1}",
                         timeout_ms=10000)["phases"][0]
    return {"p50": phase["latency_us"]["p50"] / 1e3, "p99": phase["latency_us"]["p99"] / 1e3,
            "max": phase["latency_us"]["max"] / 1e3, "calls": phase["sent"],
            "not answered": phase["sent"] - phase["answered"]}


def wait_for_loads(server, swapper):
    """The last swap may still be under way."""
    end = time.monotonic() + serving.WAIT_S
    while time.monotonic() < end:
        if events(server, "model loaded") > swapper.good and events(server, "model version refused") >= swapper.broken:
            return
        time.sleep(0.1)


def measure_rounds(args, folder, store):
    swapper = Swapper(folder, args.every)
    without, swapped = [], []
    with serving.serve(args, folder, folder / "models", store, "--repository-poll-ms", POLL_MS) as server:
        peak = serving.load(args, server.target, in_flight=8 * args.n_server_cores, duration_s=3, items=CALL_ITEMS,
                            users=f"u0..u{N_USERS - 1}", item_ids=f"v0..v{N_ITEMS - 1}")["phases"][0]["answers_per_s"]
        for i in range(args.rounds):
            without.append(measure(args, server, LOAD * peak, i))
            with swapper:
                swapped.append(measure(args, server, LOAD * peak, i))
            wait_for_loads(server, swapper)
            serving.progress(f"round {i + 1} of {args.rounds}: p99 {without[-1]['p99']:.1f} ms without, "
                             f"{swapped[-1]['p99']:.1f} ms with {swapper.version - 1} swaps so far")
        loaded, refused = events(server, "model loaded") - 1, events(server, "model version refused")
    return peak, swapper, (loaded, refused), without, swapped


def main():
    args = serving.arguments("swap", "one short round", rounds=5, seconds=25, every=2.5)
    if args.quick:
        args.rounds, args.seconds = 1, 8
    with serving.scratch() as scratch:
        folder = Path(scratch)
        world.write("base", folder, N_USERS, N_ITEMS)
        shutil.copytree(folder / "models" / "base" / "1", folder / "base")
        store = f"lmdb:{folder}/base.lmdb"
        serving.load_features(args, store, folder / "records.jsonl")
        peak, swapper, (loaded, refused), without, swapped = measure_rounds(args, folder, store)
    m = [serving.medians(without), serving.medians(swapped)]
    ratios = [b["p99"] / a["p99"] for a, b in zip(without, swapped)]
    failed = sum(r["not answered"] for r in swapped)
    rows = [[name, *[f"{r[k]:,.1f}" for k in ("p50", "p99", "max")]] for name, r in zip(("without", "with swaps"), m)]
    rows.append(["ratio", *[f"{m[1][k] / m[0][k]:.2f}" for k in ("p50", "p99", "max")]])
    good = statistics.median(ratios) <= 1.2 and failed == 0
    serving.report(args, [
        f"Calls of {CALL_ITEMS} items, model `base` f32, embedded store, at {LOAD:.0%} of the {peak:,.1f} calls/s that this "
        f"server can do, {args.n_server_cores} worker thread(s); a version every {args.every} s in every other run. Medians of "
        f"{args.rounds} rounds of {args.seconds} s in turn, the same arrivals in both.", "",
        *results.table(["milliseconds", "p50", "p99", "max"], rows), "",
        f"{swapper.good} versions put into the repository and {loaded} swapped in; {swapper.broken} broken ones and {refused} "
        f"refused; {failed} of {sum(r['calls'] for r in swapped)} calls not answered.", "",
        f"Goal: p99 within 1.2 times, and every call answered: {serving.verdict(good)} (median of the rounds' ratios "
        f"{statistics.median(ratios):.2f}, {serving.spread(ratios)})."])


if __name__ == "__main__":
    main()
