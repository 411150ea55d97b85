"""A soak: one server, and for as long as asked everything that a day brings, all at once.

    tests/soak/run [--seconds N] [--no-memory]        30 minutes by default; HOMERANK_BIN may name the binary

Mixed sizes, deadlines, cancels, callers that vanish, `homerank load` killed half-way, versions swapped (some broken),
Redis restarted. It must hold: every answer equals `homerank score` bit for bit, by the version it names and with the
features it says it had; no call ends otherwise than by what was done to it; the server's counters add up in /metrics and
in the log; its memory is flat after the first minute; it ends with 0.
"""

import argparse
import collections
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import numpy as np

import harness
import random_models
from harness import pb
from homerank_eval import Model, expected_shapes, read_safetensors

N_VARIANTS, N_USERS, N_ITEMS, N_REQUESTS = 3, 40, 600, 48
SIZES = (1, 2, 5, 20, 100, 300, 500)
N_CALLERS = 4
SWAP_S, FIRST_SWAPS_S, BROKEN_EVERY, KEPT_VERSIONS = 2.0, 0.4, 4, 4
VERSIONS_WITH_SERIES = 64  # the metrics remember as many; all of them by the end of the first minute
REDIS_UP_S, REDIS_DOWN_S = 10.0, 3.0
CACHE = ("--cache-ttl-ms", "500", "--cache-max-stale-ms", "500")  # so that an outage has stale answers, then none
LOAD_S = 4
FLAT_FROM_S, FLAT_GROWTH = 60, 0.05
EXPECTED_CODES = {"OK", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}


class World:
    """Models, records and requests, and what `homerank score` makes of them with and without the store."""

    def __init__(self, folder, redis):
        self.folder, self.redis = folder, redis
        config, rng = random_models.make_config("home2", 11)
        records = random_models.make_records(rng, config, N_USERS, N_ITEMS)
        items = [r["id"] for r in records if r["entity"] == "item"]
        lines = random_models.make_requests(rng, config, N_REQUESTS)
        store = {e: {r["id"]: r["features"] for r in records if r["entity"] == e} for e in ("user", "item")}
        tensors = random_models.make_tensors(rng, expected_shapes(config))
        random_models.calibrate(config, tensors, lines, store)
        for i, line in enumerate(lines):
            line["item_ids"] = [items[k] for k in rng.choice(len(items), SIZES[i % len(SIZES)], replace=False)]
            line["request_id"] = "r%d" % i
            line.pop("item_features", None)
        self.paths = {name: os.path.join(folder, name + ".jsonl") for name in ("records", "requests")}
        random_models.write_lines(self.paths["records"], records)
        random_models.write_lines(self.paths["requests"], lines)
        self.make_variants(config, tensors, rng)
        self.run("features", "load", "--store", redis.uri(), "--in", self.paths["records"])
        self.requests = [harness.request_of_json(line) for line in lines]
        self.users = set(store["user"])
        self.with_store = [self.score(i, redis.uri()) for i in range(N_VARIANTS)]
        self.without_store = [self.score(i, "none:") for i in range(N_VARIANTS)]

    def make_variants(self, config, tensors, rng):
        for i in range(N_VARIANTS):
            path = self.variant(i)
            random_models.write_model(path, config, tensors, rng)
            moved = read_safetensors(os.path.join(path, "model.safetensors"))
            for name in moved:
                if name.startswith("tower."):
                    moved[name] = moved[name] * (1 + i / 16)
            random_models.write_safetensors(os.path.join(path, "model.safetensors"), moved)
            Model(path)

    def variant(self, i):
        return os.path.join(self.folder, "variants", str(i + 1))

    def run(self, *arguments):
        subprocess.run([harness.binary(), *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def score(self, i, store):
        """request_id -> the answer's bits."""
        out = os.path.join(self.folder, "scores.jsonl")
        strictly = [] if store == "none:" else ["--strict-features", "--store-timeout-ms", "60000"]
        self.run("score", "--model", self.variant(i), "--store", store, "--in", self.paths["requests"], "--out", out, *strictly)
        with open(out, encoding="utf-8") as lines:
            return {line["request_id"]: bits_of_line(line) for line in map(json.loads, lines)}


def floats(values):
    """The bits of float32 numbers; one that is not finite is null in JSON and has the same bits everywhere."""
    numbers = np.array([np.nan if v is None else v for v in values], np.float32)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers.tobytes()


def bits_of_line(line):
    tasks = sorted(line["items"][0]["tasks"])
    return ([item["item_id"] for item in line["items"]], floats([item["score"] for item in line["items"]]),
            tasks, floats([item["tasks"][t] for item in line["items"] for t in tasks]))


def bits_of_answer(answer):
    order = sorted(range(len(answer.tasks)), key=lambda i: answer.tasks[i])
    table = np.array(answer.task_scores, np.float32).reshape(len(answer.item_ids), len(answer.tasks))
    return (list(answer.item_ids), floats(answer.scores), [answer.tasks[i] for i in order],
            floats(table[:, order].flatten()))


class Tally:
    """What happened, from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self.counts = collections.Counter()
        self.wrong = []

    def add(self, what, n=1):
        with self._lock:
            self.counts[what] += n

    def complain(self, text):
        with self._lock:
            self.wrong.append(text)


class Actor(threading.Thread):
    """Does `turn` again and again until stopped; what it raises is a failure of the soak."""

    def __init__(self, soak, seed):
        super().__init__(daemon=True)
        self.soak, self.random = soak, random.Random(seed)

    def run(self):
        try:
            while not self.soak.stopping.is_set():
                self.turn()
        except Exception as error:  # pylint: disable=broad-except
            self.soak.tally.complain("%s: %r" % (type(self).__name__, error))

    def turn(self):
        raise NotImplementedError

    def pause(self, seconds):
        self.soak.stopping.wait(seconds)


class Caller(Actor):
    """Ranks over a connection of its own: waits, or has little time, or gives up, or vanishes."""

    def __init__(self, soak, seed):
        super().__init__(soak, seed)
        self.channel = None

    def connect(self):
        self.channel = self.soak.server.channel()
        self.rank = self.channel.unary_unary("/homerank.v1.Ranker/Rank",
                                             request_serializer=pb.RankRequest.SerializeToString,
                                             response_deserializer=pb.RankResponse.FromString)

    def run(self):
        self.connect()
        super().run()
        self.channel.close()

    def turn(self):
        request = self.random.choice(self.soak.world.requests)
        kind = self.random.random()
        if kind < 0.80:
            self.finish(self.rank.future(request, timeout=60), request, {"OK", "RESOURCE_EXHAUSTED"})
        elif kind < 0.88:
            deadline_s = self.random.choice((0.001, 0.003, 0.01))
            self.finish(self.rank.future(request, timeout=deadline_s), request,
                        {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
        elif kind < 0.98:
            future = self.rank.future(request, timeout=60)
            self.pause(self.random.random() * 0.01)
            future.cancel()
            self.soak.tally.add("calls given up")
        else:
            for _ in range(self.random.randint(1, 8)):
                self.rank.future(self.random.choice(self.soak.world.requests), timeout=60)
            self.channel.close()
            self.soak.tally.add("connections dropped")
            self.connect()

    def finish(self, future, request, codes):
        error = future.exception()
        code = "OK" if error is None else error.code().name
        self.soak.tally.add("calls " + code)
        if code not in codes:
            self.soak.tally.complain("a call of %d items ended with %s: %s" % (len(request.item_ids), code, error.details()))
        if error is None:
            self.soak.check(request, future.result())


class Loader(Actor):
    """`homerank load` with cancels and short deadlines; every other one is killed half-way."""

    def turn(self):
        load = harness.spawn([harness.binary(), "load", "--target", self.soak.server.target, "--rate", "60", "--in",
                              self.soak.world.paths["requests"], "--duration-s", str(LOAD_S), "--warmup-s", "0",
                              "--cancel-percent", "20", "--timeout-ms", "50", "--connections", "2", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.random.random() < 0.5:
            self.pause(self.random.random() * LOAD_S)
            load.kill()
        out, err = load.communicate()
        if load.returncode == -signal.SIGKILL:
            self.soak.tally.add("load generators killed")
            return
        if load.returncode != 0:
            raise AssertionError(err.decode())
        phase = json.loads(out)["phases"][0]
        self.soak.tally.add("loaded OK", phase["answered"])
        if not set(phase["statuses"]) <= EXPECTED_CODES:
            self.soak.tally.complain("homerank load saw %r" % phase["statuses"])


class Swapper(Actor):
    """Publishes a version, every so often a broken one, and removes old ones."""

    def turn(self):
        self.pause(SWAP_S if self.soak.version > 4 / 3 * VERSIONS_WITH_SERIES else FIRST_SWAPS_S)
        self.soak.publish(broken=self.soak.version % BROKEN_EVERY == 0)
        old = os.path.join(self.soak.root, "home", str(self.soak.version - KEPT_VERSIONS))
        if os.path.exists(old):
            shutil.rmtree(old)


class Restarter(Actor):
    """Stops Redis, which keeps its records, and starts it again."""

    def turn(self):
        self.pause(REDIS_UP_S)
        redis = self.soak.redis
        with redis.connect() as connection:
            connection.shutdown(save=True)
        redis.process.wait()
        self.pause(REDIS_DOWN_S)
        redis.start()
        self.soak.tally.add("Redis restarts")


class Watcher(Actor):
    """The server's memory, second by second."""

    def __init__(self, soak, seed):
        super().__init__(soak, seed)
        self.begun, self.rss = time.monotonic(), []

    def turn(self):
        with open("/proc/%d/status" % self.soak.server.process.pid, encoding="utf-8") as file:
            kilobytes = int(re.search(r"VmRSS:\s+(\d+) kB", file.read()).group(1))
        self.rss.append((time.monotonic() - self.begun, kilobytes / 1024))
        self.pause(1)

    def median(self, first_s, last_s):
        return statistics.median(m for t, m in self.rss if first_s <= t <= last_s)

    def by_minute(self):
        """The median of every minute begun: a leak is a slope, something that fills up a step."""
        minutes = collections.defaultdict(list)
        for t, megabytes in self.rss:
            minutes[int(t // 60)].append(megabytes)
        return [statistics.median(minutes[minute]) for minute in sorted(minutes)]


class Soak:
    def __init__(self, folder):
        self.root, self.version, self.variants = os.path.join(folder, "models"), 0, {}
        self.stopping, self.tally = threading.Event(), Tally()
        self.redis = harness.Redis(folder)
        self.world = World(folder, self.redis)
        self.publish()
        self.server = harness.Server(["--models", self.root, "--store", self.redis.uri(), "--http", "127.0.0.1:0",
                                      "--threads", "2", "--repository-poll-ms", "100", *CACHE]).wait_ready()

    def close(self):
        self.server.close()
        self.redis.close()

    def publish(self, broken=False):
        """The next version, there at once."""
        version = self.version + 1
        hidden = os.path.join(self.root, "home", ".new")
        shutil.copytree(self.world.variant(version % N_VARIANTS), hidden)
        if broken:
            path = os.path.join(hidden, "model.safetensors")
            os.truncate(path, os.path.getsize(path) * 2 // 3)
        os.rename(hidden, os.path.join(self.root, "home", str(version)))
        self.version = version
        self.tally.add("versions broken" if broken else "versions")

    def check(self, request, answer):
        """The answer is the offline one of its version: with all features (maybe stale: the records do not change), or
        with none where the store was down for long. Every item asked for has a record."""
        name, _, version = answer.model.partition("@")
        found, features = bits_of_answer(answer), answer.features
        incomplete = features.items_missing > 0 or features.items_stale > 0
        if name != "home" or int(version) > self.version:
            self.tally.complain("an answer by %s" % answer.model)
            return
        if features.items_missing == 0 and features.user_found == (request.user_id in self.world.users):
            self.tally.add("stale answers checked" if features.items_stale else "answers checked")
            expected = self.world.with_store
        elif features.items_missing == len(request.item_ids) and not features.user_found:
            self.tally.add("answers without the store checked")
            expected = self.world.without_store
        else:
            self.tally.add("answers with a part of the records")
            return
        wanted = expected[int(version) % N_VARIANTS][request.request_id]
        if incomplete and not features.store_error:
            self.tally.complain("%s: records were missing or stale, and no word why" % request.request_id)
        if found != wanted:
            differs = [name for name, a, b in zip(("order", "scores", "tasks", "predictions"), found, wanted) if a != b]
            self.tally.complain("%s by %s: %s are not what `homerank score` says (user found %r, %d of %d items missing, "
                                "store error %r)" % (request.request_id, answer.model, ", ".join(differs), features.user_found,
                                                     features.items_missing, len(request.item_ids), features.store_error))

    def metrics(self):
        port = json.loads(self.server.wait_for_log('"serving HTTP"'))["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.DEADLINE_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        sums = collections.Counter()
        for name, labels, value in re.findall(r"^(homerank_\w+)(\{.*\})? (\S+)$", text, re.MULTILINE):
            sums[name] += float(value)
            for code in re.findall(r'code="(\w+)"', labels):
                sums[name, code] += float(value)
        return sums

    def settle(self):
        """The counters, once no call is in the server."""
        def idle():
            sums = self.metrics()
            return sums if sums["homerank_server_open_requests"] == 0 else None
        return harness.poll_until(idle, "the server to be idle")

    def run(self, seconds):
        kinds = [Caller] * N_CALLERS + [Loader, Swapper, Restarter, Watcher]
        actors = [kind(self, seed) for seed, kind in enumerate(kinds)]
        end = time.monotonic() + seconds
        for actor in actors:
            actor.start()
        while time.monotonic() < end and not self.tally.wrong and self.server.process.poll() is None:
            time.sleep(0.2)
        self.stopping.set()
        for actor in actors:
            actor.join(4 * harness.DEADLINE_S)
            if actor.is_alive():
                self.tally.complain("%s did not end" % type(actor).__name__)
        return actors[-1]

    def check_counters(self):
        sums = self.settle()
        accepted, answered, cancelled = (sums["homerank_server_%s_total" % name]
                                         for name in ("accepted", "answered", "cancelled"))
        if accepted != answered + cancelled or accepted != sums["homerank_requests_total"]:
            self.tally.complain("accepted %d, answered %d, cancelled %d, requests %d" %
                                (accepted, answered, cancelled, sums["homerank_requests_total"]))
        seen = self.tally.counts["calls OK"] + self.tally.counts["loaded OK"]
        if seen > sums["homerank_requests_total", "OK"]:
            self.tally.complain("%d calls were OK, the server knows of %d" % (seen, sums["homerank_requests_total", "OK"]))
        return {"accepted": accepted, "answered": answered, "cancelled": cancelled}

    def check_log(self, counted):
        stopped = json.loads(self.server.wait_for_log('"gRPC stopped"'))
        for name, value in counted.items():
            if stopped[name] != value:
                self.tally.complain("the log says %s=%r, the metrics %r" % (name, stopped[name], value))
        for line in map(json.loads, (line for line in self.server.log if line.startswith("{"))):
            if line["level"].upper() == "ERROR" and "model version refused" not in json.dumps(line):
                self.tally.complain("logged: %s" % json.dumps(line))

    def check_memory(self, watcher, seconds):
        if seconds < 3 * FLAT_FROM_S:
            return
        early = watcher.median(FLAT_FROM_S, FLAT_FROM_S + 30)
        late = watcher.median(seconds - 30, seconds)
        print("resident memory: %.1f MB after the first minute, %.1f MB in the end" % (early, late))
        print("minute by minute: " + " ".join("%.1f" % megabytes for megabytes in watcher.by_minute()))
        if late > early * (1 + FLAT_GROWTH):
            self.tally.complain("resident memory grew from %.1f to %.1f MB" % (early, late))


def soak(seconds, memory=True):
    """Runs it; the complaints, [] where all held."""
    with tempfile.TemporaryDirectory(prefix="homerank-soak-") as folder:
        it = Soak(folder)
        try:
            watcher = it.run(seconds)
            counted = it.check_counters()
            if memory:
                it.check_memory(watcher, seconds)
            code = it.server.terminate()
            if code != 0:
                it.tally.complain("the server ended with %d: %s" % (code, "\n".join(it.server.log[-20:])))
            else:
                it.check_log(counted)
            print(", ".join("%s %d" % count for count in sorted(it.tally.counts.items())))
            print("server: " + ", ".join("%s %d" % count for count in counted.items()))
        finally:
            it.close()
    return it.tally


def main():
    parser = argparse.ArgumentParser(prog="tests/soak/run")
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="for sanitizers, which keep what is freed")
    args = parser.parse_args()
    wrong = soak(args.seconds, args.memory).wrong
    for text in wrong[:20]:
        print("soak: " + text, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
