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


def pooled_freedom(variance, freedom, other_variance, other_freedom):
    return (variance + other_variance) ** 2 / (variance ** 2 / freedom + other_variance ** 2 / other_freedom)


def auc_freedom(y, p, users):
    """Of the variances of the positives' and of the negatives' parts, by user, pooled."""
    d = p[y == 1][:, None] - p[y == 0][None, :]
    wins = (d > 0) + (d == 0) / 2
    parts = []
    for values, of in ((wins.mean(axis=1), users[y == 1]), (wins.mean(axis=0), users[y == 0])):
        _, which = np.unique(of, return_inverse=True)
        sums = np.bincount(which, values - values.mean()) / len(values)
        parts += [(sums ** 2).sum() * len(sums) / (len(sums) - 1), len(sums) - 1]
    return pooled_freedom(*parts)


def student_two_sided(t, freedom):
    """The density's integral beyond |t|, where t = sqrt(freedom) tan(angle): it goes as cos(angle)^(freedom - 1)."""
    def integral(start):
        angle = np.linspace(start, math.pi / 2, 200001)
        return np.trapz(np.cos(angle).clip(0) ** (freedom - 1), angle)

    return integral(math.atan(abs(t) / math.sqrt(freedom))) / integral(0)


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

        def check(key, statistic, mask, freedom):
            value = statistic(np.ones(mask.sum(), bool))
            self.assertAlmostEqual(found[key]["value"], value, delta=1e-12)
            error = jackknife(user[mask], statistic)
            self.assertAlmostEqual(found[key]["standard_error"] / error, 1, delta=0.03)
            return value, found[key]["standard_error"], freedom

        for task, values in (("click", label), ("watch_s", watched)):
            baseline = None
            for v in range(3):
                mask = variation[user] == v
                mean = lambda kept, y=values[mask]: float(y[kept].mean())
                estimate = check((task, "mean", v), mean, mask, len(np.unique(user[mask])) - 1)
                baseline = self.check_difference(found[task, "mean", v], estimate, baseline)
        baseline = None
        for v in range(3):
            mask = variation[user] == v
            y, p = label[mask], prediction[mask]
            auc = lambda kept, y=y, p=p: pairwise_auc(p[kept & (y == 1)], p[kept & (y == 0)])
            estimate = check(("click", "AUC", v), auc, mask, auc_freedom(y, p, user[mask]))
            baseline = self.check_difference(found["click", "AUC", v], estimate, baseline)

    def check_difference(self, row, estimate, baseline):
        if baseline is None:
            self.assertIsNone(row["difference"])
            return estimate
        error = math.hypot(estimate[1], baseline[1])
        freedom = pooled_freedom(estimate[1] ** 2, estimate[2], baseline[1] ** 2, baseline[2])
        self.assertAlmostEqual(row["difference"], estimate[0] - baseline[0], delta=1e-12)
        self.assertAlmostEqual(row["low"] + row["high"], 2 * row["difference"], delta=1e-12)
        self.assertAlmostEqual(student_two_sided((row["high"] - row["difference"]) / error, freedom), 0.05, delta=1e-7)
        self.assertAlmostEqual(row["p_value"], student_two_sided(row["difference"] / error, freedom), delta=1e-7)
        return baseline

    def test_few_positives_are_not_significant_too_often(self):
        """A/A experiments: one set of outcomes, 12 of them positive, and the users shared out anew in each."""
        n_users, n_experiments = 400, 300
        rng = np.random.default_rng(9)
        label = (np.arange(n_users) < 12).astype(int)
        prediction = rng.normal(size=n_users) + label
        variation = rng.integers(2, size=(n_experiments, n_users))
        self.write("exposures", [{"time": "2026-11-23T10:00:00Z", "user_id": f"u{u}", "experiment": f"x{x}",
                                  "variation": int(variation[x, u]), "in_experiment": True}
                                 for x in range(n_experiments) for u in range(n_users)])
        self.write("outcomes", [{"user_id": f"u{u}", "outcomes": {"click": int(y)}, "predictions": {"click": p}}
                                for u, (y, p) in enumerate(zip(label, prediction))])
        experiments = json.loads(self.analyze("--json"))["experiments"]
        self.assertEqual(len(experiments), n_experiments)
        p_values = [row["p_value"] for experiment in experiments for row in experiment["estimates"]
                    if row["measure"] == "AUC" and row["p_value"] is not None]
        self.assertGreater(len(p_values), 0.95 * n_experiments)
        self.assertLessEqual(np.mean(np.array(p_values) < 0.05), 0.05)

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
