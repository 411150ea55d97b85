"""What a call sees when the store dies and comes back, and when the server is told to end under load."""

import json
import threading

import harness
from harness import homerank

import random_models
from homerank_eval import Model, read_store

import compare


NO_CACHE = ("--cache-bytes", "0")  # test_cache.py has what it changes


class Load:
    """Threads that send one request over and over; every call's outcome is kept."""

    def __init__(self, server, request, n_threads=6):
        self.server, self.request = server, request
        self.outcomes, self.stopping = [], threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work) for _ in range(n_threads)]
        for thread in self._threads:
            thread.start()

    def _work(self):
        with self.server.connect() as client:
            while not self.stopping.is_set():
                try:
                    outcome = client.rank_request(self.request, timeout=harness.DEADLINE_S)
                except homerank.RankError as error:
                    outcome = error
                with self._changed:
                    self.outcomes.append(outcome)
                    self._changed.notify_all()
                if isinstance(outcome, homerank.RankError):
                    return

    def wait_for(self, condition, what):
        """Until the condition holds of some outcome that is yet to come."""
        with self._changed:
            start = len(self.outcomes)
            if not self._changed.wait_for(lambda: any(condition(o) for o in self.outcomes[start:]), harness.DEADLINE_S):
                raise AssertionError("no call was answered %s; the last: %r" % (what, vars(self.outcomes[-1])))

    def stop(self):
        self.stopping.set()
        for thread in self._threads:
            thread.join()


def is_whole(outcome):
    return isinstance(outcome, homerank.Answer) and outcome.features.user_found and not outcome.warnings


def is_degraded(outcome):
    return (isinstance(outcome, homerank.Answer) and not outcome.features.user_found and
            outcome.features.store_error != "" and len(outcome.warnings) > 0)


class Degradation(harness.Case):

    def setUp(self):
        super().setUp()
        self.paths = random_models.generate(self.path("models"), "home2", 1)
        self.model, self.store = Model(self.paths["model"]), read_store(self.paths["records"])
        self.line = {"request_id": "load", "user_id": "1", "context": {},
                     "item_ids": [r for r in list(self.store["item"])[:40]]}
        self.request = harness.request_of_json(self.line)

    def check(self, answer, store):
        compare.Expected(self.model, self.line, store, "f32").check(harness.answer_as_json(answer))

    def test_redis_may_die_and_come_back_while_requests_run(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(),
                                   *NO_CACHE)
        load = Load(server, self.request)
        self.addCleanup(load.stop)
        load.wait_for(is_whole, "with features")
        n_log = len(server.log)
        redis.kill()
        load.wait_for(is_degraded, "with defaults")
        server.wait_for_log("redis", '"level":"warn"', start=n_log)
        redis.start()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        load.wait_for(is_whole, "with features again")
        load.stop()
        for outcome in load.outcomes:
            self.assertIsInstance(outcome, homerank.Answer, outcome)
            self.assertEqual(len(outcome), 40)
        self.check(next(o for o in load.outcomes if is_whole(o)), self.store)
        self.check(next(o for o in load.outcomes if is_degraded(o)), {})
        self.check(next(o for o in reversed(load.outcomes) if is_whole(o)), self.store)
        degraded = next(o for o in load.outcomes if is_degraded(o))
        self.assertEqual(degraded.features.items_missing, 40)
        self.assertEqual(server.terminate(), 0)

    def test_a_server_that_starts_before_its_redis_serves_defaults_until_then(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        redis.kill()
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(),
                                   *NO_CACHE)
        load = Load(server, self.request, 1)
        self.addCleanup(load.stop)
        load.wait_for(is_degraded, "with defaults")
        redis.start()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        load.wait_for(is_whole, "with features")
        load.stop()
        self.assertEqual(server.terminate(), 0)

    def test_a_strict_request_is_unavailable_while_redis_is_down(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(),
                                   *NO_CACHE)
        strict = harness.request_of_json(self.line, strict_features=True)
        with server.connect() as client:
            self.check(client.rank_request(strict), self.store)
            redis.kill()
            self.assert_rank_error("UNAVAILABLE", "redis", lambda: client.rank_request(strict))
            self.check(client.rank_request(self.request), {})
        self.assertEqual(server.terminate(), 0)

    def test_values_of_a_wrong_type_or_truncated_count_as_missing_and_are_counted(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(),
                                   *NO_CACHE)
        items = self.line["item_ids"]
        with redis.connect() as connection, server.connect() as client:
            n_before = client.rank_request(self.request).features.values_invalid
            key = "hr:item:" + items[0]
            whole = connection.get(key)
            self.assertTrue(whole)
            store = {"user": self.store["user"], "item": {k: v for k, v in self.store["item"].items() if k != items[0]}}
            values = {"truncated": whole[:-1], "no protobuf": b"\xff" * 40,
                      "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 8,
                      "deep nesting": b"\x0a\x7f" * 4000, "text": b"not a record"}
            for name, value in values.items():
                with self.subTest(value=name):
                    connection.set(key, value)
                    answer = client.rank_request(self.request)
                    self.check(answer, store)
                    self.assertGreater(answer.features.values_invalid, 0)
            with self.subTest(value="a list"):
                connection.delete(key)
                connection.rpush(key, "a", "b")
                answer = client.rank_request(self.request)
                self.check(answer, store)
                self.assertEqual(answer.features.store_error, "")
            connection.delete(key)
            connection.set(key, whole)
            answer = client.rank_request(self.request)
            self.check(answer, self.store)
            self.assertEqual(answer.features.values_invalid, n_before)
        self.assertEqual(server.terminate(), 0)

    def test_sigterm_under_load_answers_every_accepted_call(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(),
                                   *NO_CACHE)
        load = Load(server, self.request, 8)
        self.addCleanup(load.stop)
        load.wait_for(is_whole, "with features")
        self.assertEqual(server.terminate(), 0)
        load.stop()
        answers = [o for o in load.outcomes if isinstance(o, homerank.Answer)]
        errors = [o for o in load.outcomes if isinstance(o, homerank.RankError)]
        # A call is answered whole, or was never accepted: refused because the server drains or is gone.
        self.assertEqual(len(errors), 8)
        self.assertEqual({error.status for error in errors}, {"UNAVAILABLE"}, errors)
        self.assertTrue(all(is_whole(answer) and len(answer) == 40 for answer in answers))
        counts = json.loads(server.wait_for_log('"gRPC stopped"'))
        self.assertEqual((counts["answered"], counts["cancelled"]), (counts["accepted"], 0), counts)
        self.assertGreaterEqual(counts["answered"], len(answers))

    def test_sigterm_lets_a_stream_finish_what_it_sent(self):
        server = self.start_server("--models", self.path("models"), "--store", "none:")
        sent, gate = threading.Semaphore(0), threading.Event()
        n = 20

        def requests():
            for _ in range(n):
                sent.release()
                yield self.request
            gate.wait(harness.DEADLINE_S)

        with server.connect() as client:
            answers = client.rank_stream(requests())
            received = [next(answers) for _ in range(n)]
            server.process.send_signal(harness.signal.SIGTERM)
            server.wait_for_log("shutting down")
            gate.set()
            try:
                received += list(answers)
            except homerank.RankError as error:
                self.assertEqual(error.status, "UNAVAILABLE")
            self.assertEqual(len(received), n)
        self.assertEqual(server.wait(), 0)


if __name__ == "__main__":
    harness.main()
