"""`homerank experiments check`, `simulate` and `explain`: they say what the server would do."""

import json
import math
import os
import re

import harness

from experiment_files import bucket, experiment, payload, variation, weighted_sum, write_tiny_model


def rows(table):
    """The rows of a printed table, as cells; columns stand apart by two spaces or more."""
    lines = table.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("─"))
    starts = [m.start() for m in re.finditer("─+", lines[rule])] + [None]
    end = next((i for i in range(rule + 1, len(lines)) if not lines[i].strip()), len(lines))
    return [[line[a:b].strip() for a, b in zip(starts, starts[1:])] for line in lines[rule + 1:end]]


class CommandLine(harness.Case):

    FILE = {
        "features": {
            "ranking.model": {
                "defaultValue": "home",
                "rules": [
                    {"parentConditions": [{"id": "open", "condition": {"value": True}, "gate": True}]},
                    {"condition": {"tester": True}, "force": "mmoe", "coverage": 1},
                    experiment("m", ["home@1", "mmoe@1"], [0.3, 0.7], coverage=0.5,
                               condition={"country": {"$in": ["de", "fr"]}}, namespace=["n", 0, 0.5]),
                ],
            },
            "ranking.tasks": {"rules": [experiment("t", [["click"], ["like"]], [0.5, 0.5])]},
            "open": {"defaultValue": True, "rules": [{"condition": {"closed": True}, "force": False}]},
        },
    }

    def setUp(self):
        super().setUp()
        self.file = self.path("experiments.json")
        self.write(self.FILE)

    def write(self, content):
        with open(self.file, "w", encoding="utf-8") as file:
            json.dump(content, file)

    def test_check_prints_the_traffic_table(self):
        done = self.must_run("experiments", "check", self.file)
        self.assertEqual(rows(done.stdout), [
            ["ranking.model", "0", "", "", "", "", "gate of open"],
            ["ranking.model", "1", "", "", "100 %", '"mmoe"', '{"tester":true}'],
            ["ranking.model", "2", "m", "m-0", "15 %", '"home@1"',
             'namespace "n" [0, 0.5); {"country":{"$in":["de","fr"]}}'],
            ["ranking.model", "2", "m", "m-1", "35 %", '"mmoe@1"', ""],
            ["ranking.model", "", "", "", "", '"home"', "all others"],
            ["ranking.tasks", "0", "t", "t-0", "50 %", '["click"]', ""],
            ["ranking.tasks", "0", "t", "t-1", "50 %", '["like"]', ""],
            ["ranking.tasks", "", "", "", "", "null", "all others"],
        ])
        self.assertRegex(done.stdout, r"2 experiments in 2 layers; version [0-9a-f]{16}\n$")
        self.assertEqual(done.stderr, "")

    def test_check_warns_of_what_is_not_understood_and_refuses_what_is_wrong(self):
        self.write({"features": {"ranking.model": {"rules": [{"force": "home", "colour": "red"}]}}})
        done = self.must_run("experiments", "check", self.file)
        self.assertEqual(done.stderr, 'warning: feature "ranking.model": rules[0]: unknown key "colour" is ignored\n')
        self.write(payload(ranking={"force": {"modle": "home"}}))
        self.must_fail("experiments", "check", self.file,
                       says=["experiments " + self.file, 'feature "ranking": rules[0]: force: value: unknown key'])
        self.must_run("experiments", "check", self.file, "--experiments-feature", "search")

    def test_check_asks_a_repository_for_what_the_file_names(self):
        root = self.path("models")
        write_tiny_model(root, "home", 1, 0.5)
        self.must_fail("experiments", "check", self.file, "--models", root,
                       says=['feature "ranking.model": rules[1]: force: ', "mmoe"])
        write_tiny_model(root, "mmoe", 1, 0.5)
        self.must_run("experiments", "check", self.file, "--models", root)
        self.write(payload(fusion={"force": weighted_sum(buy=1)}))
        self.must_fail("experiments", "check", self.file, "--models", root, "--default-model", "home",
                       says=['feature "ranking.fusion": rules[0]: force: fusion: weights: expected a task'])

    def test_simulate_counts_what_the_file_says(self):
        n = 20000
        done = self.must_run("experiments", "simulate", self.file, "--users", str(n), "--attribute", "country=de")
        table = {(r[0], r[1]): r[2:] for r in rows(done.stdout)}
        users = ["user-%d" % i for i in range(n)]
        t = self.FILE["features"]["ranking.tasks"]["rules"][0]
        for v in (0, 1):
            self.assertEqual(int(table[("t", "t-%d" % v)][0]), sum(variation(t, u) == v for u in users))
        self.assertEqual(table[("m", "m-0")][2], "30.000 %")
        expected = n * 0.5 * 0.5 * 0.3
        self.assertLess(abs(int(table[("m", "m-0")][0]) - expected), 5 * math.sqrt(expected))
        for key in ("m", "t"):
            self.assertGreater(float(table[(key, key + "-0")][3]), 1e-4)
        # Nobody is in an experiment whose condition nobody meets.
        done = self.must_run("experiments", "simulate", self.file, "--users", "1000")
        self.assertEqual([r[2] for r in rows(done.stdout) if r[0] == "m"], ["0", "0"])

    def test_explain_says_why(self):
        user = next(u for u in map(str, range(1000)) if " m: in: by its" in self.explain(u, "country=de"))
        text = self.explain(user, "country=de", "age=31")
        m = self.FILE["features"]["ranking.model"]["rules"][2]
        v = variation(m, user)
        self.assertIn('user %s, attributes {"country":"de","age":31}' % user, text)
        for line in (
                "  open: no rule applies: the default value: true",
                "  ranking.model rules[0]: passed: its prerequisites hold",
                "  ranking.model rules[1]: skipped: its condition does not hold",
                "  ranking.model rules[2] m: in: by its bucket",
                '      bucket %.4g of id "%s" with seed "m-seed", hash version 2' % (bucket("m-seed", user), user),
                '      variation %d "m-%d": "%s"' % (v, v, m["variations"][v]),
                'model: "%s", by ranking.model' % m["variations"][v],
                "fusion: nothing decided",
        ):
            self.assertIn(line + "\n", text)
        self.assertIn('model: "mmoe", by ranking.model\n', self.explain(user, "tester=true"))
        closed = self.explain(user, "closed=true")
        self.assertIn("  ranking.model rules[0]: blocked by a prerequisite: the feature has no value\n", closed)
        self.assertIn("model: nothing decided\n", closed)
        self.assertIn("not in: its condition does not hold", self.explain(user, "country=us"))

    def explain(self, user, *attributes):
        flags = [word for attribute in attributes for word in ("--attribute", attribute)]
        return self.must_run("experiments", "explain", self.file, "--user", user, *flags).stdout

    def test_the_server_decides_as_explained(self):
        root = self.path("models")
        write_tiny_model(root, "home", 1, 0.5)
        write_tiny_model(root, "mmoe", 1, 1.0)
        server = self.start_server("--models", root, "--store", "none:", "--default-model", "home", "--threads", "1",
                                   "--backend", "reference", "--experiments", self.file)
        with server.connect() as client:
            for i in range(30):
                answer = client.rank("u%d" % i, ["i"], attributes={"country": "fr"})
                text = self.explain("u%d" % i, "country=fr")
                self.assertIn('model: "%s' % answer.model.split("@")[0], text)
                self.assertIn("tasks: %s, by" % json.dumps(answer.tasks), text)
                for a in answer.experiments:
                    self.assertIn('variation %d "%s"' % (a.variation, a.variation_key), text)

    def test_usage(self):
        self.assertEqual(self.run_command("experiments").returncode, 2)
        self.assertIn('expected "experiments check", "experiments simulate"', self.run_command("experiments").stderr)
        self.assertEqual(self.run_command("experiments", "explain", self.file).returncode, 2)
        self.must_fail("experiments", "check", self.path("nowhere"), says=["No such file or directory"])
        self.must_fail("experiments", "check", os.path.dirname(self.file), says=["expected a regular file"])


if __name__ == "__main__":
    harness.main()
