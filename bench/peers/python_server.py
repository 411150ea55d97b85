"""The end-to-end peer: what a team builds in Python for the same task, done with care.

    python_server.py MODEL_DIR REDIS_HOST:PORT [--precision f32|bf16] [--threads N]

serves homerank.v1.Ranker/Rank on a free port of 127.0.0.1 (its first line says "listening PORT") with python3-grpcio,
redis-py and PyTorch: one MGET a request; the network traced, frozen and warmed; the embeddings of all rows in one lookup
a table; requests that wait are run as one batch.

It has it easier than homerank: the records it reads were encoded beforehand (`--encode RECORDS` writes them to Redis from
the same lines of `features load`): table rows and floats in one flat block a record, to be joined and viewed by NumPy.
"""

import argparse
import concurrent.futures
import ctypes
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import redis
import torch
import xxhash

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import torch_forward  # pylint: disable=wrong-import-position

MAX_BATCH_ROWS = 1024
PREFIX = "py"


def generated():
    """The messages' module, made by protoc."""
    folder = tempfile.mkdtemp(prefix="homerank-peer-")
    subprocess.run(["protoc", f"--proto_path={HERE.parent.parent / 'proto'}", f"--python_out={folder}", "homerank.proto"],
                   check=True)
    sys.path.insert(0, folder)
    import homerank_pb2  # pylint: disable=import-outside-toplevel
    return homerank_pb2


class Encoding:
    """Where the features of one entity lie in a flat row: int32 table rows first, then float32 values."""

    def __init__(self, config, entity):
        self.config, self.entity = config, entity
        self.features = [f for f in config["features"] if f["entity"] == entity]
        self.n_index = sum(self.slots(f) for f in self.features if "table" in f)
        self.n_dense = sum(self.slots(f) for f in self.features if "table" not in f)

    @staticmethod
    def slots(feature):
        kind = feature["kind"]
        return {"ids": lambda: feature["max_length"] + 1, "numbers": lambda: feature["length"]}.get(kind, lambda: 1)()

    def row_of(self, feature, text):
        table = self.config["tables"][feature["table"]]
        if table["index"] == "hash":
            return 1 + xxhash.xxh64_intdigest(text.encode()) % (table["rows"] - 1)
        return int(text) + 1 if text.isdigit() and int(text) < table["rows"] - 1 else 0

    def index_of(self, feature, value):
        if feature["kind"] == "bucket":
            return [0 if value is None else 1 + sum(b <= float(value) for b in feature["boundaries"])]
        if feature["kind"] == "id":
            return [0 if value is None else self.row_of(feature, str(value))]
        rows = [self.row_of(feature, str(v)) for v in (value or [])[: feature["max_length"]]]
        return [len(rows), *rows, *[0] * (feature["max_length"] - len(rows))]

    @staticmethod
    def dense_of(feature, value):
        if feature["kind"] == "numbers":
            return value if value is not None else [0.0] * feature["length"]
        if value is None:
            return [0.0]
        value = np.log1p(value) if feature.get("log1p") else value
        return [(value - feature.get("mean", 0)) / feature.get("std", 1)]

    def encode(self, identity, values):
        """One record as bytes."""
        index, dense = [], []
        for f in self.features:
            field = f.get("field", f["name"])
            value = identity if field in ("user_id", "item_id") else values.get(field)
            if "table" in f:
                index += self.index_of(f, value)
            else:
                dense += self.dense_of(f, value)
        return np.array(index, np.int32).tobytes() + np.array(dense, np.float32).tobytes()

    def view(self, blob, n):
        """(n, n_index) int32 and (n, n_dense) float32 of n records' bytes."""
        words = np.frombuffer(blob, np.int32).reshape(n, self.n_index + self.n_dense)
        return words[:, : self.n_index], words[:, self.n_index:].view(np.float32)


class Ranker:
    """Encoded rows to logits."""

    def __init__(self, folder, precision):
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        tensors = torch_forward.read_safetensors(Path(folder) / "model.safetensors")
        self.tables = {t: tensors[f"embedding.{t}.weight"] for t in self.config["tables"]}
        self.encodings = {e: Encoding(self.config, e) for e in ("user", "item", "context")}
        self.tasks = [t["name"] for t in self.config["network"]["tasks"]]
        weights = self.config["fusion"]["weights"]
        self.weights = torch.tensor([weights.get(t, 0.0) for t in self.tasks])
        self.bf16 = precision == "bf16"
        network = torch_forward.Network(folder).eval()
        width = network.layers[0][0].experts[0].layers[0].in_features
        with self.autocast():
            self.network = torch.jit.freeze(torch.jit.trace(network, torch.zeros(500, width), check_trace=False))
        for _ in range(3):
            self.probabilities(torch.zeros(500, width))

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False)

    def vector(self, user, context, items, n):
        """v (n, D): the user's and the context's part computed once."""
        parts, at = [], {e: [0, 0] for e in self.encodings}
        rows = {"user": user, "item": items, "context": context}
        for f in self.config["features"]:
            encoding, place = self.encodings[f["entity"]], at[f["entity"]]
            slots = encoding.slots(f)
            index, dense = rows[f["entity"]]
            if "table" in f:
                part = self.look_up(f, torch.from_numpy(index[:, place[0]: place[0] + slots].copy()).long())
                place[0] += slots
            else:
                part = torch.from_numpy(dense[:, place[1]: place[1] + slots].copy())
                place[1] += slots
            parts.append(part.expand(n, -1))
        return torch.cat(parts, dim=1)

    def look_up(self, feature, index):
        table = self.tables[feature["table"]]
        if feature["kind"] != "ids":
            return table[index[:, 0]]
        count = index[:, :1]
        kept = torch.arange(index.shape[1] - 1)[None, :] < count
        pooled = (table[index[:, 1:]] * kept[:, :, None]).sum(dim=1)
        return pooled / count.clamp(min=1) if feature.get("pool", "mean") == "mean" else pooled

    def probabilities(self, v):
        with self.autocast():
            return torch.sigmoid(self.network(v).float())


class Batcher(threading.Thread):
    """Runs what waits as one batch; one thread."""

    def __init__(self, ranker):
        super().__init__(daemon=True)
        self.ranker, self.waiting = ranker, queue.SimpleQueue()

    def submit(self, v):
        future = concurrent.futures.Future()
        self.waiting.put((v, future))
        return future

    def run(self):
        torch.set_grad_enabled(False)
        held = None
        while True:
            batch, n = [held or self.waiting.get()], 0
            held, n = None, len(batch[0][0])
            while n < MAX_BATCH_ROWS and not self.waiting.empty():
                v, future = self.waiting.get()
                if n + len(v) > MAX_BATCH_ROWS:
                    held = (v, future)
                    break
                batch.append((v, future))
                n += len(v)
            begun = time.monotonic()
            p = self.ranker.probabilities(torch.cat([v for v, _ in batch]) if len(batch) > 1 else batch[0][0])
            seconds, first = time.monotonic() - begun, 0
            for v, future in batch:
                future.set_result((p[first: first + len(v)], seconds))
                first += len(v)


class Service:
    def __init__(self, ranker, store, pb):
        self.ranker, self.store, self.pb = ranker, store, pb
        self.batcher = Batcher(ranker)
        self.batcher.start()

    def rank(self, request, context):
        del context
        torch.set_grad_enabled(False)
        begun = time.monotonic()
        encodings, n = self.ranker.encodings, len(request.item_ids)
        records = self.store.mget([f"{PREFIX}:user:{request.user_id}", *[f"{PREFIX}:item:{i}" for i in request.item_ids]])
        blanks = [encodings[e].encode(i, {}) for e, i in (("user", request.user_id), ("item", ""))]
        user = encodings["user"].view(records[0] or blanks[0], 1)
        items = encodings["item"].view(b"".join(r or blanks[1] for r in records[1:]), n)
        given = {k: getattr(v, v.WhichOneof("kind")) for k, v in request.context.items() if v.WhichOneof("kind")}
        given = {k: v if isinstance(v, (str, float)) else list(v.values) for k, v in given.items()}
        row = encodings["context"].view(encodings["context"].encode("", given), 1)
        v = self.ranker.vector(user, row, items, n)
        features_s = time.monotonic() - begun
        p, model_s = self.batcher.submit(v).result()
        return self.answer(request, p, begun, features_s, model_s)

    def answer(self, request, p, begun, features_s, model_s):
        scores = p @ self.ranker.weights
        order = torch.argsort(scores, descending=True, stable=True)
        response = self.pb.RankResponse(request_id=request.request_id, model="peer@1",
                                        item_ids=[request.item_ids[i] for i in order.tolist()],
                                        scores=scores[order].tolist(), tasks=self.ranker.tasks,
                                        task_scores=p[order].flatten().tolist())
        total_s = time.monotonic() - begun
        response.timing.features_us, response.timing.model_us = int(features_s * 1e6), int(model_s * 1e6)
        response.timing.total_us = int(total_s * 1e6)
        response.timing.queue_us = int(max(0, total_s - features_s - model_s) * 1e6)
        return response


def encode_records(store, folder, path):
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    encodings = {e: Encoding(config, e) for e in ("user", "item")}
    pipe = store.pipeline(transaction=False)
    with open(path, encoding="utf-8") as lines:
        for n, line in enumerate(lines):
            record = json.loads(line)
            blob = encodings[record["entity"]].encode(record["id"], record["features"])
            pipe.set(f"{PREFIX}:{record['entity']}:{record['id']}", blob)
            if n % 1000 == 999:
                pipe.execute()
    pipe.execute()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("redis")
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--encode", metavar="RECORDS", help="write the records to Redis, and no more")
    args = parser.parse_args()
    host, port = args.redis.rsplit(":", 1)
    store = redis.Redis(host=host, port=int(port))
    if args.encode:
        encode_records(store, args.model, args.encode)
        return
    ctypes.CDLL(None).prctl(1, 15)  # end with the parent
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    pb = generated()
    service = Service(Ranker(args.model, args.precision), store, pb)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=8))
    rank = grpc.unary_unary_rpc_method_handler(service.rank, request_deserializer=pb.RankRequest.FromString,
                                               response_serializer=pb.RankResponse.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("homerank.v1.Ranker", {"Rank": rank}),))
    bound = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening {bound}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
