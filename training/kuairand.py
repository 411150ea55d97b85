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
import collections
import datetime
import importlib
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training import DataError, builders, export, kuairand_data, metrics, trainer  # noqa: E402
from training.encoder import Encoder  # noqa: E402
from training.network import Network  # noqa: E402

FUSION = {"kind": "weighted_sum", "weights": {"click": 1.0, "long_view": 1.0, "like": 8.0, "profile_enter": 4.0,
                                              "comment": 8.0, "follow": 8.0, "forward": 8.0}}
ANSWER_TIMEOUT_S = 60  # of replay, for one answer


def days(text):
    """A..B, or one day, as (first, last)."""
    first, dots, last = text.partition("..")
    try:
        for day in (first, last) if dots else (first,):
            if len(day) != 8 or not datetime.datetime.strptime(day, "%Y%m%d"):
                raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYYMMDD or YYYYMMDD..YYYYMMDD, found {text!r}") from None
    if dots and first > last:
        raise argparse.ArgumentTypeError(f"expected the first day before the last, found {text!r}")
    return int(first), int(last if dots else first)


def positive(text):
    """A positive whole number."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def read_records(folder):
    """{id: features} of users and of items."""
    path = Path(folder) / "records.jsonl"
    entities = {"user": {}, "item": {}}
    try:
        with open(path, encoding="utf-8") as file:
            for record in map(json.loads, file):
                entities[record["entity"]][record["id"]] = record["features"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected what prepare writes, found: {error!r}") from None
    if not all(entities.values()):
        raise DataError(f"{path}: expected users and videos, found none")
    return entities["user"], entities["item"]


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
        lists = {name: [int(v) for v in rng.choice(videos, 200)]
                 for name in ("history", "long_history", "like_history")}
        return {**lists, "long_tags": [int(t) for t in rng.integers(80, size=150)]}

    def context(rng):
        return {"tab": int(rng.integers(15)), "hour": int(rng.integers(24))}

    return export.verify_requests(users, items, context, long_lists, seed)


def command_prepare(options):
    n_records, n_impressions = kuairand_data.prepare(options.data, options.out)
    print(f"{n_records} records and {n_impressions} impressions written to {options.out}")


def make_validation(columns, options):
    """validate(model) -> mean AUC of the frequent tasks on the held-out days, which training must not see."""
    if options.valid[0] <= options.days[1] and options.days[0] <= options.valid[1]:
        raise DataError("--valid: expected days outside --days, found some of them")
    held_out = kuairand_data.Impressions(options.data, *options.valid)
    valid_set = make_dataset(columns, held_out)
    tasks = [t for t in range(kuairand_data.N_FREQUENT) if 0 < held_out.labels[:, t].sum() < len(held_out)]
    if not tasks:
        raise DataError("--valid: expected positives and negatives of a frequent task, found none")

    def validate(model):
        scores = trainer.predict(model, valid_set)
        figures = [metrics.auc(held_out.labels[:, t], scores[:, t]) for t in tasks]
        print("valid AUC " + " ".join(f"{kuairand_data.TASKS[t]} {x:.4f}" for t, x in zip(tasks, figures)))
        return float(np.mean(figures))

    return validate


def command_train(options):
    torch.manual_seed(options.seed)
    config = make_config(options.model, options.id_dim)
    columns = make_columns(config, options.data)
    dataset = make_dataset(columns, kuairand_data.Impressions(options.data, *options.days))
    validate = make_validation(columns, options) if options.valid else None
    model = Network(config)
    n_embedding = sum(p.numel() for p in model.embedding.parameters())
    n_network = sum(p.numel() for p in model.parameters()) - n_embedding
    print(f"{options.model}: {n_network} network and {n_embedding} embedding parameters, {len(dataset)} impressions")
    trainer.train(model, dataset, options, validate)
    export.export(model, config, columns.encoder, verify_requests(options.data, options.seed), options.out)
    print(f"model written to {options.out}")


def check_tasks(source, tasks):
    missing = [task for task in kuairand_data.TASKS if task not in tasks]
    if missing:
        raise DataError(f"{source}: expected KuaiRand's tasks, found no {', '.join(missing)}")


def command_evaluate(options):
    model, config = export.load(Network, options.model)
    tasks = [task["name"] for task in config["network"]["tasks"]]
    check_tasks(options.model, tasks)
    impressions = kuairand_data.Impressions(options.data, *options.days)
    dataset = make_dataset(make_columns(config, options.data), impressions)
    scores = export.judge(model, dataset)[:, [tasks.index(task) for task in kuairand_data.TASKS]]
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


def import_client():
    """The Python client, built for this run."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([ROOT / "clients" / "python" / "build.sh", folder], check=True)
        sys.path.insert(0, folder)
        return importlib.import_module("homerank")


def command_replay(options):
    homerank = import_client()
    impressions = kuairand_data.Impressions(options.data, *options.days)
    scores = np.full(impressions.labels.shape, np.nan)
    counts = collections.Counter()
    with homerank.connect(options.target) as client:
        for rows, request in trainer.tqdm(list(replay_requests(impressions)), disable=None, unit="request"):
            try:  # a store that cannot answer is an error: with defaults the figures would not be the model's
                answer = client.rank(**request, model=options.model, strict_features=True, timeout=ANSWER_TIMEOUT_S)
            except homerank.RankError as error:
                raise DataError(f"{options.target}: request {request['request_id']}: {error}") from None
            check_tasks(f"{options.target}: {answer.model}", answer.tasks)
            answered = {row.item_id: row.tasks for row in answer}
            for r, item in zip(rows, request["items"]):
                scores[r] = [answered[item][task] for task in kuairand_data.TASKS]
            counts.update(requests=1, users=not answer.features.user_found, items=answer.features.items_missing)
    print(f"{counts['requests']} requests answered; without a stored record: {counts['users']} requests' users, "
          f"{counts['items']} items", file=sys.stderr)
    print_figures(impressions, scores)


def command_requests(options):
    impressions = kuairand_data.Impressions(options.data, *options.days)
    with open(options.out, "w", encoding="utf-8") as file:
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
    train.add_argument("--days", type=days, required=True, help="A..B or one day")
    train.add_argument("--valid", type=days, help="stop when the AUC on these days falls from one epoch to the next")
    train.add_argument("--model", choices=sorted(builders.KINDS), default="home")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--out", required=True, help="ROOT/NAME/VERSION, to be served from ROOT")
    train.add_argument("--epochs", type=positive, default=1)
    train.add_argument("--batch-size", type=positive, default=512)
    train.add_argument("--rate", type=float, default=2e-3, help="of the network")
    train.add_argument("--embedding-rate", type=float, default=1e-2)
    train.add_argument("--decay", type=float, default=1e-2)
    train.add_argument("--embedding-decay", type=float, default=1e-2)
    train.add_argument("--final-rate", type=float, default=0.0, help="share of the rates that the last step has")
    train.add_argument("--id-dim", type=positive, default=32, help="width of the user, video and author embeddings")
    train.add_argument("--weights", type=float, nargs=7, default=[1.0] * 7, help="of the tasks' losses")
    train.add_argument("--in-order", dest="shuffle", action="store_false", help="impressions by time, not shuffled")

    evaluate = commands.add_parser("evaluate", help="AUC and GAUC of a model folder")
    evaluate.add_argument("--model", required=True, help="what train wrote")
    evaluate.add_argument("--data", required=True, help="what prepare wrote")
    evaluate.add_argument("--days", type=days, required=True, help="A..B or one day")
    evaluate.add_argument("--scores", help="also save the logits (n, T) as this .npy file")

    replay = commands.add_parser("replay", help="AUC and GAUC from a running server's answers")
    replay.add_argument("--target", required=True, help="HOST:PORT of a server with the records of prepare")
    replay.add_argument("--data", required=True, help="what prepare wrote")
    replay.add_argument("--days", type=days, required=True, help="A..B or one day")
    replay.add_argument("--model", default="", help="model to ask for: name or name@version")

    requests = commands.add_parser("requests", help="the impressions as requests, for homerank score and inspect")
    requests.add_argument("--data", required=True, help="what prepare wrote")
    requests.add_argument("--days", type=days, required=True, help="A..B or one day")
    requests.add_argument("--out", required=True)
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    try:
        globals()[f"command_{options.command}"](options)
    except (DataError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"kuairand: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
