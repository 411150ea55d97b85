"""Experiments through the real server: who gets what, the same everywhere and always; and a file that changes.

HOMERANK_EXPERIMENT_USERS says how many users the shares are counted over (default 20000; 100000 for the full figure).
"""

import collections
import json
import math
import os
import signal

import numpy as np

import harness

from experiment_files import TASKS, bucket, experiment, payload, variation, weighted_sum, write_tiny_model

N_USERS = int(os.environ.get("HOMERANK_EXPERIMENT_USERS", "20000"))

# --- statistics ------------------------------------------------------------------------------------------------------


def chi_square_p(table):
    """Pearson's test that rows and columns of a table of counts are independent: the p-value (Wilson, Hilferty)."""
    table = np.asarray(table, float)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    z = ((statistic / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))
    return 0.5 * math.erfc(z / math.sqrt(2))


class Experiments(harness.Case):

    def setUp(self):
        super().setUp()
        self.root, self.file = self.path("models"), self.path("experiments.json")
        write_tiny_model(self.root, "home", 1, 0.5)
        write_tiny_model(self.root, "home", 2, 1.0, labels={"canary": 2, "stable": 1})
        write_tiny_model(self.root, "mmoe", 1, 2.0)

    def write(self, content):
        """Puts a file into place as a deployment does: written beside it, then renamed."""
        with open(self.file + ".new", "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        os.rename(self.file + ".new", self.file)

    def serve(self, *arguments):
        return self.start_server("--models", self.root, "--store", "none:", "--default-model", "home:stable",
                                 "--threads", "1", "--backend", "reference", "--version-policy", "all",
                                 "--experiments", self.file, *arguments)

    def ask(self, server, users, **fields):
        """{user: (model, {experiment: (variation, its key, bucket)}, tasks)} over some streams."""
        users = list(users)
        requests = (harness.make_request(user, ["i"], **fields) for user in users)
        with server.connect() as client:
            answers = list(client.rank_stream(requests, harness.DEADLINE_S * 5))
        self.assertEqual(len(answers), len(users))
        for answer in answers:
            self.assertEqual([a for a in answer.experiments if not a.in_experiment], [])
            self.assertEqual(answer.warnings, [])
        return {user: (answer.model,
                       {a.experiment: (a.variation, a.variation_key, a.bucket) for a in answer.experiments},
                       tuple(answer.tasks))
                for user, answer in zip(users, answers)}


class Shares(Experiments):

    LAYERS = {
        "model": experiment("model-test", ["home@1", "home@2", "mmoe"], [0.5, 0.3, 0.2]),
        "fusion": experiment("fusion-test", [weighted_sum(click=1), weighted_sum(like=1)], [0.25, 0.75],
                             coverage=0.8),
        "tasks": experiment("tasks-test", [["click"], ["like"]], [0.5, 0.5]),
    }

    def test_three_layers_have_their_shares_and_are_independent(self):
        self.write(payload(**self.LAYERS))
        server = self.serve()
        users = ["user-%d" % i for i in range(N_USERS)]
        answers = self.ask(server, users)

        got = {name: {u: answers[u][1].get(e["key"]) for u in users} for name, e in self.LAYERS.items()}
        for name, e in self.LAYERS.items():
            # To the user: the variation, its key and the bucket are the specification's.
            for user in users:
                wanted = variation(e, user)
                self.assertEqual(got[name][user],
                                 None if wanted is None
                                 else (wanted, "%s-%d" % (e["key"], wanted), bucket(e["seed"], user)), (name, user))
            # And so the shares are the file's.
            counts = collections.Counter(v and v[0] for v in got[name].values())
            for i, weight in enumerate(e["weights"]):
                share = weight * e.get("coverage", 1)
                sigma = math.sqrt(N_USERS * share * (1 - share))
                self.assertLess(abs(counts[i] - N_USERS * share), 4 * sigma, (name, i))
        for a, b in (("model", "fusion"), ("model", "tasks"), ("fusion", "tasks")):
            pairs = collections.Counter((got[a][u] and got[a][u][0], got[b][u] and got[b][u][0]) for u in users)
            rows, columns = (sorted({p[k] for p in pairs}, key=str) for k in (0, 1))
            p = chi_square_p([[pairs[(r, c)] for c in columns] for r in rows])
            self.assertGreater(p, 1e-4, (a, b))

        # What is said is what is served.
        models = ["home@1", "home@2", "mmoe@1"]
        for user in users:
            model, _, tasks = answers[user]
            self.assertEqual(model, models[got["model"][user][0]])
            self.assertEqual(tasks, (TASKS[got["tasks"][user][0]],))

        # The same after a restart, and on another server.
        server.terminate()
        some = users[::7]
        self.assertEqual(self.ask(self.serve(), some), {u: answers[u] for u in some})

    def test_the_fusion_that_is_said_orders_the_items(self):
        self.write(payload(**self.LAYERS))
        server = self.serve()
        click, like = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))
        with server.connect() as client:
            for i in range(40):
                answer = client.rank("u%d" % i, ["a"])
                said = {a.experiment: a.variation for a in answer.experiments}
                if said["model-test"] == 0:
                    expected = {None: click, 0: click, 1: like}[said.get("fusion-test")]
                    self.assertAlmostEqual(answer[0].score, expected, 6)

    def test_ramping_up_moves_nobody_between_variations(self):
        def layer(coverage):
            return payload(model=experiment("ramp", ["home@1", "home@2", "mmoe"], [0.4, 0.4, 0.2], coverage=coverage))

        users = ["user-%d" % i for i in range(N_USERS // 4)]
        self.write(layer(0.1))
        server = self.serve()
        before = {u: said.get("ramp") for u, (_, said, _) in self.ask(server, users).items()}
        for coverage in (0.3, 0.7, 1.0):
            seen = len(server.log)
            self.write(layer(coverage))
            server.wait_for_log('"experiments loaded"', start=seen)
            now = {u: said.get("ramp") for u, (_, said, _) in self.ask(server, users).items()}
            for user in users:
                if before[user] is not None:
                    self.assertEqual(now[user], before[user])
            covered = sum(v is not None for v in now.values())
            sigma = math.sqrt(len(users) * coverage * (1 - coverage))
            self.assertLessEqual(abs(covered - len(users) * coverage), 4 * sigma)
            before = now


class Serving(Experiments):

    def test_what_a_request_says_itself_wins(self):
        self.write(payload(model={"force": "mmoe"}, tasks=experiment("t", [["click"], ["click"]], [0.5, 0.5])))
        with self.serve().connect() as client:
            self.assertEqual(client.rank("u", ["i"]).model, "mmoe@1")
            explicit = client.rank("u", ["i"], model="home@2")
            self.assertEqual((explicit.model, explicit.experiments), ("home@2", []))
            tasks = client.rank("u", ["i"], tasks=["like"])
            self.assertEqual((tasks.model, tasks.tasks, tasks.experiments), ("mmoe@1", ["like"], []))
            self.assertEqual(client.rank("u", ["i"]).tasks, ["click"])

    def test_conditions_ask_the_attributes(self):
        self.write(payload(model={"condition": {"country": {"$in": ["de", "fr"]}, "app.version": {"$vgte": "7.2.0"}},
                                  "force": "home:canary"}))
        with self.serve().connect() as client:
            def model(**attributes):
                return client.rank("u", ["i"], attributes=attributes).model

            self.assertEqual(model(country="de", app={"version": "7.10.1"}), "home@2")
            self.assertEqual(model(country="de", app={"version": "7.1.9"}), "home@1")
            self.assertEqual(model(country="us", app={"version": "8.0.0"}), "home@1")
            self.assertEqual(model(), "home@1")
            bad = harness.make_request("u", ["i"])
            bad.attributes = '{"country": "de"'
            self.assert_rank_error("INVALID_ARGUMENT", ["attributes: not valid JSON", "byte 16"],
                                   lambda: client.rank_request(bad))

    def test_variations_are_forced_only_where_the_server_allows_it(self):
        self.write(payload(model=experiment("m", ["home@1", "home@2"], [1, 0])))
        with self.serve().connect() as client:
            self.assert_rank_error("INVALID_ARGUMENT", "forced_variations: this server does not allow them",
                                   lambda: client.rank("u", ["i"], forced_variations={"m": 1}))
            self.assertEqual(client.rank("u", ["i"], attributes={"url": "/?m=1"}).model, "home@1")
        with self.serve("--allow-forced-variations").connect() as client:
            answer = client.rank("u", ["i"], forced_variations={"m": 1})
            (said,) = answer.experiments
            self.assertEqual((answer.model, said.experiment, said.variation, said.bucket, said.in_experiment),
                             ("home@2", "m", 1, -1, True))
            self.assertEqual(client.rank("u", ["i"], attributes={"url": "/?m=1"}).model, "home@2")
            self.assertEqual(client.rank("u", ["i"]).model, "home@1")

    def test_what_cannot_be_served_any_more_is_left_aside_and_said(self):
        self.write(payload(model=experiment("m", ["home:canary", "home:canary"], [0.5, 0.5])))
        server = self.serve("--admin", "127.0.0.1:0")
        with server.connect() as client:
            self.assertEqual(client.rank("u", ["i"]).model, "home@2")
            server.admin("SetLabel", model="home", label="canary")  # to nothing
            answer = client.rank("u", ["i"])
            self.assertEqual((answer.model, answer.experiments), ("home@1", []))
            (warning,) = answer.warnings
            self.assertIn("experiments: left aside, for they cannot be served", warning)
            self.assertIn("canary", warning)


class Files(Experiments):

    GOOD = payload(model={"force": "mmoe"})
    BAD = {
        "no JSON": ("{", "expected JSON"),
        "another thing": ("[1]", "expected a GrowthBook SDK payload"),
        "deep": ("[" * 100000, "maximum parsing depth"),
        "large": ('{"features": {}}' + " " * (100 << 20), "expected at most 33554432 bytes, found 104857616"),
        "encrypted": ('{"encryptedFeatures": "a.b"}', "encryptedFeatures: expected a payload in clear text"),
        "an unknown key": (payload(ranking={"force": {"modle": "home"}}),
                           'feature "ranking": rules[0]: force: value: unknown key "modle"'),
        "an unknown model": (payload(model={"force": "best"}), 'feature "ranking.model": rules[0]: force: '),
        "an unknown version": (payload(model={"force": "home@9"}), "home@9"),
        "an unknown task": (payload(tasks={"force": ["buy"]}),
                            'feature "ranking.tasks": rules[0]: force: tasks[0]: expected a task of home@1'),
        "a fusion of no task": (payload(fusion={"force": weighted_sum(buy=1)}),
                                "fusion: weights: expected a task of the network, found \"buy\""),
        "weights": (payload(model=experiment("w", ["home", "mmoe"], [0.5, 0.4])),
                    'feature "ranking.model": rules[0] "w": weights: expected a sum of 1, found 0.9'),
        "ranges": (payload(model=experiment("r", ["home", "mmoe"], [0.5, 0.5], ranges=[[0, 0.6], [0.5, 1]])),
                   'feature "ranking.model": rules[0] "r": ranges: [0, 0.6] and [0.5, 1] overlap'),
    }

    def test_a_bad_file_is_one_clear_error_at_the_start(self):
        for name, (content, says) in self.BAD.items():
            with self.subTest(name):
                self.write(content)
                line = self.must_fail("serve", "--models", self.root, "--store", "none:", "--default-model",
                                      "home:stable", "--listen", "127.0.0.1:0", "--experiments", self.file,
                                      says=["experiments " + self.file, says])
                self.assertLess(len(line), 300)
        self.must_fail("serve", "--models", self.root, "--store", "none:", "--listen", "127.0.0.1:0",
                       "--experiments", self.path("nowhere.json"), says=["nowhere.json: No such file or directory"])

    def test_a_bad_file_leaves_the_one_before_and_a_good_one_replaces_it(self):
        self.write(self.GOOD)
        server = self.serve("--http", "127.0.0.1:0")
        with server.connect() as client:
            for name, (content, says) in self.BAD.items():
                with self.subTest(name):
                    seen = len(server.log)
                    self.write(content)
                    line = json.loads(server.wait_for_log('"experiments refused', start=seen))
                    self.assertIn(says, line["reason"])
                    self.assertEqual(client.rank("u", ["i"]).model, "mmoe@1")
            seen = len(server.log)
            self.write(payload(model={"force": "home@2"}))
            server.wait_for_log('"experiments loaded"', start=seen)
            self.assertEqual(client.rank("u", ["i"]).model, "home@2")
            # On SIGHUP too; what is there is there already, and a lost file is told again.
            os.unlink(self.file)
            server.wait_for_log("No such file or directory", start=seen)
            seen = len(server.log)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("No such file or directory", start=seen)
            self.assertEqual(client.rank("u", ["i"]).model, "home@2")
        self.assertEqual(server.terminate(), 0)

    def test_requests_under_way_are_ranked_while_the_file_changes(self):
        """Each answer is wholly of one file or of the other: its model and its experiments belong together."""
        def file(name, model):
            return payload(model=experiment(name, [model, model], [0.5, 0.5]),
                           tasks=experiment(name + "-tasks", [["click"], ["click"]], [0.5, 0.5]))

        models = {"one": "home@1", "two": "mmoe@1"}
        self.write(file("one", "home@1"))
        server = self.serve()
        with server.connect() as client:
            stream = client.rank_stream((harness.make_request("u%d" % i, ["i"]) for i in range(20000)),
                                        harness.DEADLINE_S * 5)
            for i, answer in enumerate(stream):
                if i % 500 == 0:
                    name = "two" if i % 1000 else "one"
                    self.write(file(name, models[name]))
                keys = sorted(a.experiment for a in answer.experiments)
                self.assertIn(keys, (["one", "one-tasks"], ["two", "two-tasks"]))
                self.assertEqual(answer.model, models[keys[0]])


if __name__ == "__main__":
    harness.main()
