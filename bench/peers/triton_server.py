"""A peer: the network behind Triton, as NVIDIA packs it for PyPI (nvidia-pytriton), run by ONNX Runtime.

    triton_server.py MODEL.onnx D T THREADS

serves the model `base` (v (rows, D) -> logits (rows, T)) on free ports, with Triton's dynamic batching, and prints
"listening PORT" of its gRPC. It has no feature store: callers send the feature vectors, ready made.
"""

import signal
import socket
import sys
import threading

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MAX_BATCH_ROWS = 1024


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main():
    path, width, n_tasks, threads = sys.argv[1], *map(int, sys.argv[2:5])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @batch
    def infer(v):
        return session.run(None, {"v": v})

    http, grpc, metrics = free_ports(3)
    triton = Triton(config=TritonConfig(http_address="127.0.0.1", http_port=http, grpc_address="127.0.0.1", grpc_port=grpc,
                                        metrics_port=metrics))
    triton.bind(model_name="base", infer_func=infer, inputs=[Tensor(name="v", dtype=np.float32, shape=(width,))],
                outputs=[Tensor(name="logits", dtype=np.float32, shape=(n_tasks,))],
                config=ModelConfig(max_batch_size=MAX_BATCH_ROWS, batcher=DynamicBatcher()))
    triton.run()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    print(f"listening {grpc}", flush=True)
    ended.wait()
    triton.stop()


if __name__ == "__main__":
    main()
