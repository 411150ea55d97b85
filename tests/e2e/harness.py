"""What the end-to-end tests share: the real binary, a real redis-server, and calls of every sort.

HOMERANK_BIN is the binary (default bazel-bin/service/homerank); HOMERANK_SHARED, where set, the folder with real
data. Everything lives in a temporary folder and ends with the test; waiting is for events, never for time.
"""

import collections
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
import redis

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "evaluation"))

# Never connected: while a channel is open gRPC is not shut down, which it otherwise is with every last channel that
# closes, and grpcio 1.51 sometimes waits for ever in that, or aborts.
_open_channel = grpc.insecure_channel("127.0.0.1:1")

DEADLINE_S = 60  # of anything that should take a moment: sanitizers and busy machines are slow


def binary():
    path = os.environ.get("HOMERANK_BIN", os.path.join(ROOT, "bazel-bin", "service", "homerank"))
    if not os.access(path, os.X_OK):
        raise FileNotFoundError("%s is not there: build //service:homerank or set HOMERANK_BIN" % path)
    return os.path.abspath(path)


def shared(*parts):
    """A path in the folder of real data; skips the test where there is none."""
    folder = os.environ.get("HOMERANK_SHARED")
    if not folder:
        raise unittest.SkipTest("HOMERANK_SHARED is not set")
    return os.path.join(folder, *parts)


# --- generated code: the client package and the messages of the standard protocols ---------------------------

_generated = tempfile.TemporaryDirectory(prefix="homerank-py-")


def _generate():
    subprocess.run([os.path.join(ROOT, "clients", "python", "build.sh"), _generated.name], check=True)
    subprocess.run(["protoc", "--proto_path=" + os.path.join(ROOT, "proto"), "--python_out=" + _generated.name,
                    "admin.proto", "health.proto", "reflection.proto"], check=True)
    sys.path.insert(0, _generated.name)


_generate()
homerank = importlib.import_module("homerank")
pb = importlib.import_module("homerank.homerank_pb2")
admin_pb = importlib.import_module("admin_pb2")
health_pb = importlib.import_module("health_pb2")
reflection_pb = importlib.import_module("reflection_pb2")
make_request = importlib.import_module("homerank.client").make_request

# --- processes -----------------------------------------------------------------------------------------------

def spawn(arguments, **options):
    """A process that ends with the thread that starts it. (preexec_fn would have Python fork, and gRPC then waits
    until its threads are idle: at times for ever.)"""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *arguments], **options)


def poll_until(condition, what, timeout=DEADLINE_S):
    """Asks a condition of another process until it holds; fails after the timeout. Returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("timed out waiting for %s" % what)
        time.sleep(0.005)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerEnded(AssertionError):
    """Before it answered."""


def on_free_port(start, tries=5):
    """start(port); with another port where the server ended, as somebody else may have taken the free one."""
    for _ in range(tries - 1):
        try:
            return start(free_port())
        except ServerEnded:
            pass
    return start(free_port())


def redis_answers(process, port):
    """Whether the redis-server that the process is answers yet; somebody else on its port may never."""
    if process.poll() is not None:
        raise ServerEnded("redis-server on port %d ended with %d" % (port, process.returncode))
    try:
        with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1) as connection:
            return connection.ping()
    except redis.exceptions.BusyLoadingError:
        return True
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        return False


class Redis:
    """A redis-server on a free loopback port; kill and start keep the port, and lose the data."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        on_free_port(self._start_at)

    def _start_at(self, port):
        self.port = port
        self.start()

    def uri(self, layout="packed", prefix="hr"):
        return "redis://127.0.0.1:%d/0?prefix=%s&layout=%s" % (self.port, prefix, layout)

    def connect(self):
        return redis.Redis(host="127.0.0.1", port=self.port)

    def start(self, *options):
        self.process = spawn(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                              "--appendonly", "no", "--enable-debug-command", "yes", "--dir", self.folder, *options],
                             stdout=subprocess.DEVNULL)
        try:
            poll_until(lambda: redis_answers(self.process, self.port), "redis-server on port %d" % self.port)
        except BaseException:
            self.close()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()


class Server:
    """`homerank serve` on a free port, its log read line by line."""

    def __init__(self, arguments):
        self.process = spawn([binary(), "serve", "--listen", "127.0.0.1:0", "--log-format", "json", *arguments],
                             stderr=subprocess.PIPE, text=True)
        self.log, self.target = [], None
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_log(self, *words, timeout=DEADLINE_S, start=0):
        """The first log line, from line `start` on, that holds all words."""

        def found():
            return next((line for line in self.log[start:] if all(word in line for word in words)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout)
            line = found()
        if line is None:
            raise AssertionError("no log line with %r; the log is:\n%s" % (words, "\n".join(self.log[-50:])))
        return line

    def wait_ready(self):
        self.target = json.loads(self.wait_for_log('"listening"'))["address"]
        with self.connect() as client:
            client.wait_ready(DEADLINE_S)
        poll_until(lambda: self.health() == health_pb.HealthCheckResponse.SERVING, "health SERVING")
        return self

    def connect(self):
        # A channel of its own each, or gRPC shares one connection among all of them.
        return homerank.connect(self.target, [("grpc.use_local_subchannel_pool", 1),
                                              ("grpc.max_receive_message_length", -1)])

    def channel(self):
        return grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)])

    def admin(self, method, timeout=DEADLINE_S, **fields):
        """A call of homerank.v1.Admin, which --admin 127.0.0.1:0 started: admin("LoadModel", model="home")."""
        port = json.loads(self.wait_for_log('"serving gRPC"', '"homerank.v1.Admin"'))["port"]
        request = getattr(admin_pb, method + "Request")
        response = getattr(admin_pb, method + "Response")
        with grpc.insecure_channel("127.0.0.1:%d" % port) as channel:
            call = channel.unary_unary("/homerank.v1.Admin/" + method, request_serializer=request.SerializeToString,
                                       response_deserializer=response.FromString)
            return call(request(**fields), timeout=timeout)

    def health(self, service=""):
        with self.channel() as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check",
                                        request_serializer=health_pb.HealthCheckRequest.SerializeToString,
                                        response_deserializer=health_pb.HealthCheckResponse.FromString)
            return check(health_pb.HealthCheckRequest(service=service), timeout=DEADLINE_S).status

    def terminate(self):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        self.process.stderr.close()
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


class Case(unittest.TestCase):
    """A test with a temporary folder and processes that end with it."""

    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="homerank-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run_command(self, *arguments, stdin=None):
        """Runs `homerank ARGUMENTS` to its end: returncode, stdout, stderr."""
        return subprocess.run([binary(), *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=5 * DEADLINE_S, check=False)

    def must_run(self, *arguments, stdin=None):
        done = self.run_command(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, 0, "homerank %s: %s" % (" ".join(arguments), done.stderr))
        return done

    def must_fail(self, *arguments, code=1, says=(), stdin=None):
        """Runs a command that fails with one clear line: its last line on stderr, which holds the words."""
        done = self.run_command(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, code, "homerank %s: %s" % (" ".join(arguments), done.stderr))
        lines = [line for line in done.stderr.splitlines() if line.startswith("homerank: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        for word in says:
            self.assertIn(word, lines[0])
        return lines[0]

    def start_redis(self):
        server = Redis(self.folder)
        self.addCleanup(server.close)
        return server

    def start_server(self, *arguments):
        server = Server(arguments)
        self.addCleanup(server.close)
        return server.wait_ready()

    def assert_rpc_error(self, code, says, call):
        """The gRPC call ends with the status code and the words in its message."""
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code().name, code, caught.exception.details())
        self.assertIn(says, caught.exception.details())

    def assert_rank_error(self, status, says, call):
        """The call raises RankError with the status and all the words in its message; the message."""
        with self.assertRaises(homerank.RankError) as caught:
            call()
        self.assertEqual(caught.exception.status, status, caught.exception.message)
        for word in [says] if isinstance(says, str) else says:
            self.assertIn(word, caught.exception.message)
        return caught.exception.message


def answer_as_json(answer):
    """An Answer in the form of a line of `homerank score`."""
    return {"request_id": answer.request_id, "model": answer.model,
            "items": [{"item_id": row.item_id, "score": row.score, "tasks": row.tasks} for row in answer]}


def request_of_json(line, **changes):
    """The RankRequest of a request in its JSON form."""
    fields = dict(line, **changes)
    return make_request(fields.pop("user_id", ""), fields.pop("item_ids"), **fields)


def send_all(client, requests, n_threads=8, timeout=DEADLINE_S):
    """Ranks many RankRequests side by side: the Answers, in order."""
    answers, queue, errors = [None] * len(requests), collections.deque(enumerate(requests)), []

    def work():
        while not errors:
            try:
                i, request = queue.popleft()
            except IndexError:
                return
            try:
                answers[i] = client.rank_request(request, timeout)
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def main():
    unittest.main(verbosity=2)
