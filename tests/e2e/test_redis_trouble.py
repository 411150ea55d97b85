"""What a caller sees when its Redis is in trouble: always an answer, in time, that says what is missing.

docs/features.md has the table of what is shown here. There is no cache here, which would stand in for a while.
"""

import signal
import tempfile
import threading
import time

import redis

import harness
from harness import homerank

import random_models
from homerank_eval import Model, read_store

import compare

STORE_TIMEOUT_S = 0.2
DEADLINE_S = 2.0  # of a call; ten times the store's timeout, so that a busy machine does not decide
N_ITEMS = 40


class Burst:
    """Calls of four threads at once: every outcome, and how long each took."""

    def __init__(self, server, request, n_calls=60, until=None):
        self.outcomes, self.seconds = [], []
        self._left, self._lock, self._until = n_calls, threading.Lock(), until
        threads = [threading.Thread(target=self._work, args=(server, request)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self):
        with self._lock:
            self._left -= 1
            return self._left >= 0 or (self._until is not None and not self._until.is_set())

    def _work(self, server, request):
        with server.connect() as client:
            while self._take():
                begun = time.monotonic()
                try:
                    outcome = client.rank_request(request, timeout=DEADLINE_S)
                except homerank.RankError as error:
                    outcome = error
                with self._lock:
                    self.outcomes.append(outcome)
                    self.seconds.append(time.monotonic() - begun)

    def p99(self):
        return sorted(self.seconds)[int(len(self.seconds) * 0.99) - 1]


def is_whole(answer):
    return answer.features.user_found and answer.features.items_missing == 0 and not answer.warnings


class RedisTrouble(harness.Case):

    @classmethod
    def setUpClass(cls):
        cls.folder_of_model = tempfile.TemporaryDirectory(prefix="homerank-e2e-")
        cls.addClassCleanup(cls.folder_of_model.cleanup)
        cls.paths = random_models.generate(cls.folder_of_model.name, "home2", 1)
        cls.model, cls.store = Model(cls.paths["model"]), read_store(cls.paths["records"])

    def setUp(self):
        super().setUp()
        self.line = {"request_id": "r", "user_id": "1", "context": {}, "item_ids": list(self.store["item"])[:N_ITEMS]}
        self.request = harness.request_of_json(self.line)
        self.redis = self.start_redis()
        self.load()

    def load(self):
        self.must_run("features", "load", "--store", self.redis.uri(), "--in", self.paths["records"])

    def serve(self, *options, timeout_s=STORE_TIMEOUT_S):
        return self.start_server("--models", self.folder_of_model.name, "--store", self.redis.uri(),
                                 "--cache-bytes", "0", "--store-timeout-ms", str(int(timeout_s * 1000)), *options)

    def check(self, answer, store):
        compare.Expected(self.model, self.line, store, "f32").check(harness.answer_as_json(answer))

    def burst(self, server, **options):
        """A burst of which no call fails, and 99 % are answered well before their deadline."""
        burst = Burst(server, self.request, **options)
        for outcome in burst.outcomes:
            self.assertIsInstance(outcome, homerank.Answer, outcome)
            self.assertEqual(len(outcome), N_ITEMS)
        self.assertLess(burst.p99(), DEADLINE_S / 2)
        return burst

    def expect_degraded(self, answer, *words):
        """Scored with defaults where records are missing, and the answer says why."""
        self.assertFalse(answer.features.user_found)
        self.assertEqual(answer.features.items_missing, N_ITEMS)
        self.assertEqual(len(answer.warnings), 1)
        self.assertIn("127.0.0.1:%d" % self.redis.port, answer.features.store_error)
        if words:
            self.assertTrue(any(word in answer.features.store_error for word in words), answer.features.store_error)
        self.check(answer, {})

    def expect_whole_again(self, server):
        with server.connect() as client:
            answer = harness.poll_until(lambda: next(
                (a for a in [client.rank_request(self.request, timeout=DEADLINE_S)] if is_whole(a)), None), "whole answers")
        self.check(answer, self.store)
        self.assertEqual(server.terminate(), 0)

    def test_a_stopped_server_costs_a_few_calls_the_stores_timeout_and_the_rest_nothing(self):
        server = self.serve()
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        self.redis.process.send_signal(signal.SIGSTOP)
        burst = self.burst(server)
        for answer in burst.outcomes:
            self.expect_degraded(answer, "no answer within 200 ms", "no answer for 200 ms", "no connection within")
        waited = [seconds for seconds in burst.seconds if seconds > STORE_TIMEOUT_S * 0.9]
        self.assertLess(len(waited), 20)  # then it is not asked any more
        self.redis.process.send_signal(signal.SIGCONT)
        self.expect_whole_again(server)

    def test_a_call_whose_records_are_late_is_scored_with_defaults_before_its_deadline(self):
        server = self.serve(timeout_s=harness.DEADLINE_S)
        with server.connect() as client:
            self.assertTrue(is_whole(client.rank_request(self.request)))
            self.redis.process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            answer = client.rank_request(self.request, timeout=4)
            self.assertGreater(time.monotonic() - begun, 2)
            self.expect_degraded(answer, "the call's deadline came before the answer")
            self.redis.process.send_signal(signal.SIGCONT)
        self.expect_whole_again(server)

    def test_a_killed_server_is_missed_at_once_and_an_empty_one_has_no_records(self):
        server = self.serve()
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        self.redis.kill()
        burst = self.burst(server)
        for answer in burst.outcomes:
            self.expect_degraded(answer)
        self.redis.start()
        with server.connect() as client:
            answer = harness.poll_until(lambda: next(
                (a for a in [client.rank_request(self.request)] if a.features.store_error == ""), None), "an empty store")
        self.assertEqual((answer.features.user_found, answer.features.items_missing, len(answer.warnings)),
                         (False, N_ITEMS, 0))  # which is no trouble to speak of
        self.check(answer, {})
        self.load()
        self.expect_whole_again(server)

    def test_a_slow_server_is_waited_for_as_long_as_the_stores_timeout(self):
        server = self.serve()
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        awake = threading.Event()

        def sleep():
            try:
                with self.redis.connect() as connection:
                    connection.execute_command("DEBUG", "SLEEP", "1.5")
            finally:
                awake.set()

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        burst = self.burst(server, until=awake)
        sleeper.join()
        degraded = [answer for answer in burst.outcomes if not is_whole(answer)]
        self.assertTrue(degraded)
        for answer in degraded:
            self.expect_degraded(answer)
        self.expect_whole_again(server)

    def test_a_full_server_is_read_as_before(self):
        server = self.serve()
        with self.redis.connect() as connection:
            connection.config_set("maxmemory", 1)
            with self.assertRaises(redis.exceptions.ResponseError):
                connection.set("more", "x")
            self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
            connection.config_set("maxmemory-policy", "allkeys-random")
            harness.poll_until(lambda: connection.dbsize() == 0, "eviction")
        for answer in self.burst(server).outcomes:
            self.assertEqual((answer.features.items_missing, answer.features.store_error), (N_ITEMS, ""))
        self.assertEqual(server.terminate(), 0)

    def test_a_loading_server_is_waited_for_at_nobodys_cost(self):
        server = self.serve()
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        with self.redis.connect() as connection:
            connection.save()
        self.redis.kill()
        n_log = len(server.log)
        # 20 ms a key, so that it takes a while.
        self.redis.start("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
        server.wait_for_log("redis", "LOADING", start=n_log)
        for answer in self.burst(server).outcomes:
            self.expect_degraded(answer)
        self.expect_whole_again(server)

    def test_a_server_that_wants_a_password_says_so(self):
        server = self.serve()
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        connection = self.redis.connect()
        connection.ping()
        connection.config_set("requirepass", "secret")
        connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        server.wait_for_log("redis", "NOAUTH")
        for answer in self.burst(server).outcomes:
            self.expect_degraded(answer)
        with server.connect() as client:
            self.expect_degraded(client.rank_request(self.request), "NOAUTH")
        connection.config_set("requirepass", "")
        connection.close()
        self.expect_whole_again(server)

    def test_values_that_are_no_records_are_missing_each_by_itself(self):
        server = self.serve()
        items = self.line["item_ids"]
        with self.redis.connect() as connection:
            key = ["hr:item:" + item for item in items]
            whole = connection.get(key[0])
            connection.set(key[0], whole[:-1])
            connection.set(key[1], b"\xff" * 100)
            connection.delete(key[2], key[3])
            connection.rpush(key[2], "a")
            connection.hset(key[3], "f", "1")
        store = {"user": self.store["user"],
                 "item": {k: v for k, v in self.store["item"].items() if k not in items[:4]}}
        burst = self.burst(server)
        for answer in burst.outcomes:
            self.assertEqual((answer.features.user_found, answer.features.store_error), (True, ""))
            self.assertEqual(answer.features.items_missing, 2)  # the list and the hash are not read as records at all
            self.assertGreaterEqual(answer.features.values_invalid, 2)
        self.check(burst.outcomes[0], store)
        self.assertEqual(server.terminate(), 0)

    def test_a_value_of_100_mb_costs_its_item_alone_and_no_memory(self):
        patient = self.serve("--max-call-bytes", str(16 << 20), timeout_s=harness.DEADLINE_S)
        server = self.serve("--max-call-bytes", str(16 << 20))
        self.assertTrue(all(map(is_whole, self.burst(server).outcomes)))
        before = peak_memory(server)
        items = self.line["item_ids"]
        with self.redis.connect() as connection:
            connection.delete("hr:item:" + items[0])
            connection.setrange("hr:item:" + items[0], 100 << 20, "x")
        store = {"user": self.store["user"], "item": {k: v for k, v in self.store["item"].items() if k != items[0]}}
        for answer in self.burst(server, n_calls=20).outcomes:
            self.assertNotEqual(answer.features.store_error, "")
        with patient.connect() as client:
            answer = client.rank_request(self.request)
        self.assertEqual(answer.features.items_missing, 1)
        self.assertIn("memory is too small", answer.features.store_error)
        self.check(answer, store)
        self.assertEqual(patient.terminate(), 0)
        self.assertLess(peak_memory(server) - before, 64 << 20)
        with self.redis.connect() as connection:
            connection.delete("hr:item:" + items[0])
        self.load()
        self.expect_whole_again(server)


def peak_memory(server):
    """The most that the process has had in memory, in bytes."""
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    harness.main()
