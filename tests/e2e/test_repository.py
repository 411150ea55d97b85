"""Models that come and go while the server serves: what is asked for is what is answered, to the bit."""

import collections
import json
import os
import shutil
import threading
import time
import urllib.request

import numpy as np

import harness
from harness import admin_pb

import compare
import random_models
from homerank_eval import Model, read_safetensors

N_VARIANTS = 4
N_SWAPS = 50
POLL_MS = 20


def broken_by_a_cut(folder):
    path = os.path.join(folder, "model.safetensors")
    os.truncate(path, os.path.getsize(path) * 2 // 3)
    return "data_offsets", "model.safetensors"


def broken_by_other_weights(folder):
    """The tensors of one training, the verify.jsonl of another."""
    path = os.path.join(folder, "model.safetensors")
    tensors = read_safetensors(path)
    name = next(name for name in sorted(tensors) if name.startswith("tower.") and name.endswith(".bias"))
    tensors[name] = tensors[name] + 1
    random_models.write_safetensors(path, tensors)
    return "verify.jsonl", "expected"


def broken_by_its_config(folder):
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["network"]["tasks"][0]["input"] = "nowhere.nothing"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return "config.json", "nowhere"


BREAKS = (broken_by_a_cut, broken_by_other_weights, broken_by_its_config)


def bits(items):
    """The items of an answer with the bits of each number: 9 digits, as `score` prints them, say which float32."""

    def of(number):
        return int(np.float32(number).view(np.uint32))

    return [(item["item_id"], of(item["score"]), {task: of(p) for task, p in item["tasks"].items()})
            for item in items]


class World(harness.Case):
    """What every test shares, made once: the variants of a model, a store, and what `homerank score` answers."""

    def make(self):
        self.setUp()
        self.paths = random_models.generate(self.path("made"), "home2", 6, n_requests=8, verify=True)
        self.store = "lmdb:" + self.path("store.lmdb")
        self.must_run("features", "load", "--store", self.store, "--in", self.paths["records"])
        self.lines = compare.read_lines(self.paths["requests"])
        self.requests = [harness.request_of_json(line) for line in self.lines]
        self.expected = [self.score(self.make_variant(i)) for i in range(N_VARIANTS)]
        return self

    def variant(self, i):
        return self.path("variants", str(i + 1))

    def make_variant(self, i):
        """A folder with the model's weights, moved a little."""
        folder = self.variant(i)
        shutil.copytree(self.paths["model"], folder)
        tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
        for name in tensors:
            if name.startswith("tower."):
                tensors[name] = tensors[name] * (1 + i / 16)
        random_models.write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        verify = [line["request"] for line in compare.read_lines(os.path.join(folder, "verify.jsonl"))]
        random_models.write_verify(folder, Model(folder), verify)
        return folder

    def score(self, folder):
        """What `homerank score` answers: request_id -> items' bits."""
        self.must_run("score", "--model", folder, "--store", self.store, "--in", self.paths["requests"], "--out",
                      self.path("scores"))
        return {line["request_id"]: bits(line["items"]) for line in compare.read_lines(self.path("scores"))}


class Repository(harness.Case):

    @classmethod
    def setUpClass(cls):
        cls.world = World().make()
        cls.addClassCleanup(cls.world.doCleanups)
        cls.requests = cls.world.requests

    def setUp(self):
        super().setUp()
        self.root = self.path("models")

    def publish(self, version, name="home", break_it=None):
        """ROOT/NAME/VERSION, there at once; the words of its error where it is to be broken."""
        hidden = os.path.join(self.root, name, ".new")
        shutil.copytree(self.world.variant(version % N_VARIANTS), hidden)
        words = break_it(hidden) if break_it else None
        os.rename(hidden, os.path.join(self.root, name, str(version)))
        return words

    def serve(self, *arguments):
        return self.start_server("--models", self.root, "--store", self.world.store, "--threads", "2", "--admin",
                                 "127.0.0.1:0", "--repository-poll-ms", str(POLL_MS), *arguments)

    def state(self, server, version, name="home"):
        """(state, reason) of a version; None where it is not known."""
        for found in server.admin("GetStatus").versions:
            if (found.model, found.version) == (name, version):
                return admin_pb.VersionState.Name(found.state)[len("VERSION_"):], found.reason
        return None

    def wait_for_state(self, server, version, state, name="home"):
        return harness.poll_until(lambda: (self.state(server, version, name) or ("",))[0] == state,
                                  "%s@%d %s" % (name, version, state))

    def check_answer(self, answer):
        name, _, version = answer.model.partition("@")
        self.assertEqual(name, "home")
        self.assertEqual(bits(harness.answer_as_json(answer)["items"]),
                         self.world.expected[int(version) % N_VARIANTS][answer.request_id], answer.model)

    def test_50_swaps_under_load(self):
        self.publish(1)
        server = self.serve("--http", "127.0.0.1:0")
        with Load(server, self.requests, 2) as load:
            refused = {}
            for version in range(2, N_SWAPS + 2):
                break_it = BREAKS[version // 3 % len(BREAKS)] if version % 3 == 0 else None
                words = self.publish(version, break_it=break_it)
                if version % 2 == 0:  # asked for; else found
                    self.load_now(server, version, words)
                if words:
                    refused[version] = words
                    self.wait_for_state(server, version, "FAILED")
                else:
                    load.wait_for_answer("home@%d" % version)
            for version in range(1, N_SWAPS):  # all but the last two, of which one is served
                if version not in refused:
                    self.wait_for_state(server, version, "AVAILABLE")
        self.assertEqual(load.errors, [])
        for answer in load.answers:
            self.check_answer(answer)
        served = collections.Counter(answer.model for answer in load.answers)
        self.assertEqual(set(served), {"home@%d" % v for v in range(1, N_SWAPS + 2) if v not in refused})
        for version, words in refused.items():
            _, reason = self.state(server, version)
            logged = [line for line in server.log if '"model version refused"' in line and
                      '"version":%d,' % version in line]
            # Once for its files, not at every look; and once where it was then asked for.
            self.assertIn(len(logged), (1,) if version % 2 else (1, 2), logged)
            for word in words:
                self.assertIn(word, reason)
                self.assertIn(word, logged[0])
        self.check_metrics(server, {"failed": len(refused), "serving": 1, "available": N_SWAPS - len(refused)})
        print("%d answers by %d versions, %d refused" % (len(load.answers), len(served), len(refused)))
        self.assertEqual(server.terminate(), 0)

    def check_metrics(self, server, versions):
        port = json.loads(server.wait_for_log('"serving HTTP"'))["port"]
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=harness.DEADLINE_S) as page:
            lines = page.read().decode().splitlines()
        for state, n in versions.items():
            self.assertIn('homerank_model_versions{state="%s"} %d' % (state, n), lines)
        self.assertIn("homerank_model_errors 0", lines)

    def load_now(self, server, version, words):
        if words is None:
            status = server.admin("LoadModel", model="home", version=version).status
            self.assertEqual((status.version, status.state), (version, admin_pb.VERSION_SERVING))
        else:
            self.assert_rpc_error("FAILED_PRECONDITION", words[0],
                                  lambda: server.admin("LoadModel", model="home", version=version))

    def test_a_version_is_unloaded_while_requests_run_on_it(self):
        for version in (1, 2, 3):
            self.publish(version)
        server = self.serve("--version-policy", "all")
        large = [harness.request_of_json(line, item_ids=["%d" % i for i in range(3000)], model="home@%d" % version,
                                         request_id="r%d" % version, top_k=5, item_features=[])
                 for line in self.world.lines[:1] for version in (1, 2)]
        with server.connect() as client:
            before = {request.model: harness.answer_as_json(client.rank_request(request, 60))["items"]
                      for request in large}
        with Load(server, large, 4) as load:
            for version in (1, 2):
                load.wait_for_answer("home@%d" % version)
                server.admin("UnloadModel", model="home", version=version)
                load.wait_for_error("NOT_FOUND", "home@%d" % version)
                self.wait_for_state(server, version, "AVAILABLE")
                self.assertEqual(self.state(server, 3)[0], "SERVING")
                server.admin("LoadModel", model="home", version=version)
        for answer in load.answers:
            self.assertEqual(harness.answer_as_json(answer)["items"], before[answer.model])
        self.assertEqual({error.status for error in load.errors}, {"NOT_FOUND"})
        self.assertEqual(server.terminate(), 0)

    def test_labels_survive_a_restart(self):
        for version in (1, 2):
            self.publish(version)
        server = self.serve("--default-model", "home")
        server.admin("LoadModel", model="home", version=1)
        for label, version in (("stable", 1), ("canary", 2)):
            labels = server.admin("SetLabel", model="home", label=label, version=version).labels
            self.assertIn((label, version, version), [(found.name, found.version, found.served) for found in labels])
        self.publish(3)
        self.wait_for_state(server, 3, "SERVING")
        self.assert_rpc_error("FAILED_PRECONDITION", "labelled stable",
                              lambda: server.admin("UnloadModel", model="home", version=1))
        self.check_labels(server)
        self.assertEqual(server.terminate(), 0)
        with open(os.path.join(self.root, "home", "labels.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), {"stable": 1, "canary": 2})
        server = self.serve("--default-model", "home:stable")
        self.check_labels(server, default="home@1")
        # By hand, nonsense first: that leaves the labels, and is said once.
        self.write_labels("{\"stable\": ")
        server.wait_for_log('"labels refused, the old ones stay"', "labels.json: line 1")
        self.check_labels(server, default="home@1")
        self.write_labels(json.dumps({"stable": 3, "canary": 2}))
        with server.connect() as client:
            harness.poll_until(lambda: client.rank_request(self.requests[0], 60).model == "home@3", "stable to move")
        self.assertEqual(len([line for line in server.log if "labels refused" in line]), 1)
        self.assertEqual(server.terminate(), 0)

    def write_labels(self, text):
        path = os.path.join(self.root, "home", "labels.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)

    def check_labels(self, server, default="home@3"):
        with server.connect() as client:
            for model, found in (("home:stable", "home@1"), ("home:canary", "home@2"), ("home", "home@3"),
                                 ("", default)):
                self.assertEqual(client.rank("u", ["1"], model=model).model, found, model)
            self.assert_rank_error("NOT_FOUND", "no such label", lambda: client.rank("u", ["1"], model="home:beta"))

    def test_a_folder_that_grows_is_served_when_it_is_whole(self):
        self.publish(1)
        server = self.serve()
        variant, folder = self.world.variant(2), os.path.join(self.root, "home", "2")
        os.mkdir(folder)
        shutil.copy(os.path.join(variant, "config.json"), folder)
        with open(os.path.join(variant, "model.safetensors"), "rb") as file:
            tensors = file.read()
        with open(os.path.join(folder, "model.safetensors"), "wb") as file, server.connect() as client:
            for i in range(0, len(tensors), len(tensors) // 8 + 1):
                file.write(tensors[i:i + len(tensors) // 8 + 1])
                file.flush()
                # Long enough for the server to look, and to think the file has come to rest.
                self.see_two_looks(server)
                if i + len(tensors) // 8 + 1 < len(tensors):
                    self.assertEqual(client.rank("u", ["1"]).model, "home@1")
        shutil.copy(os.path.join(variant, "verify.jsonl"), folder)
        self.wait_for_state(server, 2, "SERVING")
        with server.connect() as client:
            for request in self.requests:
                self.check_answer(client.rank_request(request, 60))

    def see_two_looks(self, server):
        """A version that fails for its config is noticed after two looks."""
        self.n_marks = getattr(self, "n_marks", 100) + 1
        self.publish(self.n_marks, name="marks", break_it=broken_by_its_config)
        self.wait_for_state(server, self.n_marks, "FAILED", name="marks")

    def test_memory_that_is_not_there_is_not_asked_for(self):
        self.publish(1)
        server = self.serve()
        folder = os.path.join(self.root, "home", ".new")
        shutil.copytree(self.world.variant(2), folder)
        path = os.path.join(folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        rows, dim = 2**31 - 1, 1024
        config["tables"]["vast"] = {"rows": rows, "dim": dim, "index": "hash"}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        with open(os.path.join(folder, "model.safetensors"), "rb+") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            data = file.read()
            header["embedding.vast.weight"] = {"dtype": "F32", "shape": [rows, dim],
                                               "data_offsets": [len(data), len(data) + rows * dim * 4]}
            text = json.dumps(header).encode()
            file.seek(0)
            file.write(len(text).to_bytes(8, "little") + text + data)
            file.truncate(file.tell() + rows * dim * 4)  # a hole: it takes no room on disk
        os.rename(folder, os.path.join(self.root, "home", "2"))
        self.assert_rpc_error("RESOURCE_EXHAUSTED", "bytes of memory, ",
                              lambda: server.admin("LoadModel", model="home", version=2))
        self.assertRegex(self.state(server, 2)[1], r"need 8\d{12} bytes of memory, \d+ are available")
        with server.connect() as client:
            self.assertEqual(client.rank("u", ["1"]).model, "home@1")

    def test_specific_versions_from_the_file(self):
        for version in (1, 2, 3):
            self.publish(version)
        with open(self.path("serve.yaml"), "w", encoding="utf-8") as file:
            file.write("models: %s\nstore: %s\nversion-policy: specific\nversions: [home@1, home@2]\n" %
                       (self.root, self.world.store))
        server = self.start_server("--config", self.path("serve.yaml"), "--admin", "127.0.0.1:0")
        (model,) = server.admin("ListModels").models
        self.assertEqual((model.name, list(model.versions)), ("home", [2, 1]))
        with server.connect() as client:
            self.assertEqual(client.rank("u", ["1"]).model, "home@2")
            self.assert_rank_error("NOT_FOUND", "home@3", lambda: client.rank("u", ["1"], model="home@3"))


class Load:
    """Threads that send the requests in turn, some hundred a second together; what came of them."""

    PAUSE_S = 0.01

    def __init__(self, server, requests, n_threads):
        self.server, self.requests = server, requests
        self.answers, self.errors = [], []
        self._changed, self._stop = threading.Condition(), False
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n_threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop = True
        for thread in self._threads:
            thread.join()

    def _run(self, i):
        with self.server.connect() as client:
            while not self._stop:
                request = self.requests[i % len(self.requests)]
                i += 1
                to = self.answers
                try:
                    result = client.rank_request(request, harness.DEADLINE_S)
                except harness.homerank.RankError as error:
                    to, result = self.errors, error
                with self._changed:
                    to.append(result)
                    self._changed.notify_all()
                time.sleep(self.PAUSE_S)

    def _wait(self, results, fits, what):
        with self._changed:
            seen = len(results)
            if not self._changed.wait_for(lambda: any(fits(result) for result in results[seen:]), harness.DEADLINE_S):
                raise AssertionError("%s did not come; errors: %s" % (what, self.errors[:3]))

    def wait_for_answer(self, model):
        """The next answer by that version."""
        self._wait(self.answers, lambda answer: answer.model == model, "an answer by " + model)

    def wait_for_error(self, status, words):
        self._wait(self.errors, lambda error: error.status == status and words in error.message, status)


if __name__ == "__main__":
    harness.main()
