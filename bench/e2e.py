"""bench/run e2e: a Rank of 500 items of `base`, with features from Redis, beside a Python server of the same model.

Each server alone in turn. Saturation in a closed loop; then at 70 % of it the p99 in an open loop; then the highest rate at
which homerank's p99 stays within the peer's. The answers of both are compared before anything is measured.
"""

import subprocess
import sys
from pathlib import Path

import results
import serving
import world
from forward import has_bf16

N_USERS, N_ITEMS, CALL_ITEMS = 1000, 10000, 500
SEARCH_STEPS = 4


def flags(args):
    return {"items": CALL_ITEMS, "users": f"u0..u{N_USERS - 1}", "item_ids": f"v0..v{N_ITEMS - 1}", "timeout_ms": 60000,
            "seed": 7}


def peer(args, folder, redis):
    server = serving.Process(args.server_cores, [
        serving.PYTHON, serving.HERE / "peers" / "python_server.py", folder / "models" / "base" / "1", redis.target,
        "--precision", args.precision, "--threads", args.n_server_cores], folder / "peer.log")
    server.target = "127.0.0.1:" + server.line(r"listening (\d+)").group(1)
    return server


def saturation(args, server):
    phase = serving.load(args, server.target, in_flight=4 * args.n_server_cores, duration_s=args.seconds,
                         **flags(args))["phases"][0]
    if phase["answered"] != phase["sent"]:
        sys.exit(f"bench: not every call was answered: {phase['statuses']}")
    return phase["answers_per_s"]


def alone(args, server):
    """Where the server says that a lone caller's time goes, ms."""
    phase = serving.load(args, server.target, in_flight=1, duration_s=2, warmup_s=1, **flags(args))["phases"][0]
    return {f"alone {stage}": seen["p50"] / 1e3 for stage, seen in phase["server_us"].items()}


def tail(args, server, rate):
    """p50 and p99 in ms at the rate; None where calls were not answered."""
    phase = serving.load(args, server.target, rate=f"{rate:.6f}", duration_s=args.seconds * 2, **flags(args))["phases"][0]
    if phase["answered"] != phase["sent"]:
        return None
    return {q: phase["latency_us"][q] / 1e3 for q in ("p50", "p99")}


def highest_rate(args, server, peak, p99_ms):
    """The highest rate, by bisection up to saturation, whose p99 is within p99_ms."""
    low, high = 0.0, peak
    for _ in range(SEARCH_STEPS):
        rate = (low + high) / 2 if low else 0.8 * high
        seen = tail(args, server, rate)
        low, high = (rate, high) if seen and seen["p99"] <= p99_ms else (low, rate)
    return low


def check_agreement(args, folder, ours, other):
    """Both rank one request alike: the largest difference of a score."""
    subprocess.run([serving.ROOT / "clients" / "python" / "build.sh", folder / "client"], check=True,
                   stdout=subprocess.DEVNULL)
    if str(folder / "client") not in sys.path:
        sys.path.insert(0, str(folder / "client"))
    import homerank  # pylint: disable=import-outside-toplevel
    found = []
    for server in (ours, other):
        with homerank.connect(server.target) as client:
            client.wait_ready(serving.WAIT_S)
            answer = client.rank("u3", [f"v{i}" for i in range(0, 5000, 10)], context={"tab": 3, "hour": "7"}, timeout=60)
            found.append({row.item_id: row.score for row in answer})
    worst = max(abs(score - found[1][item]) for item, score in found[0].items())
    if worst > (0.05 if args.precision == "bf16" else 1e-3):
        sys.exit(f"bench: the peer's scores differ by {worst:.3g}")
    return worst


def round_of(args, folder, redis, store):
    """Both servers, one after the other: a dictionary of figures."""
    with peer(args, folder, redis) as other:
        out = {"peer calls/s": saturation(args, other)}
        seen = tail(args, other, 0.7 * out["peer calls/s"])
        if seen is None:
            sys.exit("bench: the peer did not answer every call at 70 % of its saturation")
        out.update({f"peer {k}": v for k, v in {**seen, **alone(args, other)}.items()})
    with serving.serve(args, folder, folder / "models", store, "--precision", args.precision) as ours:
        out["ours calls/s"] = saturation(args, ours)
        seen = tail(args, ours, 0.7 * out["ours calls/s"])
        if seen is None:
            sys.exit("bench: homerank did not answer every call at 70 % of its saturation")
        out.update({f"ours {k}": v for k, v in {**seen, **alone(args, ours)}.items()})
        out["ours rate"] = highest_rate(args, ours, out["ours calls/s"], out["peer p99"])
    out["ratio"] = out["ours rate"] / (0.7 * out["peer calls/s"])
    out["saturation ratio"] = out["ours calls/s"] / out["peer calls/s"]
    return out


def main():
    args = serving.arguments("e2e", "one short round", rounds=5, seconds=4, precision="bf16" if has_bf16() else "f32")
    if args.quick:
        args.rounds, args.seconds = 1, 3
    with serving.scratch() as scratch:
        folder = Path(scratch)
        world.write("base", folder, N_USERS, N_ITEMS)
        with serving.redis(args, folder) as redis:
            store = f"redis://{redis.target}/0"
            serving.load_features(args, store, folder / "records.jsonl")
            serving.run(args, args.client_cores, serving.PYTHON, serving.HERE / "peers" / "python_server.py",
                        folder / "models" / "base" / "1", redis.target, "--encode", folder / "records.jsonl")
            with serving.serve(args, folder, folder / "models", store, "--precision", args.precision) as ours, \
                    peer(args, folder, redis) as other:
                worst = check_agreement(args, folder, ours, other)
            rounds = []
            for i in range(args.rounds):
                rounds.append(round_of(args, folder, redis, store))
                serving.progress(f"round {i + 1} of {args.rounds}: " + ", ".join(f"{k} {v:,.2f}" for k, v in rounds[-1].items()))
    m = serving.medians(rounds)
    rows = [[name, *[f"{m[f'{key} {k}']:,.1f}" for k in ("calls/s", "p50", "p99", "alone features", "alone model", "alone total")]]
            for name, key in (("Python", "peer"), ("ours", "ours"))]
    serving.report(args, [
        f"Rank of {CALL_ITEMS} items, model `base` {args.precision}, {args.n_server_cores} thread(s) for the network, features "
        f"from Redis. The peer is bench/peers/python_server.py: grpcio, redis-py, PyTorch traced and frozen, batched, on "
        f"records encoded beforehand. Scores differ by {worst:.1g} at most. Medians of {args.rounds} rounds in turn.", "",
        *results.table(["", "saturation, calls/s", "at 70 % of it: p50, ms", "p99, ms", "a lone call: features, ms",
                        "network, ms", "all in the server, ms"], rows), "",
        f"Within the peer's p99 at 70 % of its saturation ({m['peer p99']:,.0f} ms) ours takes {m['ours rate']:,.1f} calls/s, the "
        f"peer {0.7 * m['peer calls/s']:,.1f}: {m['ratio']:.1f} times; at saturation {m['saturation ratio']:.1f} times.", "",
        f"Goal: at least 10 times the requests/s at the same p99: {serving.verdict(m['ratio'] >= 10)}. The network is "
        f"{m['peer alone model'] / m['peer alone total']:.0%} of a lone call in the peer and "
        f"{m['ours alone model'] / m['ours alone total']:.0%} in ours: on one core both are bound by the same matrix products "
        "(`forward`), and nothing around them can make ten times of it.", "",
        "Goal: at least 3 times Triton's: skipped, its server is neither in Debian nor to be had as a plain package."])


if __name__ == "__main__":
    main()
