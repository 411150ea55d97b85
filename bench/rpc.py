"""bench/run rpc: what a call costs beside its work.

One-item calls of the model `tiny` beside a bare echo server on the gRPC core with messages of the same size; and calls
of 500 items of `base` beside the forward pass alone, each precision. In turn, medians of the rounds.
"""

import os
import subprocess
import sys
from pathlib import Path

import results
import serving
import world
from forward import Program

N_USERS, N_ITEMS = 1000, 10000
IDS = {"users": f"u0..u{N_USERS - 1}", "item_ids": f"v0..v{N_ITEMS - 1}"}
IN_FLIGHT = 64
CALL_ITEMS = 500


def answer_nbytes(server, folder):
    """The size of an answer: what the echo server shall send."""
    subprocess.run([serving.ROOT / "clients" / "python" / "build.sh", folder], check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, str(folder))
    import grpc  # pylint: disable=import-outside-toplevel
    from homerank import homerank_pb2 as pb  # pylint: disable=import-outside-toplevel
    with grpc.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/homerank.v1.Ranker/Rank", request_serializer=pb.RankRequest.SerializeToString)
        return len(call(pb.RankRequest(request_id="load-1", user_id="u1", item_ids=["v1"]), timeout=serving.WAIT_S,
                        wait_for_ready=True))


def measure_calls(args, server):
    """Calls per second, and per CPU second of the server; then the latency of a caller that is alone."""
    phase, cpu_s = serving.load_with_cpu(args, server, in_flight=IN_FLIGHT, items=1, duration_s=args.seconds, **IDS)
    alone = serving.load(args, server.target, in_flight=1, items=1, duration_s=1, warmup_s=0, **IDS)["phases"][0]
    serving.require_all_answered(phase)
    return {"calls/s": phase["answers_per_s"], "calls/CPU s": phase["answered"] / cpu_s,
            "busy": cpu_s / args.seconds / args.n_server_cores, "p50 alone": alone["latency_us"]["p50"]}


def small_calls(args, folder):
    world.write("tiny", folder, N_USERS, N_ITEMS)
    store = f"lmdb:{folder}/tiny.lmdb"
    serving.load_features(args, store, folder / "records.jsonl")
    with serving.serve(args, folder, folder / "models", store) as ours:
        nbytes = answer_nbytes(ours, folder / "client")
        with serving.echo(args, folder, nbytes) as echo:
            rounds = {"echo": [], "ours": []}
            for i in range(args.rounds):
                rounds["echo"].append(measure_calls(args, echo))
                rounds["ours"].append(measure_calls(args, ours))
                serving.progress(f"one-item calls: round {i + 1} of {args.rounds}")
    echo, ours = (serving.medians(rounds[name]) for name in ("echo", "ours"))
    ratio = {k: ours[k] / echo[k] for k in ("calls/s", "calls/CPU s")}
    rows = [[name, *[f"{m[k]:,.0f}" for k in ("calls/s", "calls/CPU s")], f"{m['busy']:.0%}", f"{m['p50 alone']:,.0f}"]
            for name, m in (("echo server", echo), ("ours", ours))]
    rows.append(["ours / echo", *[f"{ratio[k]:.0%}" for k in ratio], "", ""])
    return [f"One-item calls: model `tiny`, embedded store, {IN_FLIGHT} in flight on one connection, answers of {nbytes} "
            f"bytes; medians of {args.rounds} rounds of {args.seconds} s in turn. Where the load generator takes a whole core "
            "to itself the echo server waits for it (`busy` is the server's share of its cores), and calls per CPU second say "
            "more than calls per second.", "",
            *results.table(["", "calls/s", "calls/CPU s", "busy", "p50 of a lone caller, µs"], rows), "",
            f"Goal: at least 60 % of the echo server's calls/s: {serving.verdict(ratio['calls/s'] >= 0.6)} "
            f"({ratio['calls/s']:.0%}; {ratio['calls/CPU s']:.0%} per CPU second)."]


def measure_large(args, server, forward, precision):
    phase, cpu_s = serving.load_with_cpu(args, server, in_flight=4 * args.n_server_cores, items=CALL_ITEMS,
                                         duration_s=args.seconds * 2, timeout_ms=60000, **IDS)
    serving.require_all_answered(phase)
    ns = int(forward.ask(f"run {precision} {CALL_ITEMS} {500 * args.seconds}"))
    return {"items/s": phase["items_per_s"], "items/CPU s": phase["items"] / cpu_s,
            "forward/CPU s": CALL_ITEMS * 1e9 / ns, "p50 ms": phase["latency_us"]["p50"] / 1e3}


def large_calls(args, folder):
    world.write("base", folder, N_USERS, N_ITEMS)
    store = f"lmdb:{folder}/base.lmdb"
    serving.load_features(args, store, folder / "records.jsonl")
    forward = Program(serving.core_list(args.server_cores)[0], args.binaries / "bench" / "forward",
                      folder / "models" / "base" / "1")
    rows = []
    for precision in ("f32", "bf16"):
        engine = forward.ask(f"engine {precision}")
        with serving.serve(args, folder, folder / "models", store, "--precision", precision, "--default-model", "base",
                           threads=1) as server:
            rounds = []
            for i in range(args.rounds):
                rounds.append(measure_large(args, server, forward, precision))
                serving.progress(f"{CALL_ITEMS}-item calls, {precision}: round {i + 1} of {args.rounds}")
        m = serving.medians(rounds)
        ratio = m["items/CPU s"] / m["forward/CPU s"]
        rows.append([precision, *[f"{m[k]:,.0f}" for k in ("items/s", "items/CPU s", "forward/CPU s", "p50 ms")],
                     f"{ratio:.0%}", serving.verdict(ratio >= 0.85), engine])
    forward.close()
    return [f"Calls of {CALL_ITEMS} items: model `base`, embedded store, one worker thread, 4 in flight; beside the forward "
            f"pass alone on the same core. Goal: at least 85 % of its items per CPU second.", "",
            *results.table(["precision", "items/s", "items/CPU s", "forward alone, items/CPU s", "p50, ms",
                            "ours / forward", "goal", "engine"], rows)]


def main():
    args = serving.arguments("rpc", "two short rounds", rounds=5, seconds=4)
    if args.quick:
        args.rounds, args.seconds = 2, 1
    with serving.scratch() as scratch:
        folders = [Path(scratch) / name for name in ("small", "large")]
        for folder in folders:
            os.makedirs(folder)
        lines = [*small_calls(args, folders[0]), "", *large_calls(args, folders[1])]
    serving.report(args, lines)


if __name__ == "__main__":
    main()
