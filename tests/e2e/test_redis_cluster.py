"""Ranking with features from a Redis Cluster: the scores of a single server, while slots move and masters die."""

import json
import subprocess
import tempfile
import threading
import time

import harness
from harness import homerank
from redis_cluster import RedisCluster

import random_models
from homerank_eval import Model, read_store

import compare

CACHED = '"redis tells of changed records'


class Load:
    """Threads that send one request over and over; every outcome, and when it came."""

    def __init__(self, server, request, n_threads=3):
        self.outcomes, self._stopping, self._changed = [], threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._work, args=(server, request)) for _ in range(n_threads)]
        for thread in self._threads:
            thread.start()

    def _work(self, server, request):
        with server.connect() as client:
            while not self._stopping.is_set():
                try:
                    outcome = client.rank_request(request, timeout=harness.DEADLINE_S)
                except homerank.RankError as error:
                    outcome = error
                with self._changed:
                    self.outcomes.append((time.monotonic(), outcome))
                    self._changed.notify_all()

    def wait_for(self, n_more):
        with self._changed:
            n = len(self.outcomes) + n_more
            if not self._changed.wait_for(lambda: len(self.outcomes) >= n, harness.DEADLINE_S):
                raise AssertionError("calls stand still")

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        return self.outcomes


def is_whole(answer):
    return answer.features.user_found and answer.features.items_missing == 0 and not answer.warnings


class Cluster(harness.Case):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="homerank-e2e-")
        cls.addClassCleanup(folder.cleanup)
        cls.models = folder.name
        cls.paths = random_models.generate(folder.name, "home2", 1)
        cls.model, cls.store = Model(cls.paths["model"]), read_store(cls.paths["records"])
        cls.line = {"request_id": "r", "user_id": "1", "context": {}, "item_ids": list(cls.store["item"])[:40]}
        cls.request = harness.request_of_json(cls.line)
        cls.single = harness.Redis(folder.name)
        cls.addClassCleanup(cls.single.close)
        subprocess.run([harness.binary(), "features", "load", "--store", cls.single.uri(), "--in", cls.paths["records"]],
                       check=True, stderr=subprocess.DEVNULL)
        cls.cluster = RedisCluster(folder.name)
        cls.addClassCleanup(cls.cluster.close)
        with cls.single.connect() as connection:
            cls.cluster.set_all({key: connection.get(key) for key in connection.keys()})

    def serve(self, uri, *options):
        options = options or ("--cache-bytes", "0")
        return self.start_server("--models", self.models, "--store", uri, "--store-timeout-ms", "2000", *options)

    def check(self, answer, store):
        compare.Expected(self.model, self.line, store, "f32").check(harness.answer_as_json(answer))

    def test_scores_are_those_of_a_single_server(self):
        requests = [harness.request_of_json(line) for line in self.read_requests()]
        one, many = self.serve(self.single.uri()), self.serve(self.cluster.uri())
        replicas = self.serve(self.cluster.uri("read=replica", "hedge=on"))
        with one.connect() as a, many.connect() as b, replicas.connect() as c:
            for request in requests:
                expected = harness.answer_as_json(a.rank_request(request))
                self.assertEqual(harness.answer_as_json(b.rank_request(request)), expected)
                self.assertEqual(harness.answer_as_json(c.rank_request(request)), expected)
            answer = b.rank_request(self.request)
            self.assertTrue(is_whole(answer))
            self.check(answer, self.store)

    def read_requests(self):
        with open(self.paths["requests"], encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def test_records_are_loaded_looked_through_and_printed_by_the_tools(self):
        for layout in ("packed", "hash"):
            options = ("layout=" + layout, "prefix=" + layout)
            one, many = self.single.uri(layout, layout), self.cluster.uri(*options)
            loaded = [self.run_command("features", "load", "--store", store, "--in", self.paths["records"])
                      for store in (one, many)]
            self.assertEqual(loaded[1].returncode, loaded[0].returncode)  # a hash cannot hold all of these records
            with self.subTest(layout=layout):
                for item in self.line["item_ids"][:8]:
                    printed = [self.must_run("features", "get", "--store", store, "--entity", "item", "--id", item).stdout
                               for store in (one, many)]
                    self.assertEqual(json.loads(printed[1]), json.loads(printed[0]))
                self.must_fail("features", "get", "--store", many, "--entity", "item", "--id", "nobody", says=["nobody"])
                said = [self.must_run("features", "stats", "--store", store, "--model", self.paths["model"]).stdout
                        for store in (one, many)]
                self.assertEqual(said[1].replace(many, "STORE"), said[0].replace(one, "STORE"))
                answers = []
                for store in (one, many):
                    server = self.serve(store)
                    with server.connect() as client:
                        answers.append(harness.answer_as_json(client.rank_request(self.request)))
                    self.assertEqual(server.terminate(), 0)
                self.assertEqual(answers[1], answers[0])

    def test_a_load_into_a_slot_that_has_moved_says_so(self):
        key = "moved:item:" + self.line["item_ids"][0]
        source = self.cluster.master_of(key)
        target = next(m for m in self.cluster.masters().values() if m != source)
        slot = self.cluster.ask(source, "CLUSTER", "KEYSLOT", key)
        ids = {port: self.cluster.ask(port, "CLUSTER", "MYID") for port in (source, target)}
        self.cluster.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self.cluster.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        self.must_fail("features", "load", "--store", self.cluster.uri("prefix=moved"), "--in", self.paths["records"],
                       says=["ASK %d" % slot])
        for port in (source, target):
            self.cluster.ask(port, "CLUSTER", "SETSLOT", slot, "STABLE")
        self.must_run("features", "load", "--store", self.cluster.uri("prefix=moved"), "--in", self.paths["records"])

    def test_a_slot_that_moves_there_and_back_under_load_is_not_noticed(self):
        server = self.serve(self.cluster.uri())
        load = Load(server, self.request)
        self.addCleanup(load.stop)
        load.wait_for(20)
        for item in self.line["item_ids"][:3]:
            key = "hr:item:" + item
            source = self.cluster.master_of(key)
            target = next(m for m in self.cluster.masters().values() if m != source)
            self.cluster.move_slot_of(key, target)
            load.wait_for(20)
            self.cluster.move_slot_of(key, source)
            load.wait_for(20)
        for _, outcome in load.stop():
            self.assertIsInstance(outcome, homerank.Answer, outcome)
            self.assertTrue(is_whole(outcome), outcome.warnings)
        self.assertEqual(server.terminate(), 0)

    def test_a_killed_master_degrades_answers_until_two_seconds_after_the_election_at_most(self):
        server = self.serve(self.cluster.uri())
        key = "hr:item:" + self.line["item_ids"][0]
        load = Load(server, self.request)
        self.addCleanup(load.stop)
        load.wait_for(50)
        master = self.cluster.master_of(key)
        killed = time.monotonic()
        self.cluster.kill(master)
        self.cluster.wait_until_agreed(key, lambda now: now != master)
        elected = time.monotonic()
        harness.poll_until(lambda: time.monotonic() > elected + 2.2, "two seconds of service")
        load.wait_for(20)
        outcomes = load.stop()
        self.cluster.start(master)
        self.cluster.wait_until_well()
        for when, outcome in outcomes:
            self.assertIsInstance(outcome, homerank.Answer, outcome)
            if not is_whole(outcome):
                self.assertTrue(killed < when < elected + 2, "%.2f s after the election" % (when - elected))
                self.assertNotEqual(outcome.features.store_error, "")
                self.assertEqual(len(outcome.warnings), 1)
        self.assertTrue(any(not is_whole(outcome) for _, outcome in outcomes))
        self.check(outcomes[-1][1], self.store)
        self.assertEqual(server.terminate(), 0)

    def test_what_was_cached_stands_in_for_a_killed_master_and_slots_move_unnoticed(self):
        server = self.serve(self.cluster.uri(), "--cache-ttl-ms", "300", "--cache-max-stale-ms", "60000")
        with server.connect() as client:
            harness.poll_until(lambda: is_whole(client.rank_request(self.request)) and
                               sum(CACHED in line for line in server.log) >= 3, "records to be cached")
            self.assertTrue(is_whole(client.rank_request(self.request)))
            whole = client.rank_request(self.request)
        key = "hr:item:" + self.line["item_ids"][0]
        load = Load(server, self.request)
        self.addCleanup(load.stop)
        source = self.cluster.master_of(key)
        target = next(m for m in self.cluster.masters().values() if m != source)
        self.cluster.move_slot_of(key, target)
        load.wait_for(20)
        self.cluster.move_slot_of(key, source)
        load.wait_for(20)
        n_moving = len(load.outcomes)
        self.cluster.kill(source)
        self.cluster.wait_until_agreed(key, lambda now: now != source)
        elected = time.monotonic()
        harness.poll_until(lambda: time.monotonic() > elected + 2.2, "two seconds of service")
        load.wait_for(20)
        outcomes = load.stop()
        self.cluster.start(source)
        self.cluster.wait_until_well()
        for number, (when, outcome) in enumerate(outcomes):
            self.assertIsInstance(outcome, homerank.Answer, outcome)
            self.assertEqual((outcome.features.items_missing, outcome.features.user_found), (0, True))
            self.assertEqual([row.score for row in outcome], [row.score for row in whole])  # stale or not, the same
            if not is_whole(outcome):
                self.assertGreaterEqual(number, n_moving, "while slots moved: %s" % outcome.features.store_error)
                self.assertIn("stale", outcome.warnings[0])
                self.assertLess(when, elected + 2)
        self.assertTrue(any(not is_whole(outcome) for _, outcome in outcomes))
        self.assertEqual(server.terminate(), 0)


if __name__ == "__main__":
    harness.main()
