#!/usr/bin/python3
"""The comparison of docs/quality.md: every kind of builders.KINDS, tuned alike, over several seeds.

    quality.py tune   --data DIR --out DIR     network rate of each kind, chosen on 3 May, trained until 2 May
    quality.py run    --data DIR --out DIR     trained until 3 May at that rate, scored on 4 May; the first seed's
                                               models are exported to OUT/models
    quality.py report --data DIR --out DIR     the tables, as Markdown

Each finished run is a file in --out, so that an interrupted comparison goes on where it was.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training import builders, export, kuairand, kuairand_data, metrics, trainer  # noqa: E402
from training.network import Network  # noqa: E402

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS = (1, 2, 3)
FIRST, TUNE_LAST, TUNE_DAY, LAST, TEST_DAY = 20220425, 20220502, 20220503, 20220503, 20220504
FREQUENT = kuairand_data.N_FREQUENT


class Comparison:
    def __init__(self, options):
        self.options, self.out = options, Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.columns = kuairand.make_columns(kuairand.make_config("home", 32), options.data)
        self.datasets = {}

    def dataset(self, first, last):
        """Encoded once: every kind reads the same features."""
        if (first, last) not in self.datasets:
            impressions = kuairand_data.Impressions(self.options.data, first, last)
            self.datasets[first, last] = impressions, kuairand.make_dataset(self.columns, impressions)
        return self.datasets[first, last]

    def fit_and_score(self, kind, rate, seed, last, test_day):
        torch.manual_seed(seed)
        settings = kuairand.parse(["train", "--data", "", "--days", str(FIRST), "--out", "", "--model", kind,
                                   "--seed", str(seed), "--rate", str(rate)])
        model = Network(kuairand.make_config(kind, settings.id_dim))
        begun = time.monotonic()
        trainer.train(model, self.dataset(FIRST, last)[1], settings)
        impressions, dataset = self.dataset(test_day, test_day)
        scores = trainer.predict(model, dataset)
        aucs = [metrics.auc(impressions.labels[:, t], scores[:, t]) for t in range(scores.shape[1])]
        print(f"{kind} rate {rate:g} seed {seed}: " + " ".join(f"{x:.4f}" for x in aucs[:FREQUENT])
              + f" in {time.monotonic() - begun:.0f} s", flush=True)
        return model, scores, aucs

    def merits(self, kind):
        """{rate: mean AUC of the frequent tasks on the tuning day}, of the runs there are."""
        head = f"tune-{kind}@"
        return {float(path.stem[len(head):]): float(np.mean(json.loads(path.read_text())[:FREQUENT]))
                for path in self.out.glob(head + "*.json")}

    def try_rate(self, kind, rate):
        path = self.out / f"tune-{kind}@{rate:g}.json"
        if not path.exists():
            _, _, aucs = self.fit_and_score(kind, rate, 1, TUNE_LAST, TUNE_DAY)
            path.write_text(json.dumps(aucs))

    def tune(self):
        """RATES, and on past the largest while that is the best."""
        for kind in builders.KINDS:
            for rate in RATES:
                self.try_rate(kind, rate)
            while self.rate(kind) == max(self.merits(kind)):
                self.try_rate(kind, 2 * self.rate(kind))

    def rate(self, kind):
        merits = self.merits(kind)
        return max(merits, key=lambda rate: np.nan_to_num(merits[rate], nan=-1.0))  # NaN: it diverged

    def run(self):
        for seed in SEEDS:
            for kind in builders.KINDS:
                path = self.out / f"run-{kind}-{seed}.npz"
                if path.exists():
                    continue
                model, scores, aucs = self.fit_and_score(kind, self.rate(kind), seed, LAST, TEST_DAY)
                n_embedding = sum(p.numel() for p in model.embedding.parameters())
                parameters = sum(p.numel() for p in model.parameters()) - n_embedding
                if seed == SEEDS[0]:
                    self.export(kind, model)
                np.savez_compressed(path, scores=scores, aucs=aucs, parameters=parameters)

    def export(self, kind, model):
        """For `homerank inspect --data`, and to be served."""
        requests = kuairand.verify_requests(self.options.data, SEEDS[0])
        export.export(model, model.config, self.columns.encoder, requests, self.out / "models" / kind / "1")

    def load(self, kind):
        return [np.load(self.out / f"run-{kind}-{seed}.npz") for seed in SEEDS]

    def report(self):
        impressions = self.dataset(TEST_DAY, TEST_DAY)[0]
        runs = {kind: self.load(kind) for kind in builders.KINDS}
        names = kuairand_data.TASKS
        print("| model | rate | network parameters | " + " | ".join(names[:FREQUENT]) + " |")
        print("|---|---|---|" + "---|" * FREQUENT)
        for kind, files in runs.items():
            aucs = np.array([f["aucs"] for f in files])
            cells = [f"{aucs[:, t].mean():.4f} ± {aucs[:, t].std(ddof=1):.4f}" for t in range(FREQUENT)]
            print(f"| {kind} | {self.rate(kind):g} | {int(files[0]['parameters']):,} | " + " | ".join(cells) + " |")
        draws = list(metrics.bootstrap_users(impressions.user, self.options.draws, seed=1))
        means = {kind: self.bootstrap(files, impressions.labels, draws) for kind, files in runs.items()}
        print("\n| model − home | " + " | ".join(names[:FREQUENT]) + " |\n|---|" + "---|" * FREQUENT)
        for kind in builders.KINDS:
            if kind != "home":
                difference = means[kind] - means["home"]
                cells = ["{:+.4f} [{:+.4f}, {:+.4f}]".format(d.mean(), *metrics.interval(d))
                         for d in difference.T[:FREQUENT]]
                print(f"| {kind} | " + " | ".join(cells) + " |")
        print("\n| home, rare tasks | positives | AUC, 95 % interval |\n|---|---|---|")
        for t in range(FREQUENT, len(names)):
            low, high = metrics.interval(means["home"][:, t])
            print(f"| {names[t]} | {int(impressions.labels[:, t].sum())} | "
                  f"{np.mean([f['aucs'][t] for f in runs['home']]):.3f} [{low:.3f}, {high:.3f}] |")

    @staticmethod
    def bootstrap(files, labels, draws):
        """AUC (draws, T), the mean over seeds, of each draw of users."""
        scores = [f["scores"] for f in files]
        return np.array([[np.mean([metrics.auc(labels[rows, t], s[rows, t]) for s in scores])
                          for t in range(labels.shape[1])] for rows in draws])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["tune", "run", "report"])
    parser.add_argument("--data", required=True, help="what kuairand.py prepare wrote")
    parser.add_argument("--out", required=True)
    parser.add_argument("--draws", type=int, default=200, help="bootstrap draws of users")
    parsed = parser.parse_args()
    getattr(Comparison(parsed), parsed.command)()
