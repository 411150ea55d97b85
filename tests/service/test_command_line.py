#!/usr/bin/python3
"""The command line as a person meets it: exit codes, one line per error, and the demo's world served and ranked."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

HOMERANK = os.path.abspath(os.environ.get("HOMERANK_BIN", "service/homerank"))
WAIT_S = 60


def run(*arguments, **more):
    return subprocess.run([HOMERANK, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False, **more)


class Server:
    """`homerank serve` on a free port; `address` comes from its log."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([HOMERANK, "serve", "--listen", "127.0.0.1:0", "--log-format", "json",
                                         *arguments], stderr=subprocess.PIPE, text=True)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if '"listening"' in line:
                self.listening = json.loads(line)
                self.address = self.listening["address"]
                return
        raise AssertionError(f"the server ended with {self.process.wait()}: {''.join(self.log)}")

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        self.log += self.process.stderr.readlines()
        self.process.stderr.close()
        return self.process.wait(WAIT_S)


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="homerank-cli-")
        subprocess.run(["/usr/bin/python3", "demo/generate.py", "--out", cls.folder], check=True)
        cls.models = "demo/models"
        cls.model = os.path.join(cls.models, "home", "1")
        cls.features = os.path.join(cls.folder, "features.jsonl")
        cls.store = "lmdb:" + os.path.join(cls.folder, "store")
        cls.loaded = run("features", "load", "--store", cls.store, "--in", cls.features)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def assert_fails(self, code, pattern, *arguments):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Ahomerank.*\n\Z", "one line that begins with the program's name")
        self.assertRegex(done.stderr, pattern)

    def test_wrong_usage_is_exit_code_2_and_one_line(self):
        for pattern, *arguments in [
                ("expected a command; see homerank --help",),
                ('unknown command "rnak"; see homerank --help', "rnak"),
                ('expected "features load", "features get", "features stats" or "features check"', "features"),
                ('homerank serve: unknown flag --"nonsense"; see homerank serve --help', "serve", "--nonsense"),
                ("homerank rank: --user ID is required", "rank", "--items", "a"),
                ("homerank features get: --entity: expected one of user, item", "features", "get", "--entity", "x"),
                ("homerank inspect: DIR is required", "inspect"),
                ('serve: --listen: expected HOST:PORT (an IPv6 host in brackets), found "nowhere"',
                 "serve", "--models", "m", "--store", "none:", "--listen", "nowhere"),
                ('rank: --target: expected HOST:PORT (an IPv6 host in brackets), found "[::1]"',
                 "rank", "--user", "u", "--items", "a", "--target", "[::1]"),
                ("score: --store: store URI: expected", "score", "--store", "redis:", "--model", "m", "--in", "-",
                 "--out", "-"),
                ('rank: --context: expected KEY=VALUE, found "hour"', "rank", "--user", "u", "--items", "a",
                 "--context", "hour"),
                ('rank: --context: expected "hour" once, found again', "rank", "--user", "u", "--items", "a",
                 "--context", "hour=1", "--context", "hour=2"),
                ('homerank load: --phases: expected RATE:SECONDS, found "70"', "load", "--phases", "70"),
                ('--item-ids: expected a range like v0..v9999', "load", "--rate", "1", "--item-ids", "v9..v0"),
                ("expected one of --rate, --phases and --in-flight, found none", "load"),
                ("expected one of --rate, --phases and --in-flight, found several", "load", "--rate", "1",
                 "--in-flight", "1"),
                ("--item-ids: expected at least the 11 ids", "load", "--rate", "1", "--items", "11", "--item-ids",
                 "v0..v9"),
                ('unknown command "nonsense"', "help", "nonsense")]:
            with self.subTest(arguments):
                self.assert_fails(2, re.escape(pattern), *arguments)

    def test_a_mistake_in_the_file_is_named_by_its_line(self):
        path = os.path.join(self.folder, "config.yaml")
        with open(path, "w", encoding="utf-8") as out:
            out.write(f"models: {self.models}\nstore: \"none:\"\nprecison: f32\n")
        self.assert_fails(2, re.escape(f'{path}:3: unknown key "precison"'), "serve", "--config", path)

    def test_what_cannot_be_done_is_exit_code_1_and_names_the_thing(self):
        for pattern, *arguments in [
                ("/nonexistent", "serve", "--models", "/nonexistent", "--store", "none:"),
                ("/nonexistent", "inspect", "/nonexistent"),
                ("/nonexistent", "features", "get", "--store", "lmdb:/nonexistent", "--entity", "user", "--id", "u"),
                ("nobody", "features", "get", "--store", self.store, "--entity", "user", "--id", "nobody"),
                ("127.0.0.1:1", "rank", "--target", "127.0.0.1:1", "--user", "u", "--items", "a")]:
            with self.subTest(arguments):
                self.assert_fails(1, pattern, *arguments)

    def test_a_store_is_told_from_one_that_cannot_feed_the_model(self):
        done = run("features", "check", "--store", self.store, "--model", self.model)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertRegex(done.stdout, r"\Ahome@1: [0-9]+ users and [0-9]+ items: every feature has values\n\Z")
        done = run("features", "stats", "--store", self.store, "--model", self.model, "--sample", "10")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\Auser: [0-9]+ records, [0-9.]+ bytes each, [0-9]+ at most\nitem: ")
        self.assertRegex(done.stdout, r"\nfeature +entity +field +present +missing +wrong kind +unknown id\n")
        records = os.path.join(self.folder, "poor.csv")
        with open(records, "w", encoding="utf-8") as out:
            out.write("id,nothing\nu1,1\n")
        other = "lmdb:" + os.path.join(self.folder, "poor")
        self.assertEqual(run("features", "load", "--csv", "--entity", "user", "--store", other, "--in",
                             records).returncode, 0)
        done = run("features", "check", "--store", other, "--model", self.model)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertRegex(done.stdout, r"error: feature \w+ \(user field \w+\): no record has a value\n")
        self.assertRegex(done.stdout, r"1 users and 0 items: not every feature has values\n\Z")

    def test_a_port_in_use_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            done = run("serve", "--models", self.models, "--store", "none:", "--listen", address, "--log-level", "error")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(address, done.stderr)

    def test_an_output_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([HOMERANK, "help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No space left on device", done.stderr)

    def test_help_and_version_are_on_stdout(self):
        for arguments in (["--help"], ["-h"], ["help"], ["help", "serve"], ["serve", "--help"], ["inspect", "-h"],
                          ["features", "load", "--help"], ["help", "features", "get"], ["--version"], ["version"]):
            with self.subTest(arguments):
                done = run(*arguments)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("homerank", done.stdout)
        self.assertRegex(run("--version").stdout, r"\Ahomerank \d+\.\d+\.\d+ \(backends: reference")

    def test_records_are_loaded_and_found_again(self):
        self.assertEqual(self.loaded.returncode, 0, self.loaded.stderr)
        self.assertRegex(self.loaded.stderr, r"loaded 500 records in .*, 0 bad lines\n\Z")
        with open(self.features, encoding="utf-8") as lines:
            record = json.loads(next(lines))
        done = run("features", "get", "--store", self.store, "--entity", "user", "--id", record["id"])
        self.assertEqual(json.loads(done.stdout), record)

    def test_a_bad_line_is_counted_and_makes_the_load_fail(self):
        store = "lmdb:" + os.path.join(self.folder, "other")
        lines = '{"entity":"user","id":"a","features":{}}\nnonsense\n{"entity":"user","id":"b","features":{}}\n'
        done = run("features", "load", "--store", store, "--in", "-", input=lines)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"loaded 2 records in .*, 1 bad lines\n\Z")

    def test_the_demos_world_is_served_and_ranked(self):
        with open(os.path.join(self.folder, "requests.jsonl"), encoding="utf-8") as lines:
            request = json.loads(next(lines))
        server = Server("--models", self.models, "--store", self.store)
        try:
            ask = ["rank", "--target", server.address, "--user", request["user_id"],
                   "--items", ",".join(request["item_ids"]), "--context", f"hour={request['context']['hour']}",
                   "--context", f"device={request['context']['device']}"]
            answer = json.loads(run(*ask, "--json").stdout)
            table = run(*ask, "--top-k", "3").stdout
        finally:
            code = server.stop()
        self.assertEqual(code, 0)
        self.assertEqual(answer["model"], "home@1")
        self.assertCountEqual([item["item_id"] for item in answer["items"]], request["item_ids"])
        scores = [item["score"] for item in answer["items"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertTrue(all(0 < p < 1 for item in answer["items"] for p in item["tasks"].values()))
        lines = table.splitlines()
        self.assertEqual(lines[0], f"user {request['user_id']}, model home@1")
        self.assertEqual(lines[2].split(), ["rank", "item", "score", "click", "long_view", "like", "share"])
        self.assertEqual([line.split()[1] for line in lines[4:7]],
                         [item["item_id"] for item in answer["items"][:3]])
        self.assertEqual(lines[7], "")
        self.assertRegex(lines[8], r"^queue .*, features .*, model .*, total ")
        offline = run("score", "--model", self.model, "--store", self.store, "--in", "-", "--out", "-",
                      input=json.dumps(request) + "\n")
        self.assertEqual(json.loads(offline.stdout)["items"], answer["items"], "served as scored")

    def test_a_server_is_loaded_and_every_call_accounted_for(self):
        server = Server("--models", self.models, "--store", self.store)
        requests = os.path.join(self.folder, "requests.jsonl")
        ask = ["load", "--target", server.address, "--in", requests, "--duration-s", "1", "--warmup-s", "0"]
        try:
            report = json.loads(run(*ask, "--rate", "100", "--json").stdout)
            table = run(*ask, "--in-flight", "2", "--timeline").stdout
            wrong = run(*ask, "--rate", "50", "--model", "nobody")
        finally:
            self.assertEqual(server.stop(), 0)
        (phase,) = report["phases"]
        self.assertEqual(phase["answered"], phase["sent"])
        self.assertEqual(phase["statuses"], {"OK": phase["sent"]})
        self.assertTrue(40 < phase["sent"] < 160, phase["sent"])
        latency = phase["latency_us"]
        self.assertEqual(latency["count"], phase["sent"])
        self.assertTrue(0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"])
        self.assertLess(phase["server_us"]["total"]["p50"], latency["p50"])
        self.assertEqual(sum(second["sent"] for second in report["timeline"]), phase["sent"])
        self.assertRegex(table, r"in flight +seconds +sent +answered")
        self.assertRegex(table, r"\n  server's features +\d+ ")
        self.assertRegex(table, r"\nsecond +sent ")
        self.assertEqual(wrong.returncode, 0)
        self.assertRegex(wrong.stdout, r'NOT_FOUND, \d+ times: .*"nobody"')

    def test_a_stall_of_the_generator_shows_in_the_latencies(self):
        server = Server("--models", self.models, "--store", self.store, "--http", "127.0.0.1:0")
        pages = next(json.loads(line)["port"] for line in server.log if '"serving HTTP"' in line)

        def accepted():
            with urllib.request.urlopen(f"http://127.0.0.1:{pages}/metrics", timeout=WAIT_S) as page:
                return int(re.search(r"^homerank_server_accepted_total (\d+)$", page.read().decode(), re.MULTILINE)[1])

        try:
            load = subprocess.Popen([HOMERANK, "load", "--target", server.address, "--rate", "200", "--items", "1",
                                     "--duration-s", "2", "--warmup-s", "0", "--json"], stdout=subprocess.PIPE)
            while accepted() == 0:
                self.assertIsNone(load.poll())
            load.send_signal(signal.SIGSTOP)
            time.sleep(1)  # the stall itself: half of the calls are to be sent during it
            load.send_signal(signal.SIGCONT)
            (phase,) = json.loads(load.communicate(timeout=WAIT_S)[0])["phases"]
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertEqual(phase["answered"], phase["sent"])
        self.assertGreater(phase["lag_us"]["p90"], 500000)
        self.assertGreater(phase["latency_us"]["p90"], phase["lag_us"]["p90"] * 0.98)
        self.assertLess(phase["server_us"]["total"]["p50"], 500000)

    def test_requests_that_are_none_are_named_by_their_line(self):
        path = os.path.join(self.folder, "bad.jsonl")
        with open(path, "w", encoding="utf-8") as out:
            out.write('{"user_id":"u","item_ids":["a"]}\n{"user":7}\n')
        self.assert_fails(1, re.escape(path + ":2: "), "load", "--rate", "1", "--in", path)

    def test_the_file_configures_and_flags_win(self):
        path = os.path.join(self.folder, "serve.yaml")
        with open(path, "w", encoding="utf-8") as out:
            out.write(f"models: {self.models}\nstore: \"{self.store}\"\nthreads: 3\nmax-items: 2\n")
        server = Server("--config", path, "--threads", "1")
        try:
            done = run("rank", "--target", server.address, "--user", "u", "--items", "a,b,c")
        finally:
            self.assertEqual(server.stop(signal.SIGINT), 0)
        self.assertEqual(server.listening["threads"], 1)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Ahomerank: item_ids: .*2.*3.*\n\Z")


if __name__ == "__main__":
    unittest.main()
