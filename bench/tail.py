"""bench/run tail: latencies at 70 % load beside an ideal queue's, and a burst of twice what the server can do.

Requests of --items items of the model `base`, features in an embedded store. Saturation is what a closed loop gets
answered; the service time is what that makes of each server core. The ideal queue is M/D/c with that service time, first
come, first served, fed with the very arrivals that the load generator made.
"""

import statistics
import sys
from pathlib import Path

import queue_sim
import results
import serving
import world
from forward import has_bf16

N_USERS, N_ITEMS = 1000, 10000
LOAD, BURST, WARM_S = 0.7, 2.0, 2
CALM_S, BURST_S = 8, 20
REFUSED_WITHIN_MS = 5


def common(args):
    return {"items": args.items, "users": f"u0..u{N_USERS - 1}", "item_ids": f"v0..v{N_ITEMS - 1}", "timeout_ms": 10000}


def saturation(args, server):
    phase = serving.load(args, server.target, in_flight=8 * args.n_server_cores, duration_s=2 if args.quick else 5,
                         warmup_s=WARM_S, **common(args))["phases"][0]
    return phase["answers_per_s"]


def at_load(args, server, rate, seed):
    """One run at the rate: what was seen, and the ideal queue for the same arrivals."""
    seen = serving.load(args, server.target, rate=f"{rate:.6f}", seed=seed, duration_s=args.seconds, warmup_s=WARM_S,
                        **common(args))["phases"][0]
    warm, times = queue_sim.arrivals(seed, [(float(f"{rate:.6f}"), WARM_S), (float(f"{rate:.6f}"), args.seconds)])
    if seen["sent"] + seen["not_sent"] != len(times):
        sys.exit(f"bench: {seen['sent']} calls were sent, {len(times)} simulated: not the same arrivals")
    service = args.n_server_cores * LOAD / rate
    ideal = queue_sim.latencies(warm + times, service, args.n_server_cores)[len(warm):]
    out = {"seen p50": seen["latency_us"]["p50"] / 1e3, "seen p99": seen["latency_us"]["p99"] / 1e3,
           "ideal p50": queue_sim.percentile(ideal, 0.5) * 1e3, "ideal p99": queue_sim.percentile(ideal, 0.99) * 1e3,
           "buckets": seen["latency_us"]["buckets"], "calls": seen["sent"], "refused": seen["refused"], "lag p99": seen["lag_us"]["p99"] / 1e3}
    out["p50 ratio"], out["p99 ratio"] = out["seen p50"] / out["ideal p50"], out["seen p99"] / out["ideal p99"]
    for stage in ("queue", "features", "model"):
        out[stage + " p50"] = seen["server_us"][stage]["p50"] / 1e3
        out[stage + " p99"] = seen["server_us"][stage]["p99"] / 1e3
    return out


def burst(args, server, rate, seed):
    """70 %, then 200 %, then 70 %, told by phase and by second."""
    phases = f"{rate:.6f}:{CALM_S},{rate * BURST / LOAD:.6f}:{BURST_S},{rate:.6f}:{CALM_S}"
    report = serving.load(args, server.target, phases=phases, seed=seed, warmup_s=WARM_S, **common(args))
    calm, hard, after = report["phases"]
    end = WARM_S + CALM_S + BURST_S
    second = report["timeline"][end + 1]  # the first second that begins a second after the burst's end
    later = report["timeline"][end + 1:]
    return {"calm p99": calm["latency_us"]["p99"] / 1e3, "burst p99": hard["latency_us"]["p99"] / 1e3,
            "answered/s": hard["answers_per_s"], "refused": hard["refused"], "late": hard["late"] + hard["failed"],
            "refusal p50": hard["refusal_us"].get("p50", 0) / 1e3, "refusal p99": hard["refusal_us"].get("p99", 0) / 1e3,
            "after p99": max(s["latency_us"].get("p99", 0) for s in later) / 1e3,
            "next p50": second["latency_us"].get("p50", 0) / 1e3, "after refused": sum(s["refused"] for s in later),
            "rss": server.rss_bytes() / 1e6, "after": after["latency_us"]["p99"] / 1e3}


def load_lines(args, rounds):
    m = serving.medians(rounds)
    head = ["milliseconds", "p50", "p99"]
    rows = [["ideal queue", *[f"{m['ideal ' + q]:,.1f}" for q in ("p50", "p99")]],
            ["ours", *[f"{m['seen ' + q]:,.1f}" for q in ("p50", "p99")]],
            *[[f"  of it {s}", *[f"{m[f'{s} {q}']:,.1f}" for q in ("p50", "p99")]] for s in ("queue", "features", "model")],
            ["ours / ideal", f"{m['p50 ratio']:.2f}", f"{m['p99 ratio']:.2f}"],
            ["its rounds", *[serving.spread([r[q + " ratio"] for r in rounds]) for q in ("p50", "p99")]]]
    met = max(m["p50 ratio"], m["p99 ratio"]) <= 1.25
    return [*results.table(head, rows), "",
            f"Goal: p50 and p99 at most 1.25 times the ideal queue's: {serving.verdict(met)}. Medians of {len(rounds)} rounds "
            f"of {args.seconds} s, {sum(r['calls'] for r in rounds):,} calls in all, {sum(r['refused'] for r in rounds)} "
            f"refused; the generator's own lag was {m['lag p99']:.2f} ms at p99."]


def burst_lines(args, calm_p99, rounds):
    m = serving.medians(rounds)
    grown = rounds[-1]["rss"] - rounds[0]["rss"]
    rows = [
        ["admitted p99 in the burst / p99 at 70 %", f"{m['burst p99']:,.1f} ms / {calm_p99:,.1f} ms",
         f"{m['burst p99'] / calm_p99:.2f}", "≤ 2", serving.verdict(m["burst p99"] <= 2 * calm_p99)],
        ["refusals answered within, p99", f"{m['refusal p99']:.2f} ms (p50 {m['refusal p50']:.2f} ms)", "",
         f"≤ {REFUSED_WITHIN_MS} ms", serving.verdict(m["refusal p99"] <= REFUSED_WITHIN_MS)],
        ["p99 of every second from one second after the burst / p99 at 70 %",
         f"at most {m['after p99']:,.1f} ms, {m['after refused']:.0f} refused", f"{m['after p99'] / calm_p99:.2f}",
         "≤ 1.25, 0", serving.verdict(m["after p99"] <= 1.25 * calm_p99 and m["after refused"] == 0)],
        ["resident memory from the first burst's end to the last's", f"{rounds[0]['rss']:,.1f} MB, grown {grown:+.1f} MB", "",
         "≤ 1 %", serving.verdict(grown <= 0.01 * rounds[0]["rss"])],
    ]
    return [f"The burst: {CALM_S} s at 70 %, {BURST_S} s at 200 %, {CALM_S} s at 70 %; medians of {len(rounds)} such runs, beside "
            f"the p99 of all calls at 70 % above. In it {m['answered/s']:,.1f} calls/s were answered, {m['refused']:,.0f} refused, "
            f"{m['late']:.0f} late or failed; the generator's own lag is part of every figure.",
            "", *results.table(["", "seen", "ratio", "goal", ""], rows)]


def main():
    args = serving.arguments("tail", "one short round", rounds=5, seconds=40, items=500, precision="bf16" if has_bf16() else "f32")
    if args.quick:
        args.rounds, args.seconds = 1, min(args.seconds, 10)
    with serving.scratch() as scratch:
        folder = Path(scratch)
        world.write("base", folder, N_USERS, N_ITEMS)
        store = f"lmdb:{folder}/base.lmdb"
        serving.load_features(args, store, folder / "records.jsonl")
        with serving.serve(args, folder, folder / "models", store, "--precision", args.precision) as server:
            peak = statistics.median(saturation(args, server) for _ in range(3))
            rate = LOAD * peak
            calm, bursts = [], []
            for i in range(args.rounds):
                calm.append(at_load(args, server, rate, 1 + i))
                bursts.append(burst(args, server, rate, 101 + i))
                said = {k: v for k, v in {**calm[-1], **bursts[-1]}.items() if k != "buckets"}
                serving.progress(f"round {i + 1} of {args.rounds}: " + ", ".join(f"{k} {v:,.2f}" for k, v in said.items()))
    service_ms = args.n_server_cores * 1e3 / peak
    calm_p99 = serving.pooled([r["buckets"] for r in calm], 0.99)
    serving.report(args, [
        f"Calls of {args.items} items, model `base` {args.precision}, embedded store, {args.n_server_cores} worker thread(s). Saturation: "
        f"{peak:,.1f} calls/s in a closed loop, which is {service_ms:.2f} ms of service on each of {args.n_server_cores} "
        f"core(s). 70 % of it is {rate:,.1f} calls/s, open loop.", "", *load_lines(args, calm), "",
        *burst_lines(args, calm_p99, bursts)])


if __name__ == "__main__":
    main()
