"""Health, reflection, streams, deadlines, cancellation and limits, by raw calls of a foreign gRPC."""

import threading

import grpc

import harness
from harness import health_pb, homerank, pb, reflection_pb

import random_models

from google.protobuf import descriptor_pb2

SERVING, NOT_SERVING = health_pb.HealthCheckResponse.SERVING, health_pb.HealthCheckResponse.NOT_SERVING
RANK = "/homerank.v1.Ranker/Rank"
RANKER = "homerank.v1.Ranker"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class Rpc(harness.Case):

    @classmethod
    def setUpClass(cls):
        cls.models = harness.tempfile.TemporaryDirectory()
        cls.paths = random_models.generate(cls.models.name, "home2", 1)

    @classmethod
    def tearDownClass(cls):
        cls.models.cleanup()

    def serve(self, *arguments):
        return self.start_server("--models", self.models.name, "--store", "none:", *arguments)

    def request(self, n=10, request_id=""):
        return pb.RankRequest(request_id=request_id, user_id="u", item_ids=["%d" % i for i in range(n)])

    # Health.

    def check(self, server, service):
        with self.assertRaises(grpc.RpcError) as caught:
            server.health(service)
        return caught.exception.code()

    def test_health_tells_of_the_server_and_of_its_service(self):
        server = self.serve()
        self.assertEqual(server.health(""), SERVING)
        self.assertEqual(server.health(RANKER), SERVING)
        self.assertEqual(self.check(server, "no.such.Service"), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(server.terminate(), 0)

    def test_a_watched_health_turns_to_not_serving_at_shutdown(self):
        server = self.serve()
        with server.channel() as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch",
                                         request_serializer=health_pb.HealthCheckRequest.SerializeToString,
                                         response_deserializer=health_pb.HealthCheckResponse.FromString)
            statuses = watch(health_pb.HealthCheckRequest())
            self.assertEqual(next(statuses).status, SERVING)
            unknown = watch(health_pb.HealthCheckRequest(service="no.such.Service"))
            self.assertEqual(next(unknown).status, health_pb.HealthCheckResponse.SERVICE_UNKNOWN)
            unknown.cancel()
            server.process.send_signal(harness.signal.SIGTERM)
            seen = []
            try:
                for message in statuses:
                    seen.append(message.status)
            except grpc.RpcError:
                pass
            self.assertEqual(seen, [NOT_SERVING])
        self.assertEqual(server.wait(), 0)

    # Reflection.

    def reflect(self, server, *requests):
        with server.channel() as channel:
            info = channel.stream_stream("/%s/ServerReflectionInfo" % REFLECTION,
                                         request_serializer=reflection_pb.ServerReflectionRequest.SerializeToString,
                                         response_deserializer=reflection_pb.ServerReflectionResponse.FromString)
            return list(info(iter(requests), timeout=harness.DEADLINE_S))

    def test_reflection_lists_the_services_and_describes_them(self):
        server = self.serve()
        ask = reflection_pb.ServerReflectionRequest
        listed, by_symbol, by_message, unknown, no_file = self.reflect(
            server, ask(host="h", list_services="*"), ask(file_containing_symbol=RANKER),
            ask(file_containing_symbol="homerank.v1.RankRequest"), ask(file_containing_symbol="no.such.Symbol"),
            ask(file_by_filename="no/such.proto"))
        self.assertEqual({service.name for service in listed.list_services_response.service},
                         {RANKER, "grpc.health.v1.Health", REFLECTION})
        self.assertEqual(listed.original_request.host, "h")
        for answer in (unknown, no_file):
            self.assertEqual(answer.error_response.error_code, grpc.StatusCode.NOT_FOUND.value[0])
        name = descriptor_pb2.FileDescriptorProto.FromString(
            by_symbol.file_descriptor_response.file_descriptor_proto[0]).name
        (by_name,) = self.reflect(server, ask(file_by_filename=name))
        for answer in (by_symbol, by_message, by_name):
            files = [descriptor_pb2.FileDescriptorProto.FromString(raw)
                     for raw in answer.file_descriptor_response.file_descriptor_proto]
            (ours,) = [file for file in files if file.package == "homerank.v1"]
            self.assertEqual([(m.name, m.client_streaming, m.server_streaming) for m in ours.service[0].method],
                             [("Rank", False, False), ("RankStream", True, True)])
            # What reflection says of the messages is what the contract says.
            expected = descriptor_pb2.FileDescriptorProto()
            pb.DESCRIPTOR.CopyToProto(expected)
            self.assertEqual([m.name for m in ours.message_type], [m.name for m in expected.message_type])
            for found, wanted in zip(ours.message_type, expected.message_type):
                self.assertEqual([(f.name, f.number, f.type, f.label, f.type_name) for f in found.field],
                                 [(f.name, f.number, f.type, f.label, f.type_name) for f in wanted.field])
        self.assertEqual(server.terminate(), 0)

    def test_unknown_methods_are_unimplemented(self):
        server = self.serve()
        with server.channel() as channel:
            for path in ("/homerank.v1.Ranker/Dance", "/no.such.Service/Rank", "/"):
                with self.subTest(path), self.assertRaises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(b"", timeout=harness.DEADLINE_S)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(server.terminate(), 0)

    # Streams.

    def test_a_stream_answers_in_the_order_of_its_requests(self):
        server = self.serve()
        with server.connect() as client:
            sizes = [1 + i * 37 % 300 for i in range(200)]
            requests = [self.request(n, "s%d" % i) for i, n in enumerate(sizes)]
            answers = list(client.rank_stream(iter(requests)))
            self.assertEqual([answer.request_id for answer in answers], ["s%d" % i for i in range(200)])
            self.assertEqual([len(answer) for answer in answers], sizes)
            self.assertEqual(list(client.rank_stream(iter([]))), [])
        self.assertEqual(server.terminate(), 0)

    def test_a_stream_answers_before_the_next_request_is_sent(self):
        server = self.serve()
        answered = threading.Semaphore(0)

        def requests():
            for i in range(5):
                yield self.request(3, str(i))
                if not answered.acquire(timeout=harness.DEADLINE_S):
                    return

        with server.connect() as client:
            n = 0
            for answer in client.rank_stream(requests()):
                self.assertEqual(answer.request_id, str(n))
                n += 1
                answered.release()
            self.assertEqual(n, 5)
        self.assertEqual(server.terminate(), 0)

    def test_a_reader_that_stops_reading_does_not_stop_the_others(self):
        server = self.serve("--max-queue-ms", "60000")  # a stream may have much ahead of them
        with server.connect() as lazy, server.connect() as client:
            answers = lazy.rank_stream(self.request(1000) for _ in range(300))
            next(answers)
            for _ in range(20):
                self.assertEqual(len(client.rank_request(self.request(), harness.DEADLINE_S)), 10)
            answers.close()
            self.assertEqual(len(client.rank_request(self.request(), harness.DEADLINE_S)), 10)
        self.assertEqual(server.terminate(), 0)

    # Deadlines and cancellation.

    def test_a_deadline_that_cannot_be_met_is_exceeded(self):
        server = self.serve("--backend", "reference", "--threads", "1")
        with server.connect() as client:
            self.assert_rank_error("DEADLINE_EXCEEDED", "",
                                   lambda: client.rank_request(self.request(4000), timeout=0.005))
            self.assertEqual(len(client.rank_request(self.request(), harness.DEADLINE_S)), 10)
        self.assertEqual(server.terminate(), 0)

    def test_cancelled_calls_leave_the_server_free(self):
        server = self.serve("--backend", "reference", "--threads", "1", "--max-queued-calls", "8")
        with server.channel() as channel:
            rank = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString)
            for _ in range(5):
                calls = [rank.future(self.request(1000)) for _ in range(8)]
                for call in calls:
                    call.cancel()
        self.wait_for_a_free_place(server)
        self.assertEqual(server.terminate(), 0)

    def test_clients_that_vanish_do_no_harm(self):
        server = self.serve()
        for i in range(20):
            with server.channel() as channel:
                rank = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString)
                rank.future(self.request(500))
                stream = channel.stream_stream("/homerank.v1.Ranker/RankStream",
                                               request_serializer=pb.RankRequest.SerializeToString)
                stream(self.request(100) for _ in range(i))
        with server.connect() as client:
            self.assertEqual(len(client.rank_request(self.request(), harness.DEADLINE_S)), 10)
        self.assertEqual(server.terminate(), 0)

    # Limits.

    def wait_for_a_free_place(self, server):
        """A place in the queue becomes free just after its call's answer is sent."""
        with server.connect() as client:

            def answered():
                try:
                    return len(client.rank_request(self.request(), harness.DEADLINE_S)) == 10
                except homerank.RankError as error:
                    self.assertEqual(error.status, "RESOURCE_EXHAUSTED")
                    return False

            harness.poll_until(answered, "a free place")

    def check_some_are_refused(self, server):
        """Sends more at once than the server takes; how many were answered."""
        with server.channel() as channel:
            rank = channel.unary_unary(RANK, request_serializer=pb.RankRequest.SerializeToString)
            codes = [call.code() for call in [rank.future(self.request(1000)) for _ in range(40)]]
        self.assertEqual(set(codes), {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED})
        self.wait_for_a_free_place(server)
        return codes.count(grpc.StatusCode.OK)

    def test_a_full_queue_refuses_at_once_and_serves_again(self):
        server = self.serve("--backend", "reference", "--threads", "1", "--max-queued-calls", "4")
        self.assertGreaterEqual(self.check_some_are_refused(server), 4)
        self.assertEqual(server.terminate(), 0)

    def test_the_items_in_the_queue_are_bounded(self):
        server = self.serve("--backend", "reference", "--threads", "1", "--max-items", "1000", "--max-queued-items",
                            "1000")
        self.check_some_are_refused(server)
        self.assertEqual(server.terminate(), 0)

    def test_compressed_requests_are_refused_for_they_unpack_without_a_bound(self):
        server = self.serve()
        with server.channel() as channel:
            rank = channel.unary_unary(RANK)
            bomb = self.request(1).SerializeToString() + b"\xc2\x3e\x80\x80\x80\x20" + bytes(64 << 20)
            for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                with self.assertRaises(grpc.RpcError) as caught:
                    rank(bomb, timeout=harness.DEADLINE_S, compression=algorithm)
                self.assertIn(caught.exception.code(),
                              (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED))
            self.assertTrue(rank(self.request(1).SerializeToString(), timeout=harness.DEADLINE_S))
        self.assertEqual(server.terminate(), 0)

    def test_a_terminated_server_refuses_new_connections(self):
        server = self.serve()
        self.assertEqual(server.terminate(), 0)
        with server.connect() as client:
            with self.assertRaises(homerank.RankError) as caught:
                client.rank_request(self.request(), timeout=5)
            self.assertEqual(caught.exception.status, "UNAVAILABLE")


if __name__ == "__main__":
    harness.main()
