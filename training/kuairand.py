#!/usr/bin/python3
"""Train, evaluate and replay models on KuaiRand (docs/training.md).

    kuairand.py prepare  --data DIR --out DIR
    kuairand.py train    --data DIR --days A..B [--valid DAY] --model KIND --seed N --out MODELDIR
    kuairand.py evaluate --model MODELDIR --data DIR --days A..B
    kuairand.py replay   --target HOST:PORT --data DIR --days A..B
    kuairand.py requests --data DIR --days A..B --out FILE

Days are YYYYMMDD. `prepare` reads KuaiRand's files; the others read what it wrote.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training import builders, export, kuairand_data, metrics, trainer  # noqa: E402
from training.encoder import Encoder  # noqa: E402
from training.network import Network  # noqa: E402

FUSION = {"kind": "weighted_sum", "weights": {"click": 1.0, "long_view": 1.0, "like": 8.0, "profile_enter": 4.0,
                                              "comment": 8.0, "follow": 8.0, "forward": 8.0}}


def days(text):
    first, _, last = text.partition("..")
    for day in (first, last or first):
        if len(day) != 8 or not day.isdigit():
            raise argparse.ArgumentTypeError(f"expected YYYYMMDD or YYYYMMDD..YYYYMMDD, found {text!r}")
    return int(first), int(last or first)


def read_records(folder):
    users, items = {}, {}
    with open(Path(folder) / "records.jsonl") as file:
        for line in file:
            record = json.loads(line)
            (users if record["entity"] == "user" else items)[record["id"]] = record["features"]
    return users, items


def make_columns(config, folder):
    users, items = read_records(folder)
    return trainer.Columns(Encoder(config), users, items)


def make_dataset(columns, impressions):
    contexts = [{"tab": int(tab), "hour": int(hour)} for tab, hour in zip(impressions.tab, impressions.hour)]
    return trainer.Dataset(columns, map(str, impressions.user), map(str, impressions.video), contexts,
                           impressions.labels)


def make_config(kind, id_dim):
    config = {"format": "homerank/1", "description": f"{kind} trained on KuaiRand-Pure",
              **kuairand_data.features_config(id_dim)}
    width = sum(f.get("length", 1) if f["kind"] in ("number", "numbers") else config["tables"][f["table"]]["dim"]
                for f in config["features"])
    config["network"] = builders.KINDS[kind](kuairand_data.GROUPS, width)
    config["fusion"] = FUSION
    return config


def print_figures(impressions, scores):
    """One row a task: positives, AUC, GAUC."""
    print(f"{'task':<14}{'positives':>10}{'AUC':>9}{'GAUC':>9}")
    for t, task in enumerate(kuairand_data.TASKS):
        labels = impressions.labels[:, t]
        print(f"{task:<14}{int(labels.sum()):>10}{metrics.auc(labels, scores[:, t]):>9.5f}"
              f"{metrics.gauc(labels, scores[:, t], impressions.user):>9.5f}")


def verify_requests(folder, seed):
    users, items = read_records(folder)
    videos = sorted(items)

    def long_lists(rng):
        lists = {name: [int(v) for v in rng.choice(videos, 200)] for name in ("history", "long_history", "like_history")}
        return {**lists, "long_tags": [int(t) for t in rng.integers(80, size=150)]}

    def context(rng):
        return {"tab": int(rng.integers(15)), "hour": int(rng.integers(24))}

    return export.verify_requests(users, items, context, long_lists, seed)


def command_prepare(options):
    n_records, n_impressions = kuairand_data.prepare(options.data, options.out)
    print(f"{n_records} records and {n_impressions} impressions written to {options.out}")


def command_train(options):
    torch.manual_seed(options.seed)
    config = make_config(options.model, options.id_dim)
    columns = make_columns(config, options.data)
    dataset = make_dataset(columns, kuairand_data.Impressions(options.data, *options.days))
    if len(dataset) < options.batch_size:
        raise SystemExit(f"kuairand: expected at least {options.batch_size} impressions on those days, found {len(dataset)}")
    validate = None
    if options.valid:
        held_out = kuairand_data.Impressions(options.data, *options.valid)
        valid_set = make_dataset(columns, held_out)

        def validate(model):
            scores = trainer.predict(model, valid_set)
            figures = [metrics.auc(held_out.labels[:, t], scores[:, t]) for t in range(4)]
            print("valid AUC " + " ".join(f"{n} {x:.4f}" for n, x in zip(kuairand_data.TASKS, figures)))
            return float(np.mean(figures))

    model = Network(config)
    n_embedding = sum(p.numel() for p in model.embedding.parameters())
    n_network = sum(p.numel() for p in model.parameters()) - n_embedding
    print(f"{options.model}: {n_network} network and {n_embedding} embedding parameters, {len(dataset)} impressions")
    trainer.train(model, dataset, options, validate)
    export.export(model, config, columns.encoder, verify_requests(options.data, options.seed), options.out)
    print(f"model written to {options.out}")


def command_evaluate(options):
    model, config = export.load(Network, options.model)
    impressions = kuairand_data.Impressions(options.data, *options.days)
    dataset = make_dataset(make_columns(config, options.data), impressions)
    scores = trainer.predict(model, dataset)
    if options.scores:
        np.save(options.scores, scores)
    print_figures(impressions, scores)


def replay_requests(impressions):
    """One request per user, hour and tab, with the rows of `impressions` that it stands for."""
    keys = list(zip(impressions.user, impressions.date, impressions.hour, impressions.tab))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for key, rows in itertools.groupby(order, key=keys.__getitem__):
        user, date, hour, tab = map(int, key)
        rows = list(rows)
        request = {"request_id": f"{date}-{user}-{hour}-{tab}", "user_id": str(user),
                   "items": [str(impressions.video[r]) for r in rows], "context": {"tab": tab, "hour": hour}}
        yield rows, request


def command_replay(options):
    subprocess.run([ROOT / "clients" / "python" / "build.sh"], check=True)
    sys.path.insert(0, str(ROOT / "clients" / "python" / "build"))
    import homerank

    impressions = kuairand_data.Impressions(options.data, *options.days)
    scores = np.full(impressions.labels.shape, np.nan)
    client = homerank.connect(options.target)
    for rows, request in trainer.tqdm(list(replay_requests(impressions)), disable=None, unit="request"):
        answered = {row.item_id: row.tasks for row in client.rank(**request, model=options.model).rows}
        for r, item in zip(rows, request["items"]):
            scores[r] = [answered[item][task] for task in kuairand_data.TASKS]
    print_figures(impressions, scores)


def command_requests(options):
    impressions = kuairand_data.Impressions(options.data, *options.days)
    with open(options.out, "w") as file:
        for _, request in replay_requests(impressions):
            request["item_ids"] = request.pop("items")
            file.write(json.dumps(request) + "\n")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="KuaiRand's files to records and impressions")
    prepare.add_argument("--data", required=True, help="folder of log_*.csv.gz, users, videos, user_sequences")
    prepare.add_argument("--out", required=True)

    train = commands.add_parser("train", help="train and export a model")
    train.add_argument("--data", required=True, help="what prepare wrote")
    train.add_argument("--days", type=days, required=True)
    train.add_argument("--valid", type=days)
    train.add_argument("--model", choices=sorted(builders.KINDS), default="home")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--out", required=True)
    train.add_argument("--epochs", type=int, default=1)
    train.add_argument("--batch-size", type=int, default=512)
    train.add_argument("--rate", type=float, default=2e-3, help="of the network")
    train.add_argument("--embedding-rate", type=float, default=1e-2)
    train.add_argument("--decay", type=float, default=1e-2)
    train.add_argument("--embedding-decay", type=float, default=1e-2)
    train.add_argument("--final-rate", type=float, default=0.0, help="share of the rates that the last step has")
    train.add_argument("--id-dim", type=int, default=32, help="width of the user, video and author embeddings")
    train.add_argument("--weights", type=float, nargs=7, default=[1.0] * 7, help="of the tasks' losses")
    train.add_argument("--in-order", dest="shuffle", action="store_false", help="impressions by time, not shuffled")

    evaluate = commands.add_parser("evaluate", help="AUC and GAUC of a model folder")
    evaluate.add_argument("--model", required=True)
    evaluate.add_argument("--data", required=True)
    evaluate.add_argument("--days", type=days, required=True)
    evaluate.add_argument("--scores", help="also save the logits (n, T) as this .npy file")

    replay = commands.add_parser("replay", help="AUC and GAUC from a running server's answers")
    replay.add_argument("--target", required=True)
    replay.add_argument("--data", required=True)
    replay.add_argument("--days", type=days, required=True)
    replay.add_argument("--model", default="", help="model to ask for: name or name@version")

    requests = commands.add_parser("requests", help="the impressions as requests, for homerank score and inspect")
    requests.add_argument("--data", required=True)
    requests.add_argument("--days", type=days, required=True)
    requests.add_argument("--out", required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parsed = parse(sys.argv[1:])
    globals()[f"command_{parsed.command}"](parsed)
