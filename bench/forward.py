"""bench/run forward: the CPU forward pass of workload `base` beside PyTorch, ONNX Runtime and the products alone.

Everything runs on one thread of one core, in turn: each round measures every program once, and the figures are the
medians of the rounds. Times are the measuring process's own CPU time, so that other work on the machine disturbs
caches and clock, but is not counted as ours or the peer's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import results
import workload
from peers import scratch

HERE = Path(__file__).resolve().parent
SIZES = [1, 16, 64, 256, 512, 1024, 4096, 8192]
QUICK_SIZES = [1, 64, 512]
PYTHON = "/usr/bin/python3"


class Program:
    """A measuring program on the benchmark's core: a line in, a line out."""

    def __init__(self, core, *command):
        self.name = Path(command[-2]).name
        self.process = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"bench: {self.name} ended at {line!r}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def products(config):
    """The network's matrix products as (K, N, how often): what reads the same rows is one product."""
    count = {}
    width = {"features": config[1]}

    def add(k, n, times=1):
        if n:
            count[k, n] = count.get((k, n), 0) + times

    for layer in config[0]["network"]["layers"]:
        experts_of = {u["name"]: u["experts"] for u in layer["units"]}
        reads = {}  # concatenated input: columns that read it
        for u in layer["units"]:
            x, g = tuple(u["input"]), tuple(u.get("gate_input", u["input"]))
            gate = u.get("feature_gate")
            k = sum(width[i] for i in x)
            if gate:
                reads[x] = reads.get(x, 0) + gate["loras"] * (gate["rank"] + 1)
                add(gate["rank"], k, gate["loras"])
                add(k, u["experts"] * u["hidden"][0])
            else:
                reads[x] = reads.get(x, 0) + u["experts"] * u["hidden"][0]
            for n_in, n_out in zip(u["hidden"], u["hidden"][1:]):
                add(n_in, n_out, u["experts"])
            if "mix" in u:
                reads[g] = reads.get(g, 0) + sum(experts_of[m] for m in u["mix"])
                reads[g] += u["experts"] if u.get("self_gate") else 0
        for sources, n in reads.items():
            add(sum(width[i] for i in sources), n)
        width.update({f"{layer['name']}.{u['name']}": u["hidden"][-1] for u in layer["units"]})
    for task in config[0]["network"]["tasks"]:
        sides = [width[task["input"]], *task["tower"]]
        for n_in, n_out in zip(sides, sides[1:]):
            add(n_in, n_out)
    return [(k, n, times) for (k, n), times in count.items()]


def flops(shapes):
    return sum(2 * k * n * times for k, n, times in shapes)


def limit_ns(core, binaries, precision, shapes, milliseconds):
    """Nanoseconds a row takes in the products alone, or None where the CPU has no such products."""
    text = "".join(f"{k} {n}\n" for k, n, _ in shapes)
    done = subprocess.run(["taskset", "-c", str(core), str(binaries / "gemm_limit"), precision, str(milliseconds)],
                          input=text, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.split("\n")[: len(shapes)]
    if any(line == "unsupported" for line in lines):
        return None
    return sum(float(line.split()[0]) * times for line, (_, _, times) in zip(lines, shapes))


def check_agreement(ours, peers, folder):
    """The peers compute the same function: largest difference of the logits of 64 rows, by kind."""
    v, found, want = folder / "v", folder / "ours", folder / "peer"
    ours.ask(f"vectors 64 {v}")
    ours.ask(f"logits f32 64 {found}")
    out = {}
    for kind, peer in peers.items():
        peer.ask(f"logits {kind} 64 {v} {want}")
        a, b = np.fromfile(found, np.float32), np.fromfile(want, np.float32)
        out[kind] = float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b))))
        if a.shape != b.shape or not out[kind] <= (5e-2 if kind == "bf16" else 1e-4):
            sys.exit(f"bench: logits differ from the peer's ({kind}) by {out[kind]:.2g}")
    return out


def has_bf16():
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def onnx_runtime(args, torch_peer, folder):
    """ONNX Runtime on the same network, or (None, why not)."""
    interpreter, why = scratch.python_with("onnxruntime")
    if interpreter is None:
        return None, why
    width = torch_peer.ask(f"export {folder / 'base.onnx'}")
    return Program(args.core, interpreter, HERE / "peers" / "onnx_forward.py", folder / "base.onnx", width), ""


def measure(args, ours, peers, shapes):
    """{(column, B): [items per CPU second, a round each]}, and the limits' {precision: [...]}."""
    speed, limits = {}, {}
    for done in range(args.rounds):
        for precision in ("f32", "bf16"):
            ns = limit_ns(args.core, args.binaries, precision, shapes, 2 if args.quick else 10)
            if ns:
                limits.setdefault(precision, []).append(1e9 / ns)
        for n_rows in args.sizes:
            for precision in ("f32", "bf16"):
                ns = int(ours.ask(f"run {precision} {n_rows} {args.milliseconds}"))
                speed.setdefault(("ours " + precision, n_rows), []).append(n_rows * 1e9 / ns)
            for kind, peer in peers.items():
                ns = int(peer.ask(f"run {kind} {n_rows} {args.milliseconds}"))
                speed.setdefault((kind, n_rows), []).append(n_rows * 1e9 / ns)
        print(f"round {done + 1} of {args.rounds}", file=sys.stderr)
    return speed, limits


def table(args, median, kinds):
    """The lines of all figures; the best f32 peer of PyTorch's stands for PyTorch."""
    torch = [k for k in kinds if k not in ("bf16", "onnx")]
    head = ["B", "ours f32", "ours bf16", *["ONNX Runtime" if k == "onnx" else f"PyTorch {k}" for k in kinds],
            "f32 / best PyTorch f32", *(["f32 / ONNX Runtime"] if "onnx" in kinds else []),
            *(["bf16 / PyTorch bf16"] if "bf16" in kinds else []), "bf16 / f32"]
    rows = []
    for n in args.sizes:
        ratios = [median["ours f32", n] / max(median[k, n] for k in torch)]
        ratios += [median["ours f32", n] / median["onnx", n]] if "onnx" in kinds else []
        ratios += [median["ours bf16", n] / median["bf16", n]] if "bf16" in kinds else []
        ratios.append(median["ours bf16", n] / median["ours f32", n])
        rows.append([n, *[f"{median[c, n]:,.0f}" for c in ("ours f32", "ours bf16", *kinds)],
                     *[f"{r:.2f}" for r in ratios]])
    return results.table(head, rows)


def limit_table(limits, median, shapes, n):
    rows = []
    for precision in ("f32", "bf16"):
        ours = median["ours " + precision, n]
        if precision in limits:
            limit = statistics.median(limits[precision])
            rows.append([precision, f"{ours:,.0f}", f"{limit:,.0f}", f"{limit * flops(shapes) / 1e9:,.0f}",
                         f"{ours / limit:.1%}"])
        else:
            rows.append([precision, f"{ours:,.0f}", "none on this CPU", "", ""])
    return results.table(["precision", "ours, items/s", "limit, items/s", "limit, GFLOP/s", "ours / limit"], rows)


def goals(limits, median, kinds, n):
    """What BENCH asks for, and what came of it."""
    torch = [k for k in kinds if k not in ("bf16", "onnx")]

    def row(what, ratio, goal):
        return [what, "not measured" if ratio is None else f"{ratio:.2f}", f"≥ {goal}",
                "skipped" if ratio is None else "met" if ratio >= goal else "MISSED"]

    def limit(precision):
        return median["ours " + precision, n] / statistics.median(limits[precision]) if precision in limits else None

    def best(size):
        return median["ours f32", size] / max(median[k, size] for k in torch)

    return results.table(["", "ratio", "goal", ""], [
        row(f"f32 / PyTorch f32, B = {n}", best(n), 1.4), row("f32 / PyTorch f32, B = 1", best(1), 2),
        row(f"f32 / ONNX Runtime, B = {n}", median["ours f32", n] / median["onnx", n] if "onnx" in kinds else None, 1.3),
        row(f"f32 / limit, B = {n}", limit("f32"), 0.8), row(f"bf16 / limit, B = {n}", limit("bf16"), 0.8)])


def report(args, speed, limits, kinds, shapes, engines, agreement):
    median = {key: statistics.median(values) for key, values in speed.items()}
    out = [f"Workload `base`, {flops(shapes) / 1e6:.1f} MFLOP an item in matrix products; every 512 items are a "
           f"request. Items per second of CPU time, one thread, medians of {args.rounds} rounds in turn.", "",
           *[f"- {line}" for line in engines],
           "- ours starts from encoded rows and looks embeddings up; the peers start from the feature vector",
           "- largest difference of logits from the peers': "
           + ", ".join(f"{k} {d:.1g}" for k, d in agreement.items())]
    if "bf16" not in kinds:
        out.append("- PyTorch bf16: skipped, this CPU has neither AVX512-bf16 nor AMX; ours then multiplies in f32")
    biggest = 512 if 512 in args.sizes else args.sizes[-1]
    return [*out, "", *table(args, median, kinds), "",
            f"The limit, the same products alone in oneDNN (best primitive and rows for each shape), B = {biggest}:",
            "", *limit_table(limits, median, shapes, biggest), "", "Goals:", "", *goals(limits, median, kinds, biggest)]


def main():
    parser = argparse.ArgumentParser(prog="bench/run forward")
    parser.add_argument("--quick", action="store_true", help="three batch sizes, short runs; writes no results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--milliseconds", type=int, default=0, help="of one measurement (default 500, quick 200)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--binaries", type=Path, required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.sizes = QUICK_SIZES if args.quick else SIZES
    args.milliseconds = args.milliseconds or (200 if args.quick else 500)
    load_before = os.getloadavg()

    with tempfile.TemporaryDirectory(prefix="homerank-bench-") as made:
        folder = Path(made)
        workload.write("base", folder / "base")
        ours = Program(args.core, args.binaries / "forward", folder / "base")
        torch = Program(args.core, PYTHON, HERE / "torch_forward.py", folder / "base")
        peers = {kind: torch for kind in ("eager", "traced", "optimized", *(["bf16"] if has_bf16() else []))}
        engines = [f"ours: {ours.ask(f'engine {p}')}" for p in ("f32", "bf16")]
        engines.append(f"PyTorch {torch.ask('engine eager')}: eager, traced + frozen, "
                       "optimized (traced + frozen + optimize_for_inference)")
        onnx, why = onnx_runtime(args, torch, folder)
        engines.append(f"ONNX Runtime {onnx.ask('engine onnx')}" if onnx else f"ONNX Runtime: skipped, {why}")
        if onnx:
            peers["onnx"] = onnx
        agreement = check_agreement(ours, peers, folder)
        shapes = products(workload.config("base"))
        speed, limits = measure(args, ours, peers, shapes)
        for program in {ours, torch, onnx} - {None}:
            program.close()
    out = report(args, speed, limits, list(peers), shapes, engines, agreement)
    print("\n".join(out))
    if not args.quick:
        options = [a for i, a in enumerate(sys.argv[1:]) if "--binaries" not in (a, sys.argv[i])]
        results.write("forward", " ".join(["bench/run forward", *options]), out, load_before)


if __name__ == "__main__":
    main()
