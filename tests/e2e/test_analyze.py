"""`homerank experiments analyze` against an independent evaluation: pairwise AUC and leave-one-user-out errors.

The delta method's errors are compared with the jackknife's over users, which is computed by definition and agrees
with them as the number of users grows; means, differences and AUC must be equal.
"""

import json
import math

import numpy as np

import harness


def pairwise_auc(positive, negative):
    d = positive[:, None] - negative[None, :]
    return float((d > 0).mean() + (d == 0).mean() / 2)


def jackknife(users, statistic):
    """The standard error of statistic(set of users kept as a mask over rows), leaving one user out at a time."""
    values = np.array([statistic(users != u) for u in np.unique(users)])
    n = len(values)
    return math.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum())


class Analyze(harness.Case):
    def write(self, name, rows):
        with open(self.path(name), "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")

    def analyze(self, *arguments):
        return self.must_run("experiments", "analyze", self.path("exposures"), self.path("outcomes"), *arguments).stdout

    def test_estimates_equal_an_independent_evaluation(self):
        rng = np.random.default_rng(5)
        n_users = 300
        variation = rng.integers(3, size=n_users)
        self.write("exposures", [{"time": "2026-11-23T10:00:00Z", "user_id": f"u{u}", "experiment": "x",
                                  "variation": int(v), "variation_key": "abc"[v], "in_experiment": True}
                                 for u, v in enumerate(variation)])
        user = rng.integers(n_users, size=6000)
        taste = rng.normal(size=n_users)
        logit = taste[user] + rng.normal(size=user.size)
        label = (rng.random(user.size) < 1 / (1 + np.exp(-logit + 1))).astype(int)
        prediction = np.round(1 / (1 + np.exp(-logit - rng.normal(size=user.size))), 2)  # with ties
        watched = rng.exponential(10, size=user.size)
        self.write("outcomes", [{"user_id": f"u{u}", "outcomes": {"click": int(y), "watch_s": w},
                                 "predictions": {"click": p}}
                                for u, y, p, w in zip(user, label, prediction, watched)])
        (experiment,) = json.loads(self.analyze("--json"))["experiments"]
        found = {(e["task"], e["measure"], e["variation"]): e for e in experiment["estimates"]}
        self.assertEqual(len(found), 9)
        self.assertEqual(experiment["users"], [int((variation == v).sum()) for v in range(3)])

        def check(key, statistic, mask):
            value = statistic(np.ones(mask.sum(), bool))
            self.assertAlmostEqual(found[key]["value"], value, delta=1e-12)
            error = jackknife(user[mask], statistic)
            self.assertAlmostEqual(found[key]["standard_error"] / error, 1, delta=0.03)
            return value, found[key]["standard_error"]

        for task, values in (("click", label), ("watch_s", watched)):
            baseline = None
            for v in range(3):
                mask = variation[user] == v
                mean = lambda kept, y=values[mask]: float(y[kept].mean())
                baseline = self.check_difference(found[task, "mean", v], check((task, "mean", v), mean, mask), baseline)
        baseline = None
        for v in range(3):
            mask = variation[user] == v
            y, p = label[mask], prediction[mask]
            auc = lambda kept, y=y, p=p: pairwise_auc(p[kept & (y == 1)], p[kept & (y == 0)])
            baseline = self.check_difference(found["click", "AUC", v], check(("click", "AUC", v), auc, mask), baseline)

    def check_difference(self, row, estimate, baseline):
        if baseline is None:
            self.assertIsNone(row["difference"])
            return estimate
        error = math.hypot(estimate[1], baseline[1])
        self.assertAlmostEqual(row["difference"], estimate[0] - baseline[0], delta=1e-12)
        self.assertAlmostEqual(row["low"], row["difference"] - 1.959963984540054 * error, delta=1e-12)
        self.assertAlmostEqual(row["high"], row["difference"] + 1.959963984540054 * error, delta=1e-12)
        self.assertAlmostEqual(row["p_value"], math.erfc(abs(row["difference"]) / error / math.sqrt(2)), delta=1e-12)
        return baseline

    def test_the_shares_are_tested_against_the_weights(self):
        exposures = [{"time": "2026-11-23T10:00:00Z", "user_id": f"u{u}", "experiment": "x", "variation": int(u >= 900),
                      "in_experiment": True} for u in range(1000)]
        self.write("exposures", exposures)
        self.write("outcomes", [{"user_id": "u1", "outcomes": {"click": 1}}])
        equal = json.loads(self.analyze("--json"))["experiments"][0]
        self.assertLess(equal["shares_p_value"], 1e-100)
        weighted = json.loads(self.analyze("--json", "--weights", "9,1"))["experiments"][0]
        self.assertAlmostEqual(weighted["shares_p_value"], 1)
        text = self.analyze()
        self.assertIn("a sample ratio mismatch", text)
        self.assertIn("experiment x: 1000 exposures, 0 users left out", text)

    def test_bad_weights_and_missing_arguments_are_wrong_usage(self):
        for arguments, words in ((["a", "b", "--weights", "1,-1"], "--weights: expected weights like 0.5,0.3,0.2"),
                                 (["a"], "OUTCOMES is required"), (["a", "b", "c"], "expected a flag, found \"c\"")):
            done = self.run_command("experiments", "analyze", *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    harness.main()
