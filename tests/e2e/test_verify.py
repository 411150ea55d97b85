"""verify.jsonl: what was trained is what is served, or it is not served."""

import json
import os
import re
import shutil

import harness

import compare
import random_models
from homerank_eval import Model, read_safetensors

BACKENDS = (("reference", "f32"), ("onednn", "f32"), ("onednn", "bf16"))


class Verify(harness.Case):

    def setUp(self):
        super().setUp()
        self.root = self.path("models")
        self.paths = random_models.generate(self.root, "home2", 6, verify=True)
        self.model = Model(self.paths["model"])

    def score(self, folder, backend="reference", precision="f32"):
        return ("score", "--model", folder, "--store", "none:", "--in", self.paths["requests"], "--out",
                self.path("out"), "--backend", backend, "--precision", precision)

    def copy(self, version):
        folder = os.path.join(self.root, "home2", str(version))
        shutil.copytree(self.paths["model"], folder)
        return folder

    def with_tensor(self, version, name, change):
        """A copy of the model with one tensor changed in place."""
        folder = self.copy(version)
        tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
        change(tensors[name])
        random_models.write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        return folder

    def with_verify(self, version, change):
        """A copy of the model with its verify.jsonl changed."""
        folder = self.copy(version)
        path = os.path.join(folder, "verify.jsonl")
        lines = compare.read_lines(path)
        text = change(lines)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text if text is not None else "".join(json.dumps(line) + "\n" for line in lines))
        return folder

    def test_a_good_version_loads_on_every_backend(self):
        for backend, precision in BACKENDS:
            with self.subTest(backend=backend, precision=precision):
                self.must_run(*self.score(self.paths["model"], backend, precision))

    def test_a_changed_weight_is_refused_with_request_item_task_expected_and_found(self):
        task = self.model.task_names[-1]
        name = "tower.%s.%d.bias" % (task, len(self.model.tasks[-1].get("tower", [])))

        def change(tensor):
            tensor += 1.0

        folder = self.with_tensor(2, name, change)
        changed = Model(folder)
        line = compare.read_lines(os.path.join(folder, "verify.jsonl"))[0]
        item = line["request"]["item_ids"][0]
        found = changed.evaluate(line["request"], {})["items"][0]["logits"][task]
        for backend, precision in BACKENDS:
            with self.subTest(backend=backend, precision=precision):
                message = self.must_fail(*self.score(folder, backend, precision),
                                         says=["verify.jsonl", "v0", item, task, "expected", "found"])
                said = re.search(r"expected (\S+), found (\S+)", message)
                self.assertAlmostEqual(float(said[1]), line["logits"][item][task], delta=1e-6)
                self.assertAlmostEqual(float(said[2]), found, delta=1e-4 if precision == "f32" else 5e-2)

    def test_a_change_in_any_sort_of_tensor_is_refused(self):
        version = 10
        for suffix in ("expert.0.weight", "norm.running_mean", "norm.running_var", "gate.bias", "self_gate.bias",
                       "feature_gate.up", "feature_gate.mix.bias"):
            name = next(name for name in self.model.tensors if name.endswith(suffix))
            with self.subTest(name):

                def change(tensor):
                    flat = tensor.reshape(-1)
                    flat[len(flat) // 2] += 1.0

                version += 1
                self.must_fail(*self.score(self.with_tensor(version, name, change)), says=["verify.jsonl"])

    def with_config(self, version, change):
        """A copy of the model with its config.json changed."""
        folder = self.copy(version)
        path = os.path.join(folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        change(config)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return folder

    def test_another_rule_for_a_hash_a_bucket_or_a_number_is_refused(self):

        def first(config, kind):
            return next(f for f in config["features"] if f["kind"] == kind)

        def index(config):
            for table in config["tables"].values():
                table["index"] = {"hash": "direct", "direct": "hash"}[table["index"]]

        def bucket(config):
            feature = first(config, "bucket")
            feature["boundaries"] = [b + 0.75 for b in feature["boundaries"]]

        def number(config):
            feature = first(config, "number")
            feature["mean"] = feature.get("mean", 0.0) + 0.5

        def norm_eps(config):
            config["network"]["norm_eps"] = 0.1

        def activation(config):
            config["network"]["activation"] = "relu"

        for i, change in enumerate((index, bucket, number, norm_eps, activation)):
            with self.subTest(change.__name__):
                self.must_fail(*self.score(self.with_config(30 + i, change)), says=["verify.jsonl"])

    def test_a_server_keeps_the_older_version_and_logs_the_reason(self):
        task = self.model.task_names[0]
        name = "tower.%s.%d.bias" % (task, len(self.model.tasks[0].get("tower", [])))

        def change(tensor):
            tensor -= 2.0

        self.with_tensor(2, name, change)
        server = self.start_server("--models", self.root, "--store", "none:")
        line = server.wait_for_log("verify.jsonl", task, "expected", "found")
        self.assertIn("v0", line)
        with server.connect() as client:
            self.assertEqual(client.rank("u", ["1"]).model, "home2@1")
            self.assert_rank_error("NOT_FOUND", "2", lambda: client.rank("u", ["1"], model="home2@2"))
        self.assertEqual(server.terminate(), 0)

    def test_a_verify_file_that_says_nonsense_is_refused(self):
        def unknown_task(lines):
            lines[0]["logits"]["0"]["buy"] = 0.0

        def unknown_item(lines):
            lines[0]["logits"]["nobody"] = {}

        def wrong_kind(lines):
            lines[1]["logits"]["0"][self.model.task_names[0]] = "1"

        def no_logits(lines):
            del lines[0]["logits"]

        def bad_request(lines):
            lines[0]["request"]["item_ids"] = []

        def surplus(lines):
            lines[0]["colour"] = "red"

        for i, change in enumerate((unknown_task, unknown_item, wrong_kind, no_logits, bad_request, surplus,
                                    lambda lines: "not json\n", lambda lines: "[" * 100000)):
            with self.subTest(change.__name__):
                self.must_fail(*self.score(self.with_verify(20 + i, change)), says=["verify.jsonl"])


if __name__ == "__main__":
    harness.main()
