"""Models that must not load: each gets one clear line that names the thing, and a server keeps what it has."""

import copy
import json
import os
import shutil
import struct

import numpy as np

import harness

import random_models
from homerank_eval import read_safetensors

CONFIG = {
    "format": "homerank/1",
    "tables": {"user": {"rows": 50, "dim": 4, "index": "hash"}, "video": {"rows": 50, "dim": 4, "index": "direct"},
               "age": {"rows": 5, "dim": 2, "index": "direct"}},
    "features": [
        {"name": "user_id", "entity": "user", "kind": "id", "table": "user"},
        {"name": "video", "field": "item_id", "entity": "item", "kind": "id", "table": "video"},
        {"name": "days", "entity": "item", "kind": "bucket", "boundaries": [1, 3, 7], "table": "age"},
        {"name": "length", "entity": "item", "kind": "number", "log1p": True, "mean": 1.0, "std": 2.0},
        {"name": "vision", "entity": "item", "kind": "numbers", "length": 3}],
    "network": {
        "layers": [
            {"name": "meta", "units": [
                {"name": "shared", "input": ["features"], "experts": 2, "hidden": [8, 6],
                 "feature_gate": {"loras": 2, "rank": 3}, "mix": ["shared", "watch"], "self_gate": True},
                {"name": "watch", "input": ["features"], "experts": 1, "hidden": [6], "mix": ["shared", "watch"]}]},
            {"name": "task", "units": [
                {"name": "shared", "input": ["meta.shared"], "experts": 1, "hidden": [5]},
                {"name": "click", "input": ["meta.watch"], "experts": 1, "hidden": [5],
                 "gate_input": ["meta.watch", "meta.shared"], "mix": ["shared", "click"], "self_gate": True}]}],
        "tasks": [{"name": "click", "input": "task.click", "tower": [4], "output": "sigmoid"}]},
    "fusion": {"kind": "weighted_sum", "weights": {"click": 1.0}},
}

DELETE = object()


def units(config, layer):
    return {unit["name"]: unit for unit in config["network"]["layers"][layer]["units"]}


def assign(*path_and_value):
    """A change that sets (or deletes) the value at a path of keys and indices."""
    *path, last, value = path_and_value

    def change(config):
        place = config
        for key in path:
            place = place[key]
        if value is DELETE:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value

    return change


def on_unit(layer, unit_name, /, **values):

    def change(config):
        unit = units(config, layer)[unit_name]
        for key, value in values.items():
            if value is DELETE:
                del unit[key]
            else:
                unit[key] = value

    return change


# What is wrong, how to make it so, and words that the error must say.
BAD_CONFIGS = [
    ("an unknown key at the top", assign("colour", "red"), ["colour"]),
    ("an unknown key of the network", assign("network", "dropout", 0.1), ["dropout"]),
    ("an unknown key of a layer", assign("network", "layers", 0, "bias", True), ["bias"]),
    ("an unknown key of a unit", on_unit(0, "watch", expert=2), ["watch", "expert"]),
    ("an unknown key of a feature gate", on_unit(0, "shared", feature_gate={"loras": 2, "rank": 3, "r": 1}), ["r"]),
    ("an unknown key of a task", assign("network", "tasks", 0, "loss", "bce"), ["loss"]),
    ("an unknown key of a table", assign("tables", "user", "size", 3), ["user", "size"]),
    ("an unknown key of a feature", assign("features", 0, "weight", 3), ["user_id", "weight"]),
    ("a key of another kind of feature", assign("features", 0, "length", 3), ["user_id", "length"]),
    ("an unknown key of the fusion", assign("fusion", "scale", 3), ["scale"]),
    ("another format", assign("format", "homerank/2"), ["format", "homerank/1", "homerank/2"]),
    ("no network", assign("network", DELETE), ["network"]),
    ("no layers", assign("network", "layers", []), ["layers"]),
    ("an unknown activation", assign("network", "activation", "gelu"), ["activation", "gelu"]),
    ("an unknown norm", assign("network", "norm", "group"), ["norm", "group"]),
    ("a norm_eps that is not positive", assign("network", "norm_eps", -1.0), ["norm_eps"]),
    ("an unknown output", assign("network", "tasks", 0, "output", "probit"), ["output", "probit"]),
    ("an unknown unit in a mix", on_unit(0, "watch", mix=["shared", "nobody"]), ["watch", "nobody"]),
    ("an empty mix", on_unit(0, "watch", mix=[]), ["watch", "mix"]),
    ("a repeating mix", on_unit(0, "watch", mix=["shared", "shared"]), ["watch", "shared"]),
    ("a mix without experts", on_unit(1, "shared", experts=0, hidden=[], mix=["shared"]), ["shared"]),
    ("a self gate without a mix", on_unit(1, "shared", self_gate=True), ["shared", "self_gate"]),
    ("a self gate without experts", on_unit(0, "watch", experts=0, hidden=[], self_gate=True), ["watch", "self_gate"]),
    ("a feature gate without experts",
     on_unit(0, "watch", experts=0, hidden=[], feature_gate={"loras": 1, "rank": 2}), ["watch", "feature_gate"]),
    ("experts without widths", on_unit(0, "watch", hidden=[]), ["watch", "hidden"]),
    ("widths without experts", on_unit(0, "watch", experts=0), ["watch", "hidden"]),
    ("an input that does not exist", on_unit(1, "shared", input=["meta.nobody"]), ["shared", "meta.nobody"]),
    ("an input from a layer that does not exist", on_unit(1, "shared", input=["beta.shared"]), ["beta.shared"]),
    ("an input from the same layer", on_unit(1, "shared", input=["task.click"]), ["shared", "task.click"]),
    ("an input from a later layer", on_unit(0, "watch", input=["task.click"]), ["watch", "task.click"]),
    ("an input without an output", on_unit(1, "click", input=["task.shared"]), ["click", "task.shared"]),
    ("a gate input from a later layer", on_unit(0, "watch", gate_input=["task.click"]), ["watch", "task.click"]),
    ("no input", on_unit(0, "watch", input=[]), ["watch", "input"]),
    ("experts of unequal width in one mix", on_unit(0, "watch", hidden=[7]), ["6", "7"]),
    ("a task of a unit without output", assign("network", "tasks", 0, "input", "task.shared"),
     ["click", "task.shared"]),
    ("a task of the features", assign("network", "tasks", 0, "input", "features"), ["click", "features"]),
    ("two units of one name", on_unit(0, "watch", name="shared"), ["shared"]),
    ("two layers of one name", assign("network", "layers", 1, "name", "meta"), ["meta"]),
    ("a layer called tower", assign("network", "layers", 1, "name", "tower"), ["tower"]),
    ("a name with a dot", on_unit(1, "shared", name="sha.red"), ["sha.red"]),
    ("a width of zero", on_unit(0, "watch", hidden=[0]), ["watch", "hidden"]),
    ("a width that is no integer", on_unit(0, "watch", hidden=[6.5]), ["watch", "hidden"]),
    ("a width beyond all memory", on_unit(0, "watch", hidden=[2**40]), ["watch", "hidden"]),
    ("experts that are negative", on_unit(0, "watch", experts=-1), ["watch", "experts"]),
    ("a table of one row", assign("tables", "user", "rows", 1), ["user", "rows"]),
    ("a table of too many rows", assign("tables", "user", "rows", 2**40), ["user", "rows"]),
    ("a table of no width", assign("tables", "user", "dim", 0), ["user", "dim"]),
    ("an unknown index", assign("tables", "user", "index", "sorted"), ["user", "sorted"]),
    ("a table too small for its buckets", assign("tables", "age", "rows", 4), ["days"]),
    ("boundaries that fall", assign("features", 2, "boundaries", [1, 7, 3]), ["days", "boundaries"]),
    ("an unknown table", assign("features", 0, "table", "nobody"), ["user_id", "nobody"]),
    ("an unknown kind", assign("features", 0, "kind", "text"), ["user_id", "text"]),
    ("an unknown entity", assign("features", 0, "entity", "shop"), ["user_id", "shop"]),
    ("a std of zero", assign("features", 3, "std", 0), ["length", "std"]),
    ("a length of zero", assign("features", 4, "length", 0), ["vision", "length"]),
    ("two features of one name", assign("features", 1, "name", "user_id"), ["user_id"]),
    ("an unknown fusion", assign("fusion", "kind", "product"), ["fusion", "product"]),
    ("a fusion of an unknown task", assign("fusion", "weights", "buy", 1.0), ["buy"]),
    ("an offset below zero", assign("fusion", {"kind": "power_product", "terms": {"click": {"offset": -0.1}}}),
     ["click", "offset"]),
    ("a number as a list", assign("features", []), ["features"]),
    ("a string as a number", on_unit(0, "watch", experts="2"), ["watch", "experts"]),
]


class BadModels(harness.Case):

    def setUp(self):
        super().setUp()
        self.tensors = random_models.make_tensors(np.random.default_rng(1), random_models.expected_shapes(CONFIG))
        random_models.write_lines(self.path("requests"), [{"user_id": "u", "item_ids": ["1", "2"]}])

    def write(self, folder, config=None, tensors=None, dtypes=None):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(CONFIG if config is None else config, file)
        random_models.write_safetensors(os.path.join(folder, "model.safetensors"), tensors or self.tensors, dtypes)
        return folder

    def score(self, folder):
        return ("score", "--model", folder, "--store", "none:", "--in", self.path("requests"), "--out",
                self.path("out"), "--backend", "reference")

    def check_refused(self, folder, words):
        return self.must_fail(*self.score(folder), says=words)

    def test_the_model_that_the_others_are_made_from_loads(self):
        self.must_run(*self.score(self.write(self.path("good"))))

    def test_a_bad_config_is_refused_with_the_name_of_what_is_wrong(self):
        for i, (what, change, words) in enumerate(BAD_CONFIGS):
            with self.subTest(what):
                config = copy.deepcopy(CONFIG)
                change(config)
                self.check_refused(self.write(self.path("bad%d" % i), config), words)

    def test_a_power_product_of_an_identity_output_is_refused(self):
        config = copy.deepcopy(CONFIG)
        config["network"]["tasks"][0]["output"] = "identity"
        config["fusion"] = {"kind": "power_product", "terms": {"click": {}}}
        self.check_refused(self.write(self.path("bad"), config), ["click", "identity"])

    def test_a_config_that_is_not_json_is_refused(self):
        for i, text in enumerate(("", "{", "[]", "{} {}", '{"format": "homerank/1", "format": "homerank/1"}', "\0",
                                  "[" * 100000, '{"format": NaN}')):
            with self.subTest(text[:20]):
                folder = self.write(self.path("bad%d" % i))
                with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
                    file.write(text)
                self.check_refused(folder, ["config.json"])

    def test_missing_files_are_named(self):
        folder = self.write(self.path("bad"))
        os.remove(os.path.join(folder, "model.safetensors"))
        self.check_refused(folder, ["model.safetensors"])
        os.remove(os.path.join(folder, "config.json"))
        self.check_refused(folder, ["config.json"])
        self.check_refused(self.path("nothing"), ["nothing"])

    def test_wrong_tensors_are_named_with_what_was_expected_and_found(self):
        name = "meta.watch.expert.0.weight"
        surplus = dict(self.tensors, **{"meta.watch.expert.1.weight": self.tensors[name]})
        missing = {key: value for key, value in self.tensors.items() if key != name}
        shape = dict(self.tensors, **{name: self.tensors[name][:, :, :-1]})
        rank = dict(self.tensors, **{name: self.tensors[name][0]})
        for what, tensors, words in (("missing", missing, [name]),
                                     ("surplus", surplus, ["meta.watch.expert.1.weight"]),
                                     ("shape", shape, [name, "[1, 6, 14]", "[1, 6, 13]"]),
                                     ("rank", rank, [name, "[1, 6, 14]", "[6, 14]"])):
            with self.subTest(what):
                self.check_refused(self.write(self.path(what), tensors=tensors), words)

    def test_weights_that_are_not_finite_are_refused(self):
        for i, (name, value, dtype) in enumerate((("meta.watch.expert.0.weight", np.nan, "F32"),
                                                  ("tower.click.0.bias", np.inf, "F32"),
                                                  ("embedding.video.weight", -np.inf, "BF16"),
                                                  ("meta.shared.gate.weight", np.nan, "F16"))):
            with self.subTest(name):
                tensors = dict(self.tensors, **{name: self.tensors[name].copy()})
                tensors[name].flat[-1] = value
                self.check_refused(self.write(self.path("bad%d" % i), tensors=tensors, dtypes={name: dtype}), [name])

    def test_a_negative_variance_is_refused(self):
        name = "meta.watch.expert.0.norm.running_var"
        tensors = dict(self.tensors, **{name: self.tensors[name] * -1.0})
        self.check_refused(self.write(self.path("bad"), tensors=tensors), [name])

    def rewrite(self, what, change):
        """A copy of the good model whose safetensors' header and data were changed."""
        folder = self.write(self.path(what.replace(" ", "_")))
        path = os.path.join(folder, "model.safetensors")
        with open(path, "rb") as file:
            raw = file.read()
        (n,) = struct.unpack("<Q", raw[:8])
        changed = change(json.loads(raw[8:8 + n]), raw[8 + n:])
        if not isinstance(changed, bytes):
            header, data = changed
            text = header if isinstance(header, bytes) else json.dumps(header).encode()
            changed = struct.pack("<Q", len(text)) + text + data
        with open(path, "wb") as file:
            file.write(changed)
        return folder

    def test_a_hostile_safetensors_file_is_refused(self):
        name = "tower.click.0.weight"

        def entry(**values):

            def change(header, data):
                header[name].update(values)
                return header, data

            return change

        def offsets(move):

            def change(header, data):
                header[name]["data_offsets"] = move(*header[name]["data_offsets"], len(data))
                return header, data

            return change

        def whole(header, data):
            text = json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + data

        cases = [
            ("overlapping", offsets(lambda b, e, n: [b - 4, e - 4] if b else [b + 4, e + 4]), ["tower.click"]),
            ("out of range", offsets(lambda b, e, n: [n - 4, n - 4 + e - b]), [name]),
            ("overflowing", offsets(lambda b, e, n: [2**64 - 4, 2**64 - 4 + e - b]), []),
            ("largest offsets", offsets(lambda b, e, n: [2**63 - 1 - (e - b), 2**63 - 1]), [name]),
            ("negative offsets", offsets(lambda b, e, n: [-4, e - b - 4]), [name]),
            ("backward offsets", offsets(lambda b, e, n: [e, b]), [name]),
            ("short offsets", offsets(lambda b, e, n: [b, e - 4]), [name]),
            ("an offset that is no integer", offsets(lambda b, e, n: [b + 0.5, e]), [name]),
            ("an unknown dtype", entry(dtype="I32"), [name, "I32"]),
            ("a wider dtype", entry(dtype="F64"), [name, "F64"]),
            ("a negative size", entry(shape=[-4, 5]), [name]),
            ("a product that overflows", entry(shape=[2**32, 2**32, 2**32]), [name]),
            ("an unknown key", entry(stride=1), [name, "stride"]),
            ("no shape", lambda h, d: ({**h, name: {"dtype": "F32", "data_offsets": [0, 4]}}, d), [name]),
            ("data behind the last tensor", lambda h, d: (h, d + b"xxxx"), []),
            ("truncated data", lambda h, d: (h, d[:-4]), []),
            ("truncated header", lambda h, d: whole(h, d)[:100], []),
            ("an empty file", lambda h, d: b"", []),
            ("seven bytes", lambda h, d: b"\x01" * 7, []),
            ("a header of 2 GB", lambda h, d: struct.pack("<Q", 2 << 30) + whole(h, d)[8:], []),
            ("a header of 2^64", lambda h, d: b"\xff" * 8 + whole(h, d)[8:], []),
            ("a header of nothing", lambda h, d: (b"", d), []),
            ("a header that is not JSON", lambda h, d: (b"{" + b"x" * 50, d), []),
            ("a header that is a list", lambda h, d: (b"[]", d), []),
            ("a deep header", lambda h, d: (b"[" * 200000, d), []),
            ("a tensor twice", lambda h, d: (json.dumps(h).encode()[:-1] + b', "%s": ' % name.encode() +
                                             json.dumps(h[name]).encode() + b"}", d), []),
        ]
        for what, change, words in cases:
            with self.subTest(what):
                self.check_refused(self.rewrite(what, change), ["model.safetensors"] + words)

    def test_metadata_and_padding_are_allowed(self):
        folder = self.rewrite("fine", lambda h, d:
                              (json.dumps(dict(h, __metadata__={"a": "b"})).encode() + b" " * 13, d))
        self.must_run(*self.score(folder))
        self.assertEqual(set(read_safetensors(os.path.join(folder, "model.safetensors"))), set(self.tensors))

    def test_a_server_serves_the_older_version_when_the_newest_is_bad_and_says_why(self):
        self.write(self.path("models", "home", "1"))
        missing = {key: value for key, value in self.tensors.items() if key != "tower.click.0.weight"}
        self.write(self.path("models", "home", "2"), tensors=missing)
        server = self.start_server("--models", self.path("models"), "--store", "none:")
        server.wait_for_log("tower.click.0.weight", "home")
        with server.connect() as client:
            self.assertEqual(client.rank("u", ["1"]).model, "home@1")
        self.assertEqual(server.terminate(), 0)

    def test_a_server_without_any_model_that_loads_does_not_start(self):
        serve = ("serve", "--store", "none:", "--listen", "127.0.0.1:0", "--models")
        os.makedirs(self.path("empty"))
        self.must_fail(*serve, self.path("empty"), says=["empty"])
        self.must_fail(*serve, self.path("nowhere"), says=["nowhere"])
        self.write(self.path("models", "home", "1"), config=dict(CONFIG, format="x"))
        self.must_fail(*serve, self.path("models"), says=["format"])

    def test_files_that_change_under_a_loaded_model_do_not_touch_it(self):
        folder = self.write(self.path("models", "home", "1"))
        server = self.start_server("--models", self.path("models"), "--store", "none:")
        with server.connect() as client:
            before = client.rank("u", ["1", "2", "3"]).rows
            os.truncate(os.path.join(folder, "model.safetensors"), 100)
            self.assertEqual(client.rank("u", ["1", "2", "3"]).rows, before)
            shutil.rmtree(folder)
            self.assertEqual(client.rank("u", ["1", "2", "3"]).rows, before)
        self.assertEqual(server.terminate(), 0)


if __name__ == "__main__":
    harness.main()
