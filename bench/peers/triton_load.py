"""Load for triton_server.py, in the words of `homerank load`: prints its report's one phase as JSON.

    triton_load.py PORT D ROWS SECONDS (--in-flight N | --rate R) [--seed S]

A second of warm-up. Open loop: the very arrivals of `homerank load` (queue_sim.py), from a thread that waits for no
answer; latencies count from the time at which a call was to be sent.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import queue_sim  # pylint: disable=wrong-import-position

N_SETS, WARM_S = 4, 1


class Load:
    def __init__(self, port, width, rows):
        self.client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        self.inputs = []
        for s in range(N_SETS):
            v = triton.InferInput("v", [rows, width], "FP32")
            v.set_data_from_numpy(np.random.default_rng(s).standard_normal((rows, width), dtype=np.float32))
            self.inputs.append(v)
        self.lock, self.changed = threading.Lock(), threading.Condition()
        self.in_flight, self.n_sent, self.latencies, self.failed = 0, 0, [], 0

    def send(self, intended):
        with self.changed:
            self.in_flight += 1
            self.n_sent += 1
        self.client.async_infer("base", [self.inputs[self.n_sent % N_SETS]],
                                lambda result, error: self.done(intended, error))

    def done(self, intended, error):
        now = time.monotonic()
        with self.changed:
            self.latencies.append((intended, now))
            self.failed += error is not None
            self.in_flight -= 1
            self.changed.notify_all()

    def closed(self, n, end):
        while time.monotonic() < end:
            with self.changed:
                self.changed.wait_for(lambda: self.in_flight < n)
            self.send(time.monotonic())

    def open(self, begin, times):
        for at in times:
            time.sleep(max(0, begin + at - time.monotonic()))
            self.send(begin + at)

    def drain(self):
        with self.changed:
            self.changed.wait_for(lambda: self.in_flight == 0)


def main():
    parser = argparse.ArgumentParser()
    for name, kind in (("port", int), ("width", int), ("rows", int), ("seconds", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--in-flight", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    load = Load(args.port, args.width, args.rows)
    begin = time.monotonic()
    if args.in_flight:
        load.closed(args.in_flight, begin + WARM_S + args.seconds)
    else:
        phases = queue_sim.arrivals(args.seed, [(args.rate, WARM_S), (args.rate, args.seconds)])
        load.open(begin, [at for times in phases for at in times])
    load.drain()
    seen = [(i, e) for i, e in load.latencies if begin + WARM_S <= i < begin + WARM_S + args.seconds]
    values = [(e - i) * 1e6 for i, e in seen]
    print(json.dumps({"sent": len(seen), "answered": len(seen) - load.failed, "answers_per_s": len(seen) / args.seconds,
                      "latency_us": {"p50": queue_sim.percentile(values, 0.5), "p99": queue_sim.percentile(values, 0.99)}}))


if __name__ == "__main__":
    main()
