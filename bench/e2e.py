"""bench/run e2e: a Rank of 500 items of `base`, with features from Redis, beside servers of the same model.

The peers: a Python server (peers/python_server.py), and Triton (peers/triton_server.py), which is sent feature vectors.
Each server alone in turn: saturation in a closed loop, then at 70 % of it the p99 in an open loop; and the highest of some
rates at which homerank's p99 stays within that. The Python peer's answers are compared with ours before anything else.
"""

import json
import subprocess
import sys
from pathlib import Path

import results
import serving
import workload
import world
from forward import Program, has_bf16
from peers import scratch

N_USERS, N_ITEMS, CALL_ITEMS = 1000, 10000, 500
LOAD = 0.7
RATES = (0.5, 0.7, 0.8, 0.9)  # of saturation, at which homerank's p99 is looked at


def flags(args):
    return {"warmup_s": 1, "items": CALL_ITEMS, "users": f"u0..u{N_USERS - 1}", "item_ids": f"v0..v{N_ITEMS - 1}", "timeout_ms": 60000,
            "seed": 7}


class RankServer:
    """A server of Ranker/Rank under `homerank load`."""

    def __init__(self, args, server):
        self.args, self.server = args, server

    def load(self, seconds, **how):
        return serving.load(self.args, self.server.target, duration_s=seconds, **how, **flags(self.args))["phases"][0]

    def alone(self):
        """Where the server says that a lone caller's time goes, ms."""
        seen = self.load(2, in_flight=1)["server_us"]
        return {"alone " + stage: seen[stage]["p50"] / 1e3 for stage in seen}


class TritonServer:
    """Triton under a load of its own protocol."""

    def __init__(self, args, server, interpreter, width):
        self.args, self.server, self.interpreter, self.width = args, server, interpreter, width

    def load(self, seconds, **how):
        texts = [t for name, value in how.items() for t in ("--" + name.replace("_", "-"), value)]
        out = serving.run(self.args, self.args.client_cores, self.interpreter, serving.HERE / "peers" / "triton_load.py",
                          self.server.target, self.width, CALL_ITEMS, seconds, "--seed", flags(self.args)["seed"], *texts)
        return json.loads(out)

    def alone(self):
        return {}


def python_peer(args, folder, redis):
    server = serving.Process(args.server_cores, [
        serving.PYTHON, serving.HERE / "peers" / "python_server.py", folder / "models" / "base" / "1", redis.target,
        "--precision", args.precision, "--threads", args.n_server_cores], folder / "peer.log")
    server.target = "127.0.0.1:" + server.line(r"listening (\d+)").group(1)
    return server


def triton_peer(args, folder, interpreter, width):
    n_tasks = len(workload.config("base")[0]["network"]["tasks"])
    server = serving.Process(args.server_cores, [interpreter, serving.HERE / "peers" / "triton_server.py",
                                                 folder / "base.onnx", width, n_tasks, args.n_server_cores],
                             folder / "triton.log")
    server.target = server.line(r"listening (\d+)").group(1)
    return server


def export(args, folder):
    """The network as ONNX; its width."""
    torch = Program(args.server_cores, serving.PYTHON, serving.HERE / "torch_forward.py", folder / "models" / "base" / "1")
    width = int(torch.ask(f"export {folder / 'base.onnx'}"))
    torch.close()
    return width


def check_agreement(args, folder, ours, other):
    """Both rank one request alike: the largest difference of a score."""
    subprocess.run([serving.ROOT / "clients" / "python" / "build.sh", folder / "client"], check=True,
                   stdout=subprocess.DEVNULL)
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


def milliseconds(phase, quantile):
    """For ever, where not every call was answered."""
    return phase["latency_us"][quantile] / 1e3 if phase["answered"] == phase["sent"] else float("inf")


def measure(args, server):
    """Saturation and, at 70 % of it, p50 and p99 in ms."""
    out = {"calls/s": server.load(args.seconds, in_flight=4 * args.n_server_cores)["answers_per_s"]}
    phase = server.load(2 * args.seconds, rate=f"{LOAD * out['calls/s']:.6f}")
    return {**out, "p50": milliseconds(phase, "p50"), "p99": milliseconds(phase, "p99"), **server.alone()}


def measure_ours(args, server):
    """The same, and the p99 at each of RATES."""
    out = measure(args, server)
    out["at"] = {LOAD * out["calls/s"]: out["p99"]}
    for share in RATES:
        rate = share * out["calls/s"]
        if share != LOAD:
            out["at"][rate] = milliseconds(server.load(2 * args.seconds, rate=f"{rate:.6f}"), "p99")
    return out


def beside(ours, peer):
    """homerank's highest rate whose p99 is within the peer's at 70 % of its saturation, over the peer's rate."""
    within = [rate for rate, p99 in ours["at"].items() if p99 <= peer["p99"]]
    return max(within, default=0) / (LOAD * peer["calls/s"])


def round_of(args, folder, redis, store, triton):
    """Every server, one after the other: {name: figures}."""
    out = {}
    with python_peer(args, folder, redis) as server:
        out["Python"] = measure(args, RankServer(args, server))
    if triton:
        with triton_peer(args, folder, *triton) as server:
            out["Triton"] = measure(args, TritonServer(args, server, *triton))
    with serving.serve(args, folder, folder / "models", store, "--precision", args.precision) as server:
        out["ours"] = measure_ours(args, RankServer(args, server))
    for name in set(out) - {"ours"}:
        out[name]["ratio"] = beside(out["ours"], out[name])
    return out


def run_rounds(args, folder):
    """The rounds, the scores' largest difference, and why there is no Triton ("" where there is)."""
    world.write("base", folder, N_USERS, N_ITEMS)
    interpreter, why = scratch.python_with("onnxruntime", "nvidia-pytriton")
    triton = (interpreter, export(args, folder)) if interpreter else None
    with serving.redis(args, folder) as redis:
        store = f"redis://{redis.target}/0"
        serving.load_features(args, store, folder / "records.jsonl")
        serving.run(args, args.client_cores, serving.PYTHON, serving.HERE / "peers" / "python_server.py",
                    folder / "models" / "base" / "1", redis.target, "--encode", folder / "records.jsonl")
        with serving.serve(args, folder, folder / "models", store, "--precision", args.precision) as ours, \
                python_peer(args, folder, redis) as other:
            worst = check_agreement(args, folder, ours, other)
        rounds = []
        for i in range(args.rounds):
            rounds.append(round_of(args, folder, redis, store, triton))
            serving.progress(f"round {i + 1} of {args.rounds}: {rounds[-1]}")
    return rounds, worst, why


def goal(m, name, factor, why):
    if name not in m:
        return f"Goal: at least {factor} times {name}'s requests/s at the same p99: skipped, {why}."
    met = serving.verdict(m[name]["ratio"] >= factor)
    return (f"Goal: at least {factor} times {name}'s requests/s at the same p99: {met}. Within the {m[name]['p99']:,.0f} ms that "
            f"it has at 70 % of its saturation, ours takes {m[name]['ratio']:.1f} times as many; at saturation "
            f"{m['ours']['calls/s'] / m[name]['calls/s']:.1f} times.")


def main():
    args = serving.arguments("e2e", "one short round", rounds=5, seconds=3, precision="bf16" if has_bf16() else "f32")
    args.rounds = 1 if args.quick else args.rounds
    with serving.scratch() as made:
        rounds, worst, why = run_rounds(args, Path(made))
    names = list(rounds[0])
    m = {name: serving.medians([r[name] for r in rounds]) for name in names}
    rows = [[name, *[f"{m[name][k]:,.1f}" if k in m[name] else "" for k in
                     ("calls/s", "p50", "p99", "alone features", "alone model", "alone total")]] for name in names]
    share = {n: m[n]["alone model"] / m[n]["alone total"] for n in ("Python", "ours")}
    serving.report(args, [
        f"Rank of {CALL_ITEMS} items, model `base` {args.precision}, {args.n_server_cores} thread(s) for the network; medians of "
        f"{args.rounds} rounds in turn.", "",
        "- Python: grpcio, redis-py, PyTorch traced and frozen, batched, on records that were encoded beforehand; its scores "
        f"differ from ours by {worst:.1g} at most",
        f"- Triton: ONNX Runtime f32 with dynamic batching; callers send it feature vectors ready made, and nothing is ranked"
        if not why else f"- Triton: skipped, {why}",
        "", *results.table(["", "saturation, calls/s", "at 70 % of it: p50, ms", "p99, ms", "a lone call: features, ms",
                            "network, ms", "all in the server, ms"], rows), "",
        goal(m, "Python", 10, ""), "", goal(m, "Triton", 3, why), "",
        f"The network is {share['Python']:.0%} of a lone call in the Python server and {share['ours']:.0%} in ours: on a CPU both "
        "are bound by the same matrix products (`forward`), and what is around them cannot make ten times of it."])


if __name__ == "__main__":
    main()
