"""bench/run ab-replay: an A/B and many A/A experiments on KuaiRand's real impressions, through the real service.

Two models are served at once. The impressions of some days are replayed as requests that name no model: the
experiment decides which one ranks, the exposure log says to whom, the answers' predictions and the impressions' labels
become the outcomes, and `homerank experiments analyze` judges. The labels were made before either model ranked anything:
what can differ between the variations is how well each model predicts them, the AUC.

An A/A experiment gives both variations the same model. Its seed alone is changed, again and again; of 100, some 5 find a
difference "significant at 5 %" by chance.
"""

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training import kuairand, kuairand_data  # noqa: E402

LAYERS = ("ranking.model", "ranking.fusion", "ranking.tasks", "ranking.shadow")  # one A/A experiment on each
FUSION = {"kind": "weighted_sum", "weights": {"click": 1.0}}
TASKS = list(kuairand_data.TASKS)


def rule(key, values, seed):
    return {"key": key, "variations": values, "weights": [0.5, 0.5], "hashAttribute": "user_id", "hashVersion": 2,
            "seed": seed, "meta": [{"key": "a"}, {"key": "b"}]}


def ab_file(first, second):
    value = [{"model": first}, {"model": second}]
    return {"features": {"ranking": {"defaultValue": {}, "rules": [rule(f"{first}-{second}", value, "ab")]}}}


def aa_file(model, seed):
    """One experiment a layer, both of whose variations say the same."""
    values = {"ranking.model": model, "ranking.fusion": FUSION, "ranking.tasks": TASKS,
              "ranking.shadow": {"model": model, "percent": 0}}
    return {"features": {layer: {"defaultValue": values[layer],
                                 "rules": [rule(f"{layer}-{seed}", [values[layer]] * 2, f"{layer}-{seed}")]}
                         for layer in LAYERS}}


class Served:
    """homerank serve with an experiments file and an exposure log of its own."""

    def __init__(self, options, name, experiments):
        file = Path(options.out) / f"{name}.json"
        file.write_text(json.dumps(experiments))
        self.exposures = Path(options.out) / f"{name}-exposures.jsonl"
        self.exposures.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [options.homerank, "serve", "--models", options.models, "--default-model", options.first, "--store",
             options.store, "--listen", "127.0.0.1:0", "--log-format", "json", "--experiments", str(file), "--exposures",
             str(self.exposures)], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            event = json.loads(line)
            if event["message"] == "listening":
                self.target = event["address"]
                break
        else:
            sys.exit(f"ab_replay: the server ended with {self.process.wait()}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def close(self):
        self.process.terminate()
        if self.process.wait() != 0:
            sys.exit("ab_replay: the server failed")


def replay(client, impressions, outcomes, model=""):
    """Sends all impressions and writes an outcome each."""
    pending, requests = [], []
    for rows, request in kuairand.replay_requests(impressions):
        pending.append((rows, request))
        requests.append({**request, "model": model})
    with open(outcomes, "w", encoding="utf-8") as file:
        for (rows, request), answer in zip(pending, client.rank_stream(requests)):
            tasks = {row.item_id: row.tasks for row in answer}
            for r, item in zip(rows, request["items"]):
                labels = {task: int(impressions.labels[r, t]) for t, task in enumerate(TASKS)}
                line = {"user_id": request["user_id"], "outcomes": labels, "predictions": tasks[item]}
                file.write(json.dumps(line) + "\n")


def analyze(options, exposures, outcomes, *arguments):
    done = subprocess.run([options.homerank, "experiments", "analyze", str(exposures), str(outcomes), *arguments],
                          stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def run_ab(options, connect, impressions):
    served = Served(options, "ab", ab_file(options.first, options.second))
    outcomes = Path(options.out) / "ab-outcomes.jsonl"
    with connect(served.target) as client:
        replay(client, impressions, outcomes)
    served.close()
    print(f"A/B: {options.first} against {options.second}\n")
    print(analyze(options, served.exposures, outcomes))


def run_aa(options, connect, impressions):
    """Exposes every user once a seed; the outcomes are those of one replay, for they do not depend on the seed."""
    outcomes = Path(options.out) / "aa-outcomes.jsonl"
    users = np.unique(impressions.user)
    item = str(impressions.video[0])
    significant, n_tests = {}, 0
    for seed in range(options.seeds):
        served = Served(options, "aa", aa_file(options.first, seed))
        with connect(served.target) as client:
            if seed == 0:
                replay(client, impressions, outcomes, options.first)
            requests = ({"user_id": str(u), "items": [item], "request_id": str(u)} for u in users)
            n = sum(len(answer.experiments) for answer in client.rank_stream(requests))
        served.close()
        if n < len(LAYERS) * len(users):
            sys.exit(f"ab_replay: expected {len(LAYERS) * len(users)} exposures, found {n}")
        for experiment in json.loads(analyze(options, served.exposures, outcomes, "--json"))["experiments"]:
            n_tests += 1
            for e in experiment["estimates"]:
                if e["variation"] == 1 and e["p_value"] is not None:
                    key = e["task"], e["measure"]
                    significant[key] = significant.get(key, 0) + (e["p_value"] < 0.05)
    print(f"A/A: of {n_tests} experiments, reseeded, {len(users)} users each, significant at 5 %:\n")
    for (task, measure), n in sorted(significant.items()):
        print(f"  {task:<14} {measure:<5} {n:>3}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homerank", default=str(ROOT / "bazel-bin" / "service" / "homerank"))
    parser.add_argument("--models", required=True, help="a repository with both models")
    parser.add_argument("--first", default="home")
    parser.add_argument("--second", default="mmoe")
    parser.add_argument("--store", required=True, help="with the records that kuairand.py prepare wrote")
    parser.add_argument("--data", required=True, help="what kuairand.py prepare wrote")
    parser.add_argument("--days", type=kuairand.days, required=True)
    parser.add_argument("--out", required=True, help="folder for exposures and outcomes")
    parser.add_argument("--seeds", type=int, default=25, help="each makes four A/A experiments")
    options = parser.parse_args()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    subprocess.run([ROOT / "clients" / "python" / "build.sh"], check=True)
    sys.path.insert(0, str(ROOT / "clients" / "python" / "build"))
    import homerank

    impressions = kuairand_data.Impressions(options.data, *options.days)
    run_ab(options, homerank.connect, impressions)
    run_aa(options, homerank.connect, impressions)


if __name__ == "__main__":
    main()
