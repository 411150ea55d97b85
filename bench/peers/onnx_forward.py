"""The peer: ONNX Runtime running the network that torch_forward.py exported, driven as bench/forward.c is.

    onnx_forward.py MODEL.onnx D

reads commands, a line each, and answers each with a line:

    engine KIND                 answers ONNX Runtime's version
    run KIND B MILLISECONDS     the median CPU nanoseconds of one forward pass of B rows
    logits KIND B IN OUT        reads v (B, D) from IN, writes the logits (B, T) to OUT, both f32

KIND: onnx. One thread, all graph optimizations.
"""

import sys
import time

import numpy as np
import onnxruntime

N_SETS, WARM_UP = 4, 3


class Peer:
    def __init__(self, path, width):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.width = width

    def forward(self, v):
        return self.session.run(None, {"v": v})[0]

    def run(self, n_rows, milliseconds):
        rng = np.random.default_rng(n_rows)
        sets = [rng.standard_normal((n_rows, self.width), dtype=np.float32) for _ in range(N_SETS)]
        for v in sets[:WARM_UP]:
            self.forward(v)
        samples, end = [], time.monotonic() + milliseconds / 1e3
        while not samples or time.monotonic() < end:
            start = time.process_time_ns()
            self.forward(sets[len(samples) % N_SETS])
            samples.append(time.process_time_ns() - start)
        return sorted(samples)[len(samples) // 2]


def main():
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        verb, _, *args = line.split()
        answer = "ok"
        if verb == "engine":
            answer = onnxruntime.__version__
        elif verb == "run":
            answer = str(peer.run(int(args[0]), int(args[1])))
        elif verb == "logits":
            peer.forward(np.fromfile(args[1], np.float32).reshape(int(args[0]), peer.width)).tofile(args[2])
        else:
            sys.exit(f"onnx_forward.py: expected a command, found {line!r}")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
