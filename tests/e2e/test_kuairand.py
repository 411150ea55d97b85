"""The trained model on real impressions: offline, and through the server with a real Redis.

Needs HOMERANK_SHARED. The fifty requests with known answers, then every impression of 4 May, one request per user
and hour. `tab` belongs to the request as in requests.jsonl, so the 239 user-hours that span several tabs (of
14,689) are one request per tab. HOMERANK_AUC_REPORT=1 prints the table of AUCs.
"""

import collections
import csv
import gzip
import os

import numpy as np

import harness

import compare
from homerank_eval import Model, read_store

DAY = "20220504"
LABELS = {"click": "is_click", "like": "is_like", "follow": "is_follow", "comment": "is_comment",
          "forward": "is_forward", "long_view": "long_view", "profile_enter": "is_profile_enter"}
AUC_BOUND = 2e-4
BF16_WORST, BF16_MEAN = 1e-2, 1e-3  # MODEL 5: probabilities of a trained model


def auc(labels, scores):
    """The area under the ROC curve, by ranks; ties count half."""
    scores, labels = np.asarray(scores), np.asarray(labels, bool)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    n_positive, n_negative = labels.sum(), (~labels).sum()
    return (ranks[labels].sum() - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


def impressions():
    """The day's requests in JSON form, and per request the labels {task: [0 or 1 per item]}."""
    groups = collections.OrderedDict()
    with gzip.open(harness.shared("data", "kuairand", "log_0425_0504.csv.gz"), "rt") as file:
        for row in csv.DictReader(file):
            if row["date"] == DAY:
                key = (row["user_id"], int(row["hourmin"]) // 100, int(row["tab"]))
                groups.setdefault(key, []).append(row)
    requests, labels = [], []
    for i, ((user_id, hour, tab), rows) in enumerate(groups.items()):
        requests.append({"request_id": "d%d" % i, "user_id": user_id, "item_ids": [row["video_id"] for row in rows],
                         "context": {"tab": tab, "hour": hour}})
        labels.append([{task: int(row[column]) for task, column in LABELS.items()} for row in rows])
    return requests, labels


def in_request_order(request, answer):
    """The answer's rows by position in the request; an item that stands there twice has equal rows."""
    rows = {row.item_id: row for row in answer}
    return [rows[item_id] for item_id in request["item_ids"]]


def evaluate_all(model, store, requests):
    """Logits (rows, T) of all items of all requests; each user, item and context is encoded once."""
    users, items, contexts, rows = {}, {}, {}, []
    for request in requests:
        user_id, context = request["user_id"], request["context"]
        if user_id not in users:
            users[user_id] = model.encode("user", store["user"].get(user_id, {}), {}, user_id)
        key = tuple(context.items())
        if key not in contexts:
            contexts[key] = model.encode("context", {}, context)
        for item_id in request["item_ids"]:
            if item_id not in items:
                items[item_id] = model.encode("item", store["item"].get(item_id, {}), {}, item_id)
            rows.append(model.vector(users[user_id], contexts[key], items[item_id]))
    return np.concatenate([model.forward(np.stack(rows[i:i + 2048])) for i in range(0, len(rows), 2048)])


class KuaiRand(harness.Case):

    @classmethod
    def setUpClass(cls):
        cls.fixture = harness.shared("models", "kuairand")
        cls.model_folder = os.path.join(cls.fixture, "1")
        cls.model = Model(cls.model_folder)
        cls.records = os.path.join(cls.fixture, "features.jsonl.gz")
        cls.store = read_store(cls.records)
        cls.requests = compare.read_lines(os.path.join(cls.fixture, "requests.jsonl"))
        cls.answers = compare.read_lines(os.path.join(cls.fixture, "expected.jsonl"))

    def setUp(self):
        super().setUp()
        os.makedirs(self.path("models"))
        os.symlink(self.fixture, self.path("models", "kuairand"))

    def check_fifty(self, answers, precision):
        """The published logits bound each output, and their order holds where it must."""
        self.assertEqual(len(answers), len(self.requests))
        differences = []
        for request, published, answer in zip(self.requests, self.answers, answers):
            by_id = {item["item_id"]: item for item in published["items"]}
            logits = np.array([by_id[item_id]["logits"] for item_id in request["item_ids"]])
            compare.Expected(self.model, request, None, precision, logits).check(answer)
            self.assertEqual(answer["model"], "kuairand@1")
            for row in answer["items"]:
                differences += [abs(p - by_id[row["item_id"]]["tasks"][task]) for task, p in row["tasks"].items()]
        if precision == "bf16":
            self.assertLessEqual(max(differences), BF16_WORST)
            self.assertLessEqual(np.mean(differences), BF16_MEAN)

    def test_score_with_lmdb_gives_the_published_answers(self):
        uri = "lmdb:" + self.path("store.lmdb")
        self.must_run("features", "load", "--store", uri, "--in", self.records)
        for precision in ("f32", "bf16"):
            with self.subTest(precision=precision):
                self.must_run("score", "--model", self.model_folder, "--store", uri, "--precision", precision, "--in",
                              os.path.join(self.fixture, "requests.jsonl"), "--out", self.path("out.jsonl"))
                self.check_fifty(compare.read_lines(self.path("out.jsonl")), precision)

    def serve(self, uri, precision):
        return self.start_server("--models", self.path("models"), "--store", uri, "--precision", precision,
                                 "--store-timeout-ms", "10000")

    def rank_fifty(self, client):
        return [harness.answer_as_json(answer) for answer in
                harness.send_all(client, [harness.request_of_json(line) for line in self.requests])]

    def test_the_server_with_hash_records_gives_the_published_answers(self):
        uri = self.start_redis().uri("hash")
        self.must_run("features", "load", "--store", uri, "--in", self.records)
        for precision in ("f32", "bf16"):
            with self.subTest(precision=precision):
                server = self.serve(uri, precision)
                with server.connect() as client:
                    self.check_fifty(self.rank_fifty(client), precision)
                self.assertEqual(server.terminate(), 0)

    def test_the_server_with_packed_records_gives_the_published_answers_and_a_days_auc(self):
        uri = self.start_redis().uri("packed")
        self.must_run("features", "load", "--store", uri, "--in", self.records)
        requests, labels = impressions()
        self.assertEqual(sum(len(request["item_ids"]) for request in requests), 17226)
        flat = {task: [label[task] for rows in labels for label in rows] for task in LABELS}
        logits = evaluate_all(self.model, self.store, requests)
        outputs = self.model.outputs(logits)
        for precision in ("f32", "bf16"):
            server = self.serve(uri, precision)
            with server.connect() as client:
                with self.subTest(precision=precision, part="fifty"):
                    self.check_fifty(self.rank_fifty(client), precision)
                with self.subTest(precision=precision, part="a day"):
                    messages = [harness.request_of_json(request) for request in requests]
                    answers = harness.send_all(client, messages)
                    self.check_day(requests, answers, flat, logits, outputs, precision)
            self.assertEqual(server.terminate(), 0)

    def check_day(self, requests, answers, labels, logits, outputs, precision):
        served = {task: [] for task in LABELS}
        for request, answer in zip(requests, answers):
            self.assertEqual((answer.request_id, answer.warnings, answer.features.store_error),
                             (request["request_id"], [], ""))
            for row in in_request_order(request, answer):
                for task in LABELS:
                    served[task].append(row.tasks[task])
        bound = compare.logit_bound(logits, precision)
        low, high = self.model.outputs(logits - bound), self.model.outputs(logits + bound)
        for t, task in enumerate(self.model.task_names):
            found, expected = auc(labels[task], served[task]), auc(labels[task], outputs[:, t])
            if os.environ.get("HOMERANK_AUC_REPORT"):
                print("%-4s %-14s served %.6f float64 %.6f difference %+.1e" %
                      (precision, task, found, expected, found - expected))
            with self.subTest(precision=precision, task=task):
                self.assertLessEqual(abs(found - expected), AUC_BOUND)
                p = np.array(served[task])
                slack = compare.FLOAT32_ROUNDING * p
                self.assertTrue(((p >= low[:, t] - slack) & (p <= high[:, t] + slack)).all())


if __name__ == "__main__":
    harness.main()
