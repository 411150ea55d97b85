"""bench/run batch: `homerank score` beside the forward pass alone, on the same core.

Requests of 500 items of the model `base` with their features in an embedded store; JSON lines in and out.
"""

import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import results
import serving
import world
from forward import Program

N_USERS, N_ITEMS, CALL_ITEMS = 1000, 10000, 500


def score(args, folder, precision, n_items):
    """Items per second, and per CPU second, of one run over the requests; start and model loading taken off."""
    command = ["taskset", "-c", args.server_cores, serving.homerank_path(args.binaries), "score", "--threads",
               args.n_server_cores, "--precision", precision, "--model", folder / "models" / "base" / "1", "--store",
               f"lmdb:{folder}/base.lmdb", "--in", folder / "requests.jsonl", "--out", folder / "answers.jsonl"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(c) for c in command], stderr=subprocess.PIPE, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = re.search(r"scored (\d+) requests, (\d+) items in ([\d.]+) s", done.stderr)
    if done.returncode != 0 or int(said.group(2)) != n_items:
        sys.exit(f"bench: homerank score: {done.stderr}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, float(said.group(3))


def measure(args, folder, forward, precision, start):
    """One round: the difference of a long and an empty run is scoring alone."""
    n_items = args.requests * CALL_ITEMS
    cpu_s, wall_s = score(args, folder, precision, n_items)
    ns = int(forward.ask(f"run {precision} {CALL_ITEMS} 1000"))
    return {"items/s": n_items / wall_s, "items/CPU s": n_items / (cpu_s - start),
            "forward/CPU s": CALL_ITEMS * 1e9 / ns}


def start_cpu_s(args, folder, precision):
    """CPU seconds of a run that scores nothing: the model's loading."""
    requests = folder / "requests.jsonl"
    kept = requests.rename(folder / "kept.jsonl")
    requests.write_text("")
    cpu_s, _ = score(args, folder, precision, 0)
    kept.rename(requests)
    return cpu_s


def main():
    args = serving.arguments("batch", "two short rounds", rounds=5, requests=0)
    args.rounds = 2 if args.quick else args.rounds
    rows = []
    with serving.scratch() as scratch:
        folder = Path(scratch)
        config = world.write("base", folder, N_USERS, N_ITEMS)
        serving.load_features(args, f"lmdb:{folder}/base.lmdb", folder / "records.jsonl")
        forward = Program(serving.core_list(args.server_cores)[0], args.binaries / "bench" / "forward",
                          folder / "models" / "base" / "1")
        for precision in ("f32", "bf16"):
            engine = forward.ask(f"engine {precision}")
            begun = time.monotonic()
            forward.ask(f"run {precision} {CALL_ITEMS} 500")
            if not args.requests:  # some four seconds of scoring
                ns = int(forward.ask(f"run {precision} {CALL_ITEMS} 500"))
                args.requests = max(8, int((1 if args.quick else 4) * args.n_server_cores * 1e9 / ns))
            world.write_requests(config, folder / "requests.jsonl", args.requests, [CALL_ITEMS], N_USERS, N_ITEMS)
            start = start_cpu_s(args, folder, precision)
            rounds = []
            for i in range(args.rounds):
                rounds.append(measure(args, folder, forward, precision, start))
                serving.progress(f"{precision}: round {i + 1} of {args.rounds}, {time.monotonic() - begun:.0f} s")
            m = serving.medians(rounds)
            ratio = m["items/CPU s"] / m["forward/CPU s"]
            rows.append([precision, args.requests, *[f"{m[k]:,.0f}" for k in m], f"{ratio:.1%}",
                         serving.verdict(ratio >= 0.85), engine])
        forward.close()
    head = ["precision", "requests", "items/s", "items/CPU s", "forward alone, items/CPU s", "ours / forward", "goal",
            "engine"]
    serving.report(args, [
        f"`homerank score` of requests with {CALL_ITEMS} items each, model `base`, features from an embedded store, "
        f"{args.n_server_cores} worker thread(s) on core {args.server_cores} with all that reads and writes; the CPU time "
        f"of an empty run is taken off. Medians of {args.rounds} rounds in turn with the forward pass alone. Goal: at "
        "least 85 % of its items per CPU second.", "", *results.table(head, rows)])


if __name__ == "__main__":
    main()
