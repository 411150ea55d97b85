"""Requests, files and arguments that make no sense: each gets one clear error, and the service lives on."""

import json
import os
import socket

import grpc

import harness
from harness import homerank, pb

import random_models
from homerank_eval import Model

import compare

RANK = "/homerank.v1.Ranker/Rank"

CONFIG = {
    "format": "homerank/1",
    "tables": {"t": {"rows": 50, "dim": 4, "index": "hash"}, "b": {"rows": 5, "dim": 2, "index": "direct"}},
    "features": [
        {"name": "user_id", "entity": "user", "kind": "id", "table": "t"},
        {"name": "history", "entity": "user", "kind": "ids", "table": "t", "max_length": 4},
        {"name": "item_id", "entity": "item", "kind": "id", "table": "t"},
        {"name": "color", "entity": "item", "kind": "id", "table": "t"},
        {"name": "length", "entity": "item", "kind": "number"},
        {"name": "days", "entity": "item", "kind": "bucket", "boundaries": [1, 3, 7], "table": "b"},
        {"name": "vision", "entity": "item", "kind": "numbers", "length": 3},
        {"name": "tab", "entity": "context", "kind": "id", "table": "t"}],
    "network": {"norm": "none", "layers": [{"name": "bottom", "units": [
        {"name": "bottom", "input": ["features"], "experts": 1, "hidden": [8], "mix": ["bottom"]}]}],
        "tasks": [{"name": "click", "input": "bottom.bottom"}, {"name": "like", "input": "bottom.bottom"}]},
    "fusion": {"kind": "weighted_sum", "weights": {"click": 1.0, "like": 2.0}},
}


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, content):
    """A length-delimited field on the wire."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def write_model(folder):
    rng = random_models.np.random.default_rng(3)
    tensors = random_models.make_tensors(rng, random_models.expected_shapes(CONFIG))
    random_models.write_model(folder, CONFIG, tensors, rng)
    return Model(folder)


class BadRequests(harness.Case):

    @classmethod
    def setUpClass(cls):
        cls.models = harness.tempfile.TemporaryDirectory()
        cls.model = write_model(os.path.join(cls.models.name, "home", "1"))
        cls.server = harness.Server(["--models", cls.models.name, "--store", "none:", "--max-items", "1000",
                                     "--max-id-bytes", "256", "--max-message-bytes", "1000000"]).wait_ready()
        cls.client = cls.server.connect()

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        code = cls.server.terminate()
        cls.models.cleanup()
        assert code == 0, "the server ended with %d: %s" % (code, cls.server.log[-5:])

    def tearDown(self):
        """Whatever was sent, the next caller is served."""
        line = {"request_id": "still here", "user_id": "u", "item_ids": ["1", "2", "1"], "context": {"tab": 1}}
        answer = self.client.rank_request(harness.request_of_json(line), harness.DEADLINE_S)
        compare.Expected(self.model, line, {}, "f32").check(harness.answer_as_json(answer))

    def refused(self, status, says, user_id="u", items=("1", "2"), **fields):
        return self.assert_rank_error(status, says, lambda: self.client.rank(user_id, items, timeout=harness.DEADLINE_S,
                                                                             **fields))

    def refuse_attributes(self, text):
        request = pb.RankRequest(user_id="u", item_ids=["1"], attributes=text)
        self.assert_rank_error("INVALID_ARGUMENT", "attributes", lambda: self.client.rank_request(request))

    def send_raw(self, message):
        """The status and message that raw bytes are answered with."""
        with self.server.channel() as channel:
            try:
                channel.unary_unary(RANK)(message, timeout=harness.DEADLINE_S)
            except grpc.RpcError as error:
                return error.code().name, error.details()
        return "OK", ""

    def refused_raw(self, message, *says):
        status, details = self.send_raw(message)
        self.assertEqual(status, "INVALID_ARGUMENT", details)
        for word in says:
            self.assertIn(word, details)

    def test_no_items(self):
        self.refused("INVALID_ARGUMENT", ["item_ids", "0"], items=[])

    def test_an_empty_message(self):
        self.refused_raw(b"")

    def test_too_many_items(self):
        self.refused("RESOURCE_EXHAUSTED", ["item_ids", "1000", "1001"], items=map(str, range(1001)))
        self.assertEqual(len(self.client.rank("u", map(str, range(1000)))), 1000)

    def test_duplicate_items_are_each_scored(self):
        answer = self.client.rank("u", ["7", "7", "7"], item_features=[{"length": 0.0}, {"length": 2.0}, {}])
        self.assertEqual([row.item_id for row in answer], ["7"] * 3)
        self.assertEqual(len({row.score for row in answer}), 2)

    def test_empty_and_huge_ids(self):
        self.refused("INVALID_ARGUMENT", ["user_id"], user_id="")
        self.refused("INVALID_ARGUMENT", ["item_ids[1]"], items=["1", ""])
        self.refused("INVALID_ARGUMENT", ["user_id", "256", "257"], user_id="x" * 257)
        self.refused("INVALID_ARGUMENT", ["item_ids[2]", "256", "100000"], items=["1", "2", "x" * 100000])
        self.assertEqual(len(self.client.rank("x" * 256, ["y" * 256])), 1)

    def test_invalid_utf8_in_every_string(self):
        bad = b"a\xc3\x28z"
        good = field(2, b"u") + field(3, b"1")
        value = field(2, b"x")
        for name, message in {
                "request_id": good + field(1, bad), "user_id": field(2, bad) + field(3, b"1"),
                "item_ids": field(2, b"u") + field(3, b"1") + field(3, bad),
                "context": good + field(4, field(1, bad) + field(2, value)),
                "id": good + field(4, field(1, b"tab") + field(2, field(2, bad))),
                "values": good + field(5, field(1, b"history") + field(2, field(3, field(1, bad)))),
                "features": good + field(6, field(1, field(1, bad) + field(2, value))), "model": good + field(8, bad),
                "attributes": good + field(9, bad), "tasks": good + field(11, bad)}.items():
            with self.subTest(field=name):
                self.refused_raw(message, "UTF-8")
        for bad in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe2\x82", b"\x80"):
            with self.subTest(bytes=bad):
                self.refused_raw(field(2, bad) + field(3, b"1"), "UTF-8")

    def test_nul_in_strings(self):
        self.refused("INVALID_ARGUMENT", ["user_id", "NUL"], user_id="a\0b")
        self.refused("INVALID_ARGUMENT", ["item_ids", "NUL"], items=["1", "2\0"])
        self.refused("INVALID_ARGUMENT", "NUL", context={"tab\0": 1})
        self.refused("INVALID_ARGUMENT", "NUL", context={"tab": "\0"})
        self.refused("INVALID_ARGUMENT", "NUL", user_features={"history": ["a", "b\0c"]})
        self.refused("INVALID_ARGUMENT", "NUL", model="home\0")
        self.refused("INVALID_ARGUMENT", "NUL", tasks=["click\0"])

    def test_bytes_that_are_no_message(self):
        good = field(2, b"u") + field(3, b"1")
        for name, message in {"noise": bytes(range(256)) * 40, "ff": b"\xff" * 100,
                              "a length beyond the end": good + b"\x22\xff\x7f",
                              "a length of 2^63": good + b"\x22" + b"\xff" * 9 + b"\x01",
                              "an endless varint": good + b"\x38" + b"\xff" * 30,
                              "a tag of field 0": good + b"\x02\x00",
                              "wire type 7": good + b"\x0f",
                              "a string as a number": b"\x10\x01" + field(3, b"1"),
                              "a cut": good[:-1]}.items():
            with self.subTest(name):
                self.refused_raw(message)

    def test_deep_nesting(self):
        good = field(2, b"u") + field(3, b"1")
        deep = b""
        for _ in range(300):
            deep = field(4, deep)
        for name, message in {"groups": good + b"\x9b\x06" * 100000, "groups that end": good + b"\x9b\x06" * 50000 +
                              b"\x9c\x06" * 50000, "maps": good + deep}.items():
            with self.subTest(name):
                status, details = self.send_raw(message)
                self.assertIn(status, ("INVALID_ARGUMENT", "OK"), details)
        self.refuse_attributes("[" * 100000)

    def test_unknown_fields_are_ignored(self):
        good = field(2, b"u") + field(3, b"1") + field(1000, b"from the future") + b"\x80\x7d\x01"
        self.assertEqual(self.send_raw(good), ("OK", ""))

    def test_features_of_the_wrong_kind_are_named(self):
        items = ["1", "2"]
        for name, value in (("color", 1.5), ("color", ["a", "b"]), ("color", [0.5]), ("length", "long"),
                            ("length", [1.0]), ("length", ""), ("length", ["1", "2"]), ("days", "soon"),
                            ("vision", [1.0, 2.0]), ("vision", [1.0] * 4), ("vision", ["a", "b", "c"]), ("vision", 1.5),
                            ("vision", [])):
            with self.subTest(feature=name, value=value):
                self.refused("INVALID_ARGUMENT", ["item_features[1]", name], items=items,
                             item_features=[{}, {name: value}])
        self.refused("INVALID_ARGUMENT", ["history"], user_features={"history": [0.5, 1]})
        self.refused("INVALID_ARGUMENT", ["tab"], context={"tab": 1.5})
        self.refused("INVALID_ARGUMENT", ["tab"], context={"tab": float("nan")})

    def test_numbers_that_are_not_finite_count_as_missing(self):
        items = [{"length": x, "days": x, "vision": [1.0, x, 1.0]} for x in (float("nan"), float("inf"), -float("inf"))]
        items += [{}, {"length": None, "days": None, "vision": None}]
        answer = self.client.rank("u", ["same"] * len(items), item_features=items)
        self.assertEqual(len({(row.score, tuple(row.tasks.values())) for row in answer}), 1)

    def test_item_features_of_another_number_than_items(self):
        self.refused("INVALID_ARGUMENT", ["item_features", "2", "3"], item_features=[{}] * 3)

    def test_unknown_models(self):
        self.refused("NOT_FOUND", ["nobody"], model="nobody")
        self.refused("NOT_FOUND", ["home@9"], model="home@9")
        self.refused("NOT_FOUND", ["canary"], model="home:canary")
        for model in ("home@", "home@x", "home@0", "home@-1", "@1", "home@99999999999999999999", ":", "../home", "a b"):
            with self.subTest(model):
                with self.assertRaises(homerank.RankError) as caught:
                    self.client.rank("u", ["1"], model=model)
                self.assertIn(caught.exception.status, ("INVALID_ARGUMENT", "NOT_FOUND"))
        for model in ("", "home", "home@1"):
            self.assertEqual(self.client.rank("u", ["1"], model=model).model, "home@1")

    def test_other_fields(self):
        self.refused("INVALID_ARGUMENT", ["tasks", "buy"], tasks=["click", "buy"])
        self.refused("INVALID_ARGUMENT", ["priority", "7"], priority=7)
        for text in ("[1]", "{", "1", "{} {}", '{"a": NaN}'):
            self.refuse_attributes(text)
        self.assertEqual(len(self.client.rank("u", ["1"], attributes={"country": "de", "age": 30})), 1)
        with self.assertRaises(homerank.RankError) as caught:
            self.client.rank("u", ["1"], forced_variations={"e": 1})
        self.assertIn("forced_variations", caught.exception.message)

    def test_tasks_and_top_k_choose_what_is_returned(self):
        everything = self.client.rank("u", map(str, range(20)))
        some = self.client.rank("u", map(str, range(20)), top_k=3, tasks=["like"])
        self.assertEqual([(row.item_id, row.score) for row in some],
                         [(row.item_id, row.score) for row in everything][:3])
        self.assertEqual([row.tasks for row in some], [{"like": row.tasks["like"]} for row in everything[:3]])
        self.assertEqual(len(self.client.rank("u", ["1", "2"], top_k=2**32 - 1)), 2)

    def test_a_message_that_is_too_large(self):
        self.refused("RESOURCE_EXHAUSTED", [], items=["x" * 200] * 6000)

    def test_one_bad_request_ends_its_stream_alone(self):
        good = harness.request_of_json({"user_id": "u", "item_ids": ["1"]})
        answers = self.client.rank_stream(iter([good, pb.RankRequest(user_id="u"), good]))
        self.assertEqual(len(next(answers)), 1)
        self.assert_rank_error("INVALID_ARGUMENT", "item_ids", lambda: list(answers))


class BadFiles(harness.Case):

    def setUp(self):
        super().setUp()
        self.model = write_model(self.path("home", "1"))
        self.score = ("score", "--model", self.path("home", "1"), "--store", "none:", "--out")
        self.good = {"request_id": "good", "user_id": "u", "item_ids": ["1", "2"]}

    def test_a_bad_line_is_named_and_the_rest_is_scored(self):
        good = json.dumps(self.good)
        bad = ["{", "not json", "[]", "17", '{"user_id": "u"}', '{"user_id": "u", "item_ids": ["1"], "color": "red"}',
               '{"user_id": "u", "user_id": "v", "item_ids": ["1"]}', '{"user_id": "u", "item_ids": "1"}',
               '{"user_id": "u", "item_ids": ["1"], "top_k": -1}', '{"user_id": "u", "item_ids": ["1"], "top_k": 1.5}',
               '{"user_id": "u", "item_ids": ["1"], "context": {"tab": true}}',
               '{"user_id": "u", "item_ids": ["1"], "context": {"tab": {"a": 1}}}',
               '{"user_id": "u", "item_ids": ["1"], "context": {"tab": 1.5}}',
               '{"user_id": "u\\u0000", "item_ids": ["1"]}', '{"user_id": "\\ud800", "item_ids": ["1"]}',
               '{"user_id": "u", "item_ids": ["1"], "context": ' + "[" * 100000, good + good,
               '{"user_id": "u", "item_ids": ["1"], "model": "nobody"}']
        lines = [line for pair in zip([good] * len(bad), bad) for line in pair] + [good]
        done = self.run_command(*self.score, self.path("out"), "--in", "-", stdin="\n".join(lines) + "\n")
        self.assertEqual(done.returncode, 1, done.stderr)
        answers = compare.read_lines(self.path("out"))
        self.assertEqual([answer["request_id"] for answer in answers], ["good"] * (len(bad) + 1))
        for i, line in enumerate(bad):
            with self.subTest(line[:60]):
                said = [text for text in done.stderr.splitlines() if text.startswith("-:%d:" % (2 * i + 2))]
                self.assertEqual(len(said), 1, done.stderr[:2000])

    def test_invalid_utf8_in_a_line_is_an_error_of_that_line(self):
        with open(self.path("in"), "wb") as file:
            file.write(json.dumps(self.good).encode() + b'\n{"user_id": "\xff", "item_ids": ["1"]}\n' +
                       json.dumps(self.good).encode())
        done = self.run_command(*self.score, self.path("out"), "--in", self.path("in"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("/in:2:", done.stderr)
        self.assertEqual(len(compare.read_lines(self.path("out"))), 2)

    def test_an_output_that_cannot_be_written(self):
        random_models.write_lines(self.path("in"), [self.good])
        self.must_fail(*self.score, self.path("no", "such", "folder"), "--in", self.path("in"), says=["no/such/folder"])
        self.must_fail(*self.score, self.folder, "--in", self.path("in"), says=[self.folder])
        self.must_fail(*self.score, "/dev/full", "--in", self.path("in"), says=["/dev/full"])

    def test_an_input_that_cannot_be_read(self):
        self.must_fail(*self.score, self.path("out"), "--in", self.path("nothing"), says=["nothing"])
        self.must_fail(*self.score, self.path("out"), "--in", self.folder, says=[self.folder])
        with open(self.path("in.gz"), "wb") as file:
            file.write(b"this is not gzip")
        self.must_fail(*self.score, self.path("out"), "--in", self.path("in.gz"), says=["in.gz"])

    def test_compressed_files_are_read_and_written_by_name(self):
        random_models.write_lines(self.path("in"), [self.good] * 3)
        self.must_run(*self.score, self.path("plain"), "--in", self.path("in"))
        self.must_run(*self.score, self.path("out.gz"), "--in", self.path("in"))
        self.assertEqual(compare.read_lines(self.path("out.gz")), compare.read_lines(self.path("plain")))
        harness.subprocess.run(["gzip", self.path("in")], check=True)
        done = self.must_run(*self.score, "-", "--in", self.path("in.gz"))
        self.assertEqual([json.loads(line) for line in done.stdout.splitlines()],
                         compare.read_lines(self.path("plain")))

    def test_a_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            self.must_fail("serve", "--models", self.folder, "--store", "none:", "--listen", address, says=[address])

    def test_a_store_path_that_is_a_file(self):
        with open(self.path("file"), "w", encoding="utf-8") as file:
            file.write("this is no store\n" * 1000)
        random_models.write_lines(self.path("in"), [self.good])
        random_models.write_lines(self.path("records"), [{"entity": "user", "id": "u", "features": {}}])
        uri = "lmdb:" + self.path("file")
        score = ("score", "--model", self.path("home", "1"), "--in", self.path("in"), "--out", self.path("out"),
                 "--store")
        self.must_fail(*score, uri, says=[self.path("file")])
        self.must_fail("serve", "--models", self.folder, "--listen", "127.0.0.1:0", "--store", uri,
                       says=[self.path("file")])
        self.must_fail(*score, "lmdb:" + self.path("nothing"), says=["nothing"])
        with open(self.path("file"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "this is no store\n" * 1000)

    def test_bad_store_uris_are_wrong_and_say_why(self):
        random_models.write_lines(self.path("in"), [self.good])
        score = ("score", "--model", self.path("home", "1"), "--in", self.path("in"), "--out", self.path("out"),
                 "--store")
        for uri in ("mysql:x", "", "redis://", "redis://host:port/0", "redis://h:1/x", "redis://h:1/0?layout=odd",
                    "redis://h:1/0?colour=red", "lmdb:"):
            with self.subTest(uri):
                done = self.run_command(*score, uri)
                self.assertIn(done.returncode, (1, 2))
                self.assertTrue(any(line.startswith("homerank") for line in done.stderr.splitlines()), done.stderr)

    def test_bad_records_are_named_by_line_and_the_rest_is_loaded(self):
        lines = ['{"entity":"user","id":"a","features":{"history":["h1"]}}', "nonsense",
                 '{"entity":"shop","id":"a","features":{}}', '{"entity":"item","features":{}}',
                 '{"entity":"item","id":"","features":{}}', '{"entity":"item","id":"b","features":[]}',
                 '{"entity":"item","id":"b","features":{"color":{"a":1}}}', '{"entity":"item","id":"z","features":{}}']
        uri = "lmdb:" + self.path("store")
        done = self.run_command("features", "load", "--store", uri, "--in", "-", stdin="\n".join(lines) + "\n")
        self.assertEqual(done.returncode, 1, done.stderr)
        for number in range(2, 8):
            self.assertIn("-:%d:" % number, done.stderr)
        got = self.must_run("features", "get", "--store", uri, "--entity", "user", "--id", "a")
        self.assertEqual(json.loads(got.stdout), {"entity": "user", "id": "a", "features": {"history": ["h1"]}})
        self.must_run("features", "get", "--store", uri, "--entity", "item", "--id", "z")
        self.must_fail("features", "get", "--store", uri, "--entity", "item", "--id", "b", says=["b"])

    def test_wrong_usage_exits_with_2(self):
        for arguments in ([], ["dance"], ["score"], ["serve", "--models"], ["score", "--colour", "red"], ["features"],
                          ["features", "dance"], [*self.score, "x", "--in", "y", "--precision", "f8"],
                          [*self.score, "x", "--in", "y", "--threads", "many"], [*self.score, "x", "--in", "y", "z"]):
            with self.subTest(arguments=arguments[-2:]):
                done = self.run_command(*arguments)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertNotEqual(done.stderr, "")
        self.assertEqual(self.run_command("score", "--help").returncode, 0)


if __name__ == "__main__":
    harness.main()
