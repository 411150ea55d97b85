"""The forward pass on a GPU beside PyTorch, same weights, same run: tools/gpu_check.sh calls it.

    gpu_forward.py --binary PROGRAM [--workloads base,large] [--sizes 64,512,8192] [--compiled base:512,base:8192]
                   [--seconds 400]

Prints Markdown. Ours is measured twice: on the device, from encoded rows to logits, pass after pass in a CUDA graph; and
from encoded rows in host memory to logits in host memory, one pass at a time, copies and waits included. PyTorch is
measured on the device from the feature vector to logits, so that it has less to do than either. The peers: eager; eager
in a CUDA graph; torch.compile (max-autotune, which uses CUDA graphs) where --compiled says so: tuning takes minutes a
size. Peers run in bf16 with their towers in f32, as ours.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import plain_plan
import torch_forward
import workload
from forward import flops, products


class Ours:
    def __init__(self, binary, plan):
        self.process = subprocess.Popen([binary, plan], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"gpu_forward.py: no answer to {command!r}")
        return answer


class Mixed(torch.nn.Module):
    """The network with everything but the towers in bf16."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        network.layers.to(torch.bfloat16)

    def forward(self, v):
        net, values = self.network, {"features": v.to(torch.bfloat16)}
        for name, units in zip(net.layer_names, net.layers):
            experts = {u.name: u.run_experts(values) for u in units}
            values.update({f"{name}.{u.name}": u.run_mix(values, experts) for u in units if u.mixes})
        return torch.cat([tower(values[i].float()) for tower, i in zip(net.towers, net.task_inputs)], dim=1)


def median_ns(run, seconds=0.5):
    """The median of many runs, each between two events of the device."""
    for _ in range(10):
        run()
    torch.cuda.synchronize()
    samples, end = [], time.monotonic() + seconds
    while len(samples) < 20 or (time.monotonic() < end and len(samples) < 5000):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        samples.append(start.elapsed_time(stop) * 1e6)
    return statistics.median(samples)


def graphed(network, v):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(v)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(v)
    return graph.replay


def ceilings():
    """This device's bf16 rate (FLOP/s) and bandwidth (bytes/s), as measured."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(1 << 28, device="cuda")
    y = torch.empty_like(x)
    rate = 2 * 8192**3 / median_ns(lambda: torch.mm(a, b)) * 1e9
    return rate, 2 * x.nbytes / median_ns(lambda: y.copy_(x)) * 1e9


def roofline_ns(config, shapes, n_rows, rate, bandwidth):
    """The larger of arithmetic over rate, and of weights once and v once over bandwidth."""
    weights = 2 * sum(k * n * times for k, n, times in shapes)
    return max(flops(shapes) * n_rows / rate, (weights + 4 * n_rows * config[1]) / bandwidth) * 1e9


def peers_of(folder, n_rows, width, compiled):
    network = torch_forward.Network(folder).eval().cuda()
    mixed = Mixed(network)
    v = torch.randn(n_rows, width, device="cuda")
    out = {"eager": lambda: mixed(v), "graph": graphed(mixed, v)}
    if compiled:
        tuned = torch.compile(mixed, mode="max-autotune")
        out["compiled"] = lambda: tuned(v)
    return out


def agreement(ours, folder, scratch, width):
    """Ours and PyTorch on 64 rows of one input set: the largest difference of their logits, by precision."""
    v, found = Path(scratch) / "v", Path(scratch) / "logits"
    ours.ask(f"vectors 64 {v}")
    network = torch_forward.Network(folder).eval().double()
    want = network(torch.from_numpy(np.fromfile(v, np.float32).reshape(64, width)).double()).numpy()
    out = {}
    for precision in ("f32", "bf16"):
        ours.ask(f"logits {precision} 64 {found}")
        z = np.fromfile(found, np.float32).reshape(want.shape)
        out[precision] = float(np.max(np.abs(z - want) / np.maximum(1, np.abs(want))))
    return out


def measure_workload(args, name, rate, bandwidth, scratch, deadline):
    folder = Path(scratch) / name
    workload.write(name, folder)
    plain_plan.write(folder, folder / "plan")
    config = workload.config(name)
    shapes = products(config)
    ours = Ours(args.binary, folder / "plan")
    print(f"\n### {name}: {flops(shapes) / 1e6:.1f} MFLOP an item\n\n- {ours.ask('engine bf16')}")
    far = agreement(ours, folder, scratch, config[1])
    print(f"- largest difference of logits from PyTorch in f64: f32 {far['f32']:.2g}, bf16 {far['bf16']:.2g}")
    if not (far["f32"] <= 1e-4 and far["bf16"] <= 5e-2):
        print("- FAILED: out of MODEL.md 5's bounds")
    print("\n| B | device, µs | roofline | host to host, µs | items/s | eager, µs | graph, µs | compiled, µs "
          "| best peer / device | best peer / host to host |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for n_rows in args.sizes:
        if time.monotonic() > deadline:
            print("\nThe rest was left out: the time was up.")
            break
        device, ns = float(ours.ask(f"device bf16 {n_rows}")), float(ours.ask(f"run bf16 {n_rows} 500"))
        compiled = f"{name}:{n_rows}" in args.compiled
        peers = {kind: median_ns(run) for kind, run in peers_of(folder, n_rows, config[1], compiled).items()}
        torch._dynamo.reset()
        cells = [f"{peers[k] / 1e3:.1f}" if k in peers else "" for k in ("eager", "graph", "compiled")]
        best = min(peers.values())
        print(f"| {n_rows} | {device / 1e3:.1f} "
              f"| {roofline_ns(config, shapes, n_rows, rate, bandwidth) / device:.0%} "
              f"| {ns / 1e3:.1f} | {n_rows / ns * 1e9:,.0f} | {' | '.join(cells)} "
              f"| {best / device:.2f} | {best / ns:.2f} |", flush=True)
    for n_rows in (512, 8192):
        print(f"\nLaunches at B = {n_rows}, ns: {ours.ask(f'stages bf16 {n_rows}')}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--workloads", default="base,large")
    parser.add_argument("--sizes", default="64,256,512,1024,4096,8192")
    parser.add_argument("--compiled", default="", type=lambda text: text.split(","))
    parser.add_argument("--seconds", type=float, default=400, help="no further size is begun after these")
    args = parser.parse_args()
    args.sizes = [int(n) for n in args.sizes.split(",")]
    deadline = time.monotonic() + args.seconds
    torch.set_grad_enabled(False)
    rate, bandwidth = ceilings()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; measured: {rate / 1e12:.0f} TFLOP/s bf16, "
          f"{bandwidth / 1e12:.2f} TB/s")
    with tempfile.TemporaryDirectory(prefix="homerank-gpu-") as scratch:
        for name in args.workloads.split(","):
            measure_workload(args, name, rate, bandwidth, scratch, deadline)


if __name__ == "__main__":
    main()
