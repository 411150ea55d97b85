"""What was served is what is logged: exposures and shadows of the real server, whatever happens beside them."""

import collections
import glob
import json
import os
import signal
import threading
import time

import grpc
import numpy as np

import harness
import random_models
import test_experiments as experiments

pb = harness.pb
RANK = "/homerank.v1.Ranker/Rank"
LAYERS = {
    "model": experiments.experiment("model-test", ["home@1", "home@2", "mmoe"], [0.5, 0.3, 0.2]),
    "fusion": experiments.experiment("fusion-test", [experiments.weighted_sum(click=1), experiments.weighted_sum(like=1)],
                                     [0.5, 0.5], coverage=0.8),
}


def assigned(response):
    """What an answer says of its experiments, as the log should."""
    return [(response.request_id, a.experiment, a.variation, a.variation_key, a.bucket, a.in_experiment, response.model)
            for a in response.experiments]


class Exposures(experiments.Experiments):
    def serve(self, *arguments):
        return super().serve("--exposures", self.path("log.jsonl"), *arguments)

    def lines(self):
        lines = []
        for path in glob.glob(self.path("log.jsonl*")):
            with open(path, encoding="utf-8") as file:
                lines += [json.loads(line) for line in file]
        return lines

    def logged(self):
        names = ("request_id", "experiment", "variation", "variation_key", "bucket", "in_experiment", "model")
        return collections.Counter(tuple(line[name] for name in names) for line in self.lines() if "shadow" not in line)


class OneToOne(Exposures):
    def test_every_answers_assignments_are_logged_once(self):
        self.write(experiments.payload(**LAYERS))
        server = self.serve("--exposures-max-bytes", "20000")  # rotates many times
        users = ["u%d" % i for i in range(500)]
        with server.connect() as client:
            answers = list(client.rank_stream(harness.make_request(u, ["i"], request_id="r-" + u) for u in users))
        before = time.time()
        self.assertEqual(server.terminate(), 0)
        expected = collections.Counter(a for answer in answers for a in assigned(answer))
        self.assertGreater(len(expected), 700)
        self.assertEqual(self.logged(), expected)
        self.assertGreater(len(glob.glob(self.path("log.jsonl.*"))), 5)
        by_request = {"r-" + u: u for u in users}
        for line in self.lines():
            self.assertEqual(line["user_id"], by_request[line["request_id"]])
            self.assertRegex(line["file"], "^[0-9a-f]{16}$")
            self.assertLess(abs(time.mktime(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone -
                                before), 300)

    def test_calls_that_fail_are_not_logged(self):
        self.write(experiments.payload(**LAYERS))
        server = self.serve()
        with server.connect() as client:
            client.rank("u1", ["i"], request_id="good")
            self.assert_rank_error("NOT_FOUND", "nope", lambda: client.rank("u1", ["i"], model="nope"))
            self.assert_rank_error("INVALID_ARGUMENT", "item_ids", lambda: client.rank("u1", []))
            self.assertEqual(client.rank("u1", ["i"], model="home@1", request_id="explicit").experiments, [])
        self.assertEqual(server.terminate(), 0)
        self.assertEqual({line["request_id"] for line in self.lines()}, {"good"})

    def test_log_and_answers_agree_under_load_cancels_reloads_and_a_sigterm(self):
        """Answers that came are in the log exactly; what else is there belongs to calls whose client went away."""
        files = [experiments.payload(**LAYERS), experiments.payload(model=LAYERS["model"])]
        self.write(files[0])
        server = self.serve()
        answered, gone, lock, stop = [], set(), threading.Lock(), threading.Event()

        def ask(thread):
            with server.channel() as channel:
                call = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString,
                                           response_deserializer=pb.RankResponse.FromString)
                n = 0
                while not stop.is_set():
                    n += 1
                    request_id = "%d-%d" % (thread, n)
                    request = pb.RankRequest(request_id=request_id, user_id="u%d" % (n % 97), item_ids=["i"] * (n % 50 + 1))
                    future = call.future(request, timeout=0.002 if n % 11 == 0 else harness.DEADLINE_S)
                    if n % 7 == 0:
                        future.cancel()
                    try:
                        response = future.result()
                        with lock:
                            answered.append(response)
                    except (grpc.FutureCancelledError, grpc.RpcError):
                        with lock:
                            gone.add(request_id)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for i in range(6):
            n = len(answered)
            harness.poll_until(lambda n=n: len(answered) > n + 150, "answers")
            self.write(files[(i + 1) % 2])
            server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGTERM)
        harness.poll_until(lambda: server.process.poll() is not None, "the server's end")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(server.wait(), 0)
        logged = self.logged()
        expected = collections.Counter(a for response in answered for a in assigned(response))
        self.assertEqual(expected - logged, collections.Counter())
        self.assertLessEqual({key[0] for key in logged - expected}, gone)
        self.assertEqual(max(logged.values()), 1)
        self.assertEqual(len({line["file"] for line in self.lines()}), 2)

    def test_a_full_disk_harms_no_answer_and_is_counted(self):
        self.write(experiments.payload(**LAYERS))
        server = experiments.Experiments.serve(self, "--exposures", "/dev/full", "--exposures-buffer-bytes", "8192",
                                               "--grace-ms", "1000")
        with server.connect() as client:
            answers = list(client.rank_stream(harness.make_request("u%d" % i, ["i"]) for i in range(300)))
        self.assertEqual(len(answers), 300)
        server.wait_for_log("exposures cannot be written", "No space left on device")
        self.assertEqual(server.terminate(), 0)
        lost = json.loads(next(line for line in server.log if "exposures were lost" in line))
        self.assertEqual(lost["lines"], sum(len(a.experiments) for a in answers))

    def test_a_redis_stream_gets_the_same_lines(self):
        redis = self.start_redis()
        self.write(experiments.payload(**LAYERS))
        server = self.serve("--exposure-stream", redis.uri())
        with server.connect() as client:
            list(client.rank_stream(harness.make_request("u%d" % i, ["i"]) for i in range(100)))
        self.assertEqual(server.terminate(), 0)
        with redis.connect() as connection:
            entries = [json.loads(fields[b"exposure"]) for _, fields in connection.xrange("hr:exposures")]
        self.assertGreater(len(entries), 100)
        self.assertEqual(entries, self.lines())


class Shadows(Exposures):
    def setUp(self):
        super().setUp()
        self.paths = random_models.generate(self.path("random"), "home1", 5)
        self.root = os.path.dirname(os.path.dirname(self.paths["model"]))
        config, _ = random_models.make_config("home1", 5)
        tensors = random_models.make_tensors(np.random.default_rng(1), random_models.expected_shapes(config))
        random_models.write_model(os.path.join(self.root, "second", "1"), config, tensors, np.random.default_rng(1))
        self.first = os.path.basename(os.path.dirname(self.paths["model"]))
        with open(self.paths["requests"], encoding="utf-8") as file:
            self.requests = [json.loads(line) for line in file]

    def serve(self, *arguments):
        self.must_run("features", "load", "--store", "lmdb:" + self.path("store"), "--in", self.paths["records"])
        return self.start_server("--models", self.root, "--store", "lmdb:" + self.path("store"), "--default-model",
                                 self.first, "--experiments", self.file, "--exposures", self.path("log.jsonl"), *arguments)

    def shadow(self, percent):
        self.write({"features": {"ranking": {"defaultValue": {"shadow": {"model": "second", "percent": percent}}}}})

    def ranked(self, client, request, i, **changes):
        request = harness.request_of_json(request, request_id="r%d" % i, **changes)
        return client.rank_request(request, harness.DEADLINE_S)

    def test_a_shadow_is_the_second_models_own_ranking(self):
        self.shadow(100)
        server = self.serve()
        with server.connect() as client:
            for i, request in enumerate(self.requests):
                self.ranked(client, request, i, top_k=3, tasks=[])
            pairs = [[self.ranked(client, request, i, model=model, top_k=0, tasks=[]) for model in (self.first, "second")]
                     for i, request in enumerate(self.requests)]
        harness.poll_until(lambda: len(self.lines()) == len(self.requests), "all shadows")
        self.assertEqual(server.terminate(), 0)
        lines = {line["request_id"]: line for line in self.lines()}
        for i, (first, second) in enumerate(pairs):
            shadow = lines["r%d" % i]["shadow"]
            self.assertEqual((shadow["model"], shadow["answered"], shadow["items"]), ("second@1", first.model, len(first)))
            self.check(shadow, first, second)

    def check(self, shadow, first, second):
        """Against ranks and overlaps by definition. Items may repeat: they are told by their place among equals."""
        top = [collections.Counter(row.item_id for row in answer.rows[:10]) for answer in (first, second)]
        if len(set(row.item_id for row in first)) == len(first):
            overlap = sum((top[0] & top[1]).values()) / min(10, len(first))
            self.assertAlmostEqual(shadow["top10_overlap"], overlap, delta=1e-12)
            scores = [{row.item_id: row.score for row in answer} for answer in (first, second)]
            ranks = [{i: np.mean([k for k, v in enumerate(sorted(s.values(), reverse=True)) if v == s[i]]) for i in s}
                     for s in scores]
            columns = np.array([[r[i] for i in scores[0]] for r in ranks])
            if columns.std(1).min() > 0:
                self.assertAlmostEqual(shadow["rank_correlation"], np.corrcoef(columns)[0, 1], delta=1e-9)
            else:
                self.assertIsNone(shadow["rank_correlation"])
            for task in first.tasks:
                outputs = [{row.item_id: row.tasks[task] for row in answer} for answer in (first, second)]
                difference = np.mean([abs(outputs[0][i] - outputs[1][i]) for i in outputs[0]])
                self.assertAlmostEqual(shadow["mean_absolute_difference"][task] / (difference or 1), 1 if difference else 0,
                                       delta=1e-6)

    def test_a_share_of_the_requests_is_shadowed_and_answers_are_the_same(self):
        self.shadow(30)
        server = self.serve()
        with server.connect() as client:
            answers = [self.ranked(client, self.requests[i % len(self.requests)], i) for i in range(400)]
            plain = [self.ranked(client, request, i, model=self.first) for i, request in enumerate(self.requests)]
        for i, answer in enumerate(plain):
            self.assertEqual(harness.answer_as_json(answers[i]), harness.answer_as_json(answer))
        self.assertEqual(server.terminate(), 0)
        share = len({line["request_id"] for line in self.lines()}) / 400
        self.assertLess(abs(share - 0.3), 4 * (0.3 * 0.7 / 400) ** 0.5 + 0.02)  # some at the end are dropped

    def test_shadows_hold_no_more_than_their_share_of_the_memory(self):
        """A quarter of --max-open-bytes, with the answer: a small request's fits, a large one's does not."""
        self.shadow(100)
        server = self.serve("--max-open-bytes", str(1 << 20))
        with server.connect() as client:
            for n in (1, 5000, 1):
                request = harness.make_request("u", ["i%d" % i for i in range(n)], request_id="r%d" % n)
                self.assertEqual(len(client.rank_request(request, harness.DEADLINE_S)), n)
            harness.poll_until(lambda: len(self.lines()) == 2, "the small requests' shadows")
        self.assertEqual(server.terminate(), 0)
        self.assertEqual([line["request_id"] for line in self.lines()], ["r1", "r1"])

    def test_shadows_that_fail_and_a_sigterm_harm_nothing(self):
        self.shadow(100)
        server = self.serve("--threads", "1")
        with server.connect() as client:
            answers = harness.send_all(client, [harness.request_of_json(r) for r in self.requests * 10])
        self.assertEqual(len(answers), len(self.requests) * 10)
        self.assertEqual(server.terminate(), 0)
        self.assertLessEqual(len(self.lines()), len(answers))


if __name__ == "__main__":
    harness.main()
