"""Answers with the record cache on: the same to the last bit as without it, never older than a change of a record,
and, while Redis does not answer, from stale records before defaults."""

import struct
import subprocess
import threading
import time

import harness
from harness import homerank

import compare
import random_models
from homerank_eval import Model, read_store

CACHED = '"redis tells of changed records'
MAX_STALE_MS = 3000


def content(answer):
    """All of an answer but its times."""
    features = answer.features
    return (answer.request_id, answer.model, [(row.item_id, row.score, row.tasks) for row in answer],
            (features.user_found, features.items_missing, features.items_stale, features.values_invalid,
             features.store_error), list(answer.warnings))


def float32(number):
    """The float that a text of nine digits stands for."""
    return struct.unpack("f", struct.pack("f", number))[0]


class Cache(harness.Case):

    def load(self, uri, records):
        """Layout hash cannot hold all that a random record may have; those are left out."""
        done = self.run_command("features", "load", "--store", uri, "--in", records)
        self.assertIn("loaded", done.stderr)

    def redis_cli(self, redis, *words):
        done = subprocess.run(["redis-cli", "-p", str(redis.port), *words], stdout=subprocess.PIPE, check=True,
                              text=True)
        self.assertNotIn("ERR", done.stdout)

    def check_same_bits(self, kind, seed, layout):
        folder = self.path("models", layout, kind)
        paths = random_models.generate(folder, kind, seed)
        redis = self.start_redis()
        uri = redis.uri(layout)
        self.load(uri, paths["records"])
        requests = [harness.request_of_json(line) for line in compare.read_lines(paths["requests"])]
        plain = self.start_server("--models", folder, "--store", uri, "--cache-bytes", "0")
        cached = self.start_server("--models", folder, "--store", uri)
        cached.wait_for_log(CACHED)
        with plain.connect() as one, cached.connect() as other:
            for turn in range(3):  # read from Redis; as it had come, or as rows
                expected = [content(answer) for answer in harness.send_all(one, requests, 2)]
                found = [content(answer) for answer in harness.send_all(other, requests, 4)]
                self.assertEqual(found, expected, "%s %d, turn %d" % (kind, seed, turn))
            self.assertGreater(sum(answer[3][3] for answer in expected), 0, "no invalid value was met")
        for server in plain, cached:
            self.assertEqual(server.terminate(), 0)

    def test_packed_records_give_the_same_bits_cached(self):
        for kind, seed in (("home2", 1), ("mmoe", 2), ("odd", 3)):
            with self.subTest(kind=kind, seed=seed):
                self.check_same_bits(kind, seed, "packed")

    def test_hash_records_give_the_same_bits_cached(self):
        for kind, seed in (("home1", 4), ("shared_bottom", 5)):
            with self.subTest(kind=kind, seed=seed):
                self.check_same_bits(kind, seed, "hash")

    def test_offline_scores_have_the_same_bits_cached(self):
        paths = random_models.generate(self.path("models"), "home2", 6)
        lines = compare.read_lines(paths["requests"]) * 20
        random_models.write_lines(self.path("in"), lines)
        texts = []
        for uri in self.start_redis().uri(), "lmdb:" + self.path("store.lmdb"):
            self.must_run("features", "load", "--store", uri, "--in", paths["records"])
            for nbytes in "0", "1048576", "268435456":
                self.must_run("score", "--model", paths["model"], "--store", uri, "--in", self.path("in"), "--out",
                              self.path("out"), "--cache-bytes", nbytes)
                with open(self.path("out"), encoding="utf-8") as file:
                    texts.append(file.read())
        self.assertEqual(len(texts[0].splitlines()), len(lines))
        for text in texts[1:]:
            self.assertEqual(text, texts[0])

    def test_a_load_into_the_embedded_store_is_seen_by_the_next_request(self):
        paths = random_models.generate(self.path("models"), "home1", 3)
        uri = "lmdb:" + self.path("store.lmdb")
        self.must_run("features", "load", "--store", uri, "--in", paths["records"])
        item = list(read_store(paths["records"])["item"])[0]
        server = self.start_server("--models", self.path("models"), "--store", uri)
        request = homerank.client.make_request("1", [item])
        with server.connect() as client:
            for turn in range(6):
                lines = [{"entity": "item", "id": item, "features": {} if turn % 2 else {"no such": 1}}]
                if turn % 3 == 2:
                    lines = [line for line in compare.read_lines(paths["records"]) if line["id"] == item]
                random_models.write_lines(self.path("in"), lines)
                self.must_run("features", "load", "--store", uri, "--in", self.path("in"))
                found = [content(client.rank_request(request)) for _ in range(3)]
                self.must_run("score", "--model", paths["model"], "--store", uri, "--in", self.line(item), "--out",
                              self.path("out"), "--cache-bytes", "0")
                (expected,) = compare.read_lines(self.path("out"))
                (row,) = expected["items"]
                scored = [(item, float32(row["score"]), {task: float32(p) for task, p in row["tasks"].items()})]
                self.assertEqual([answer[2] for answer in found], [scored] * 3)
        self.assertEqual(server.terminate(), 0)

    def line(self, item):
        path = self.path("line.jsonl")
        random_models.write_lines(path, [{"user_id": "1", "item_ids": [item]}])
        return path

    def test_a_changed_record_changes_the_next_answers(self):
        for layout in "packed", "hash":
            with self.subTest(layout=layout):
                self.check_changes(layout)

    def check_changes(self, layout):
        paths = random_models.generate(self.path("models", layout), "home2", 1)
        redis = self.start_redis()
        uri = redis.uri(layout)
        self.load(uri, paths["records"])
        items = list(read_store(paths["records"])["item"])[:2]
        server = self.start_server("--models", self.path("models", layout), "--store", uri)
        server.wait_for_log(CACHED)
        request = homerank.client.make_request("1", items[:1])
        n_slow = 0
        with redis.connect() as connection, server.connect() as client:

            def invalid():
                return client.rank_request(request).features.values_invalid

            n_whole = invalid()
            keys = ["hr:item:" + item for item in items]
            whole = connection.dump(keys[0])
            for turn in range(10):
                invalid()  # cached
                if turn % 3 == 1:
                    connection.client_kill_filter(_type="pubsub")
                if turn % 2 == 0 and layout == "packed":
                    self.redis_cli(redis, "SET", keys[0], "not a record")
                elif turn % 2 == 0:
                    self.redis_cli(redis, "DEL", keys[0])
                    self.redis_cli(redis, "SET", keys[0], "of another type")
                else:
                    connection.restore(keys[0], 0, whole, replace=True)
                wanted = (lambda n: n == n_whole) if turn % 2 else (lambda n: n > n_whole)
                begun = time.monotonic()
                harness.poll_until(lambda: wanted(invalid()), "the change to be seen")
                n_slow += time.monotonic() - begun > 0.1
        self.assertLessEqual(n_slow, 2)  # of a busy machine
        self.assertEqual(server.terminate(), 0)

    def test_stale_records_come_before_defaults_and_strict_requests_want_neither(self):
        paths = random_models.generate(self.path("models"), "home2", 1)
        model, store = Model(paths["model"]), read_store(paths["records"])
        items = list(store["item"])[:40]
        line = {"request_id": "r", "user_id": "1", "context": {}, "item_ids": items}
        unseen = dict(line, item_ids=items[:1] + ["never asked for"])
        request, strict = harness.request_of_json(line), harness.request_of_json(line, strict_features=True)
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", paths["records"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri(), "--cache-max-stale-ms",
                                   str(MAX_STALE_MS))
        server.wait_for_log(CACHED)

        def check(answer, of, known):
            compare.Expected(model, of, known, "f32").check(harness.answer_as_json(answer))

        with server.connect() as client:
            check(client.rank_request(strict), line, store)
            whole = content(client.rank_request(request))
            redis.kill()
            died = time.monotonic()
            answer = harness.poll_until(lambda: self.degraded(client, request), "Redis's end to be seen")
            self.assertEqual(answer.features.items_stale, 40)
            self.assertEqual((answer.features.items_missing, answer.features.user_found), (0, True))
            self.assertIn("redis", answer.features.store_error)
            self.assertEqual(len(answer.warnings), 1)
            self.assertIn("41 stale records used", answer.warnings[0])
            self.assertNotIn("defaults", answer.warnings[0])
            self.assertEqual(content(answer)[2], whole[2])  # the same bits
            self.assert_rank_error("UNAVAILABLE", "redis", lambda: client.rank_request(strict))
            answer = client.rank_request(harness.request_of_json(unseen))
            self.assertEqual((answer.features.items_stale, answer.features.items_missing), (1, 1))
            self.assertIn("2 stale records and defaults used", answer.warnings[0])
            check(answer, unseen, store)

            answer = harness.poll_until(lambda: self.defaulted(client, request), "stale records to end")
            self.assertGreater(time.monotonic() - died, MAX_STALE_MS / 1000 - 0.5)
            self.assertEqual((answer.features.items_stale, answer.features.items_missing), (0, 40))
            self.assertIn("features: defaults used", answer.warnings[0])
            check(answer, line, {})

            redis.start()
            self.must_run("features", "load", "--store", redis.uri(), "--in", paths["records"])
            harness.poll_until(lambda: content(client.rank_request(request)) == whole, "the records to come back")
        self.assertEqual(server.terminate(), 0)

    def degraded(self, client, request):
        answer = client.rank_request(request)
        return answer if answer.warnings else None

    def defaulted(self, client, request):
        answer = client.rank_request(request)
        return answer if not answer.features.user_found else None

    def test_a_hot_record_is_read_once(self):
        paths = random_models.generate(self.path("models"), "shared_bottom", 1)
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", paths["records"])
        items = list(read_store(paths["records"])["item"])
        server = self.start_server("--models", self.path("models"), "--store", redis.uri())
        server.wait_for_log(CACHED)
        requests = [homerank.client.make_request("1", items[:n % 7 + 1]) for n in range(200)]
        with redis.connect() as connection, server.connect() as client:
            before = connection.info("stats")
            harness.send_all(client, requests, 16)
            after = connection.info("stats")
        n_reads = sum(after[name] - before[name] for name in ("keyspace_hits", "keyspace_misses"))
        self.assertEqual(n_reads, 8)  # seven items and the user
        self.assertEqual(server.terminate(), 0)

    def test_redis_may_die_and_come_back_under_load(self):
        paths = random_models.generate(self.path("models"), "home1", 2)
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", paths["records"])
        items = list(read_store(paths["records"])["item"])[:40]
        server = self.start_server("--models", self.path("models"), "--store", redis.uri())
        server.wait_for_log(CACHED)
        request = homerank.client.make_request("1", items)
        stop, failed = threading.Event(), []

        def load():
            with server.connect() as mine:
                while not stop.is_set():
                    try:
                        mine.rank_request(request, timeout=harness.DEADLINE_S)
                    except homerank.RankError as error:
                        failed.append(error)
                        return

        threads = [threading.Thread(target=load) for _ in range(4)]
        with server.connect() as client:
            whole = content(client.rank_request(request))
            for thread in threads:
                thread.start()
            try:
                for _ in range(3):
                    redis.kill()
                    harness.poll_until(lambda: client.rank_request(request).warnings, "Redis's end")
                    redis.start()
                    self.must_run("features", "load", "--store", redis.uri(), "--in", paths["records"])
                    harness.poll_until(lambda: content(client.rank_request(request)) == whole, "its return")
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(server.terminate(), 0)


if __name__ == "__main__":
    harness.main()
