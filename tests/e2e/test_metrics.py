"""The server watched over HTTP: that its counters add up whatever calls come, that Prometheus can read them and that
docs/operations.md lists them, and what readiness says from the start to the end."""

import collections
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import unittest

import grpc
from prometheus_client.parser import text_string_to_metric_families

import harness
from harness import health_pb, homerank, pb

import random_models
from homerank_eval import read_store

RANK = "/homerank.v1.Ranker/Rank"
PROMETHEUS = os.path.join(harness.ROOT, "deploy", "prometheus")


def http_port(server):
    return json.loads(server.wait_for_log('"serving HTTP"'))["port"]


def get(port, path):
    """(status, body) of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.DEADLINE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Scrape:
    """One answer of /metrics, read by a parser that is not ours."""

    def __init__(self, port):
        status, self.text = get(port, "/metrics")
        assert status == 200, self.text
        self.families = list(text_string_to_metric_families(self.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def sum(self, name, **labels):
        """Of the samples of that name with these labels, and maybe more."""
        found = [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        if not any(s.name == name for s in self.samples):
            raise AssertionError("no %s in\n%s" % (name, self.text))
        return sum(s.value for s in found)


class Metrics(harness.Case):

    def setUp(self):
        super().setUp()
        self.paths = random_models.generate(self.path("models"), "home2", 1, verify=True)
        self.items = list(read_store(self.paths["records"])["item"])[:40]

    def serve(self, *arguments, store="none:"):
        server = self.start_server("--models", self.path("models"), "--store", store, "--http", "127.0.0.1:0", *arguments)
        self.port = http_port(server)
        return server

    def request(self, items=None, **fields):
        return pb.RankRequest(user_id="1", item_ids=self.items if items is None else items, **fields)

    def wait_idle(self):
        """A scrape in which no request is in the server any more."""

        def idle():
            scrape = Scrape(self.port)
            return scrape if scrape.sum("homerank_server_open_requests") == 0 else None

        return harness.poll_until(idle, "an idle server")

    # What is counted.

    def wait_for(self, value, name, **labels):
        harness.poll_until(lambda: Scrape(self.port).sum(name, **labels) == value, "%s %r = %d" % (name, labels, value))

    def send_malformed(self, server, n):
        with server.channel() as channel:
            call = channel.unary_unary(RANK, request_serializer=lambda data: data,
                                       response_deserializer=pb.RankResponse.FromString)
            for _ in range(n):
                with self.assertRaises(grpc.RpcError) as caught:
                    call(b"\xff\xff\xff", timeout=harness.DEADLINE_S)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def ask_a_stopped_store(self, server, redis):
        """Four calls wait for the store, the most that may: three are cancelled, one is answered in the end. Two more are
        refused."""
        redis.process.send_signal(harness.signal.SIGSTOP)
        with server.channel() as channel:
            call = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString,
                                       response_deserializer=pb.RankResponse.FromString)
            cancelled = [call.future(self.request()) for _ in range(3)]
            answered = call.future(self.request())
            self.wait_for(4, "homerank_server_open_requests")
            for _ in range(2):
                with self.assertRaises(grpc.RpcError) as caught:
                    call(self.request(), timeout=harness.DEADLINE_S)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            for future in cancelled:
                future.cancel()
            # A round trip behind them on their connection: the one poller has seen them end.
            check = channel.unary_unary("/grpc.health.v1.Health/Check",
                                        request_serializer=health_pb.HealthCheckRequest.SerializeToString,
                                        response_deserializer=health_pb.HealthCheckResponse.FromString)
            check(health_pb.HealthCheckRequest(), timeout=harness.DEADLINE_S)
            redis.process.send_signal(harness.signal.SIGCONT)
            return [homerank.Answer(answered.result(harness.DEADLINE_S))]

    def send_all_sorts(self, server, redis):
        """The answers of those calls that had one."""
        answers = []
        with server.connect() as client:
            answers += [client.rank_request(self.request()) for _ in range(5)]
            strangers = self.request(self.items[:7] + ["nobody-%d" % i for i in range(10)])
            strangers.user_id = "nobody"
            answers += [client.rank_request(strangers) for _ in range(3)]
            for _ in range(2):
                self.assert_rank_error("INVALID_ARGUMENT", "item_ids", lambda: client.rank_request(self.request([])))
            for _ in range(3):
                self.assert_rank_error("NOT_FOUND", "nope", lambda: client.rank_request(self.request(model="nope")))
            answers += list(client.rank_stream(self.request() for _ in range(4)))
        self.send_malformed(server, 4)
        return answers + self.ask_a_stopped_store(server, redis)

    def test_every_call_is_counted_once_and_all_add_up(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.serve("--pollers", "1", "--max-queued-calls", "4", "--store-timeout-ms", "600000", "--cache-bytes",
                            "0", store=redis.uri())
        answers = self.send_all_sorts(server, redis)
        n_items = sum(len(answer) for answer in answers)
        n_defaulted = sum(1 for a in answers if not a.features.user_found or a.features.items_missing or
                          a.features.values_invalid)
        scrape = self.wait_idle()
        self.assertEqual(len(answers), 13)

        with self.subTest("the server's counts"):
            self.assertEqual(scrape.sum("homerank_server_accepted_total"), 13 + 3 + 2 + 3 + 2)
            self.assertEqual(scrape.sum("homerank_server_cancelled_total"), 3)
            self.assertEqual(scrape.sum("homerank_server_answered_total"), 13 + 2 + 3 + 2)
            self.assertEqual(scrape.sum("homerank_server_refused_total", code="INVALID_ARGUMENT"), 4)
            self.assertEqual(scrape.sum("homerank_server_refused_total"), 4)
        with self.subTest("the requests by status"):
            count = lambda **labels: scrape.sum("homerank_requests_total", **labels)
            self.assertEqual(count(code="OK", model="home2", version="1"), 13)
            self.assertEqual(count(code="NOT_FOUND", model=""), 3)
            self.assertEqual(count(code="INVALID_ARGUMENT"), 2)
            self.assertEqual(count(code="RESOURCE_EXHAUSTED", model="home2"), 2)
            self.assertEqual(count(code="CANCELLED"), 3)
            self.assertEqual(count(), scrape.sum("homerank_server_accepted_total"))
        with self.subTest("the refusals by reason"):
            refused = lambda **labels: scrape.sum("homerank_requests_refused_total", **labels)
            self.assertEqual((refused(reason="invalid"), refused(reason="queue_calls"), refused()), (5, 2, 7))
            self.assertEqual(scrape.sum("homerank_deadline_misses_total", how="refused"), 0)
        with self.subTest("the durations and the work"):
            self.assertEqual(scrape.sum("homerank_request_duration_seconds_count", model="home2"), 13 + 3)
            self.assertEqual(scrape.sum("homerank_request_model_seconds_count", model="home2"), 13)
            self.assertEqual(scrape.sum("homerank_items_total"), n_items)
            self.assertEqual(scrape.sum("homerank_batch_rows_sum"), n_items)
            self.assertGreaterEqual(scrape.sum("homerank_batch_calls_sum"), 13)  # a request may be split
            stages = sum(scrape.sum("homerank_request_%s_seconds_sum" % s) for s in ("features", "encode", "model"))
            self.assertLess(stages, scrape.sum("homerank_request_duration_seconds_sum"))
        with self.subTest("the features"):
            self.assertEqual(scrape.sum("homerank_records_missing_total", entity="user"), 3)
            self.assertEqual(scrape.sum("homerank_records_missing_total", entity="item"), 30)
            self.assertEqual(scrape.sum("homerank_values_invalid_total"),
                             sum(answer.features.values_invalid for answer in answers))
            self.assertEqual(scrape.sum("homerank_requests_with_defaults_total"), n_defaulted)
            self.assertEqual(scrape.sum("homerank_store_errors_total"), 0)
        with self.subTest("nothing is left"):
            for name in ("in_flight_requests", "queue_requests", "queue_items", "server_open_streams"):
                self.assertEqual(scrape.sum("homerank_" + name), 0)
        self.assertEqual(server.terminate(), 0)

    def test_a_store_that_is_down_is_counted(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.serve("--cache-bytes", "0", store=redis.uri())
        with server.connect() as client:
            client.rank_request(self.request())
            redis.kill()
            answers = [client.rank_request(self.request()) for _ in range(4)]
        self.assertTrue(all(answer.features.store_error for answer in answers))
        scrape = self.wait_idle()
        self.assertEqual(scrape.sum("homerank_store_errors_total"), 4)
        self.assertEqual(scrape.sum("homerank_records_missing_total", entity="item"), 4 * 40)
        self.assertEqual(server.terminate(), 0)

    # The text.

    def test_prometheus_can_read_it(self):
        server = self.serve()
        with server.connect() as client:
            client.rank_request(self.request())
        scrape = self.wait_idle()
        self.assertEqual(scrape.text.count("# HELP "), len(scrape.families), "a family's samples stand together")
        self.assertEqual({f.type for f in scrape.families}, {"counter", "gauge", "histogram"})
        buckets = collections.defaultdict(list)
        for sample in scrape.samples:
            if sample.name.endswith("_bucket"):
                labels = {k: v for k, v in sample.labels.items() if k != "le"}
                buckets[sample.name[:-len("_bucket")], tuple(labels.items())].append((float(sample.labels["le"]), sample.value))
        self.assertGreater(len(buckets), 7)
        for (name, labels), of_one in buckets.items():
            with self.subTest(name):
                self.assertEqual(of_one, sorted(of_one))
                self.assertEqual([count for _, count in of_one], sorted(count for _, count in of_one))
                self.assertEqual(of_one[-1], (float("inf"), scrape.sum(name + "_count", **dict(labels))))
        if shutil.which("promtool"):
            checked = subprocess.run(["promtool", "check", "metrics"], input=scrape.text, text=True, capture_output=True,
                                     check=False)
            self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
        self.assertEqual(server.terminate(), 0)

    def test_the_documentation_lists_every_family(self):
        # Started with whatever has metrics of its own.
        with open(self.path("experiments.json"), "w", encoding="utf-8") as file:
            file.write('{"features": {"ranking": {}}}')
        server = self.serve("--exposures", self.path("exposures.jsonl"), "--experiments",
                            self.path("experiments.json"), store=self.start_redis().uri())
        with server.connect() as client:
            client.rank_request(self.request())
        families = self.wait_idle().families
        self.assertEqual(server.terminate(), 0)
        found = []
        for family in families:
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = dict.fromkeys(label for s in family.samples for label in s.labels if label != "le")
            shown = ", ".join("`%s`" % label for label in labels)
            found.append("| `%s` | %s | %s| %s |" % (name, family.type, shown + " " if shown else "", family.documentation))
        with open(os.path.join(harness.ROOT, "docs", "operations.md"), encoding="utf-8") as lines:
            listed = [line.rstrip("\n") for line in lines if re.match(r"\| `(homerank|process)_", line)]
        self.assertEqual(sorted(listed), sorted(found), "docs/operations.md: the table of metrics is out of date")

    def test_the_cache_is_counted(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        server = self.serve(store=redis.uri())
        server.wait_for_log('"redis tells of changed records')
        count = lambda name: Scrape(self.port).sum("homerank_cache_" + name)
        with server.connect() as client, redis.connect() as connection:
            for _ in range(3):
                client.rank_request(self.request())
            self.assertEqual((count("misses_total"), count("hits_total"), count("entries")), (41, 82, 41))
            client.rank_request(self.request(items=["nobody"] * 3))
            self.assertEqual((count("misses_total"), count("joins_total")), (42, 2))
            client.rank_request(self.request(items=["nobody"] * 3))
            self.assertEqual(count("negative_hits_total"), 3)
            self.assertGreater(count("bytes"), 41 * 100)
            connection.delete("hr:item:" + self.items[0])
            harness.poll_until(lambda: count("invalidations_total") == 1, "the change to be heard of")
            redis.kill()
            harness.poll_until(lambda: count("losses_total") == 1, "the loss to be heard of")
            self.assertEqual(client.rank_request(self.request()).features.items_stale, 40)
            self.assertEqual(count("stale_total"), 41)
        self.assertEqual(Scrape(self.port).sum("homerank_store_fetches_total"), 3)
        self.assertEqual(server.terminate(), 0)

    # Readiness.

    def test_it_is_ready_from_the_last_model_loaded_to_the_shutdown(self):
        redis = self.start_redis()
        self.must_run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        # The model is not loaded before somebody has written into this pipe.
        verify = os.path.join(self.paths["model"], "verify.jsonl")
        with open(verify, encoding="utf-8") as file:
            lines = file.read()
        os.remove(verify)
        os.mkfifo(verify)
        server = harness.Server(["--models", self.path("models"), "--store", redis.uri(), "--http", "127.0.0.1:0",
                                 "--store-timeout-ms", "600000"])
        self.addCleanup(server.close)
        port = http_port(server)
        self.assertEqual(get(port, "/healthz"), (200, "alive\n"))
        self.assertEqual(get(port, "/readyz"), (503, "the server is starting\n"))
        self.assertNotIn("homerank_model_info{", get(port, "/metrics")[1])
        with open(verify, "w", encoding="utf-8") as pipe:
            pipe.write(lines)
        server.wait_ready()
        self.assertEqual(get(port, "/readyz"), (200, "ready\n"))
        self.assertEqual(Scrape(port).sum("homerank_model_info", model="home2", version="1"), 1)

        redis.process.send_signal(harness.signal.SIGSTOP)
        with server.channel() as channel:
            call = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString,
                                       response_deserializer=pb.RankResponse.FromString).future(self.request())
            harness.poll_until(lambda: Scrape(port).sum("homerank_server_open_requests") == 1, "an open request")
            server.process.send_signal(harness.signal.SIGTERM)
            server.wait_for_log('"gRPC stops')
            self.assertEqual(get(port, "/healthz"), (200, "alive\n"))
            self.assertEqual(get(port, "/readyz"), (503, "the server is shutting down\n"))
            self.assertEqual(Scrape(port).sum("homerank_server_open_requests"), 1)
            redis.process.send_signal(harness.signal.SIGCONT)
            self.assertEqual(len(call.result(harness.DEADLINE_S).item_ids), 40)
        self.assertEqual(server.wait(), 0)

    def test_sigterm_while_scraping_cuts_no_answer(self):
        server = self.serve()
        outcomes, stopping = [], threading.Event()

        def scrape():
            while not stopping.is_set():
                try:
                    outcomes.append(get(self.port, "/metrics"))
                except (ConnectionError, http.client.BadStatusLine) as error:
                    outcomes.append(error)
                    return

        threads = [threading.Thread(target=scrape) for _ in range(4)]
        for thread in threads:
            thread.start()
        harness.poll_until(lambda: len(outcomes) > 20, "scrapes")
        self.assertEqual(server.terminate(), 0)
        stopping.set()
        for thread in threads:
            thread.join()
        # http.client raises IncompleteRead for an answer that was cut: the thread's own, seen as a missing outcome.
        errors = [o for o in outcomes if isinstance(o, Exception)]
        self.assertEqual(len(errors), 4)
        for status, body in (o for o in outcomes if not isinstance(o, Exception)):
            self.assertEqual(status, 200)
            self.assertTrue(body.endswith("\n") and "process_start_time_seconds" in body)

    # The listener.

    def test_nothing_listens_unless_asked_for(self):
        server = self.start_server("--models", self.path("models"), "--store", "none:")
        self.assertEqual(server.terminate(), 0)
        self.assertFalse([line for line in server.log if "serving HTTP" in line])

    def test_a_port_in_use_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            self.must_fail("serve", "--models", self.path("models"), "--store", "none:", "--http", address,
                           says=["http " + address, "Address already in use"])

    def test_a_flood_of_idle_connections_does_not_disturb_the_ranking(self):
        server = self.serve()
        idle = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(100)]
        try:
            with server.connect() as client:
                self.assertEqual(len(client.rank_request(self.request())), 40)
        finally:
            for connection in idle:
                connection.close()
        self.assertEqual(get(self.port, "/healthz"), (200, "alive\n"))
        self.assertEqual(server.terminate(), 0)


class Deployment(unittest.TestCase):
    """deploy/prometheus: the example configuration and alerts."""

    def test_alerts_ask_for_metrics_that_are_listed(self):
        with open(os.path.join(harness.ROOT, "docs", "operations.md"), encoding="utf-8") as text:
            listed = set(re.findall(r"^\| `(homerank_\w+)`", text.read(), re.MULTILINE))
        with open(os.path.join(PROMETHEUS, "alerts.yml"), encoding="utf-8") as text:
            asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bhomerank_\w+", text.read())}
        self.assertGreater(len(asked), 3)
        self.assertLessEqual(asked, listed)

    @unittest.skipUnless(shutil.which("promtool"), "promtool (Debian's prometheus) is not installed")
    def test_promtool_accepts_them(self):
        for arguments in (["check", "config", os.path.join(PROMETHEUS, "prometheus.yml")],
                          ["test", "rules", os.path.join(PROMETHEUS, "alerts_test.yml")]):
            done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    harness.main()
