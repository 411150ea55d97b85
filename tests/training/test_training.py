"""What training computes is what MODEL.md says: every kind of network, its encoder and its exporter against the
independent float64 evaluation. Skipped where PyTorch is not installed (tools/setup.sh --bench)."""

import json
import os
import sys
import tempfile
import unittest

import numpy as np

try:
    import torch
    import tqdm  # noqa: F401
    import xxhash  # noqa: F401
except ImportError as missing:
    raise unittest.SkipTest(f"training needs {missing.name} (tools/setup.sh --bench)")

sys.path.insert(0, os.getcwd())

import homerank_eval  # noqa: E402
from training import DataError, builders, export, metrics, trainer  # noqa: E402
from training.encoder import Encoder  # noqa: E402
from training.network import Network  # noqa: E402

GROUPS = {"watch": ["click", "long_view"], "interaction": ["like", "forward"]}
TABLES = {"user": {"rows": 6, "dim": 4, "index": "direct"}, "video": {"rows": 64, "dim": 5, "index": "hash"},
          "age": {"rows": 5, "dim": 3, "index": "direct"}}
FEATURES = [{"name": "user_id", "entity": "user", "kind": "id", "table": "user"},
            {"name": "history", "entity": "user", "kind": "ids", "table": "video", "max_length": 4},
            {"name": "liked", "entity": "user", "kind": "ids", "table": "video", "pool": "sum"},
            {"name": "price", "entity": "item", "kind": "number", "log1p": True, "mean": 0.5, "std": 2.0},
            {"name": "age", "entity": "item", "kind": "bucket", "table": "age", "boundaries": [1, 3, 7]},
            {"name": "vision", "entity": "item", "kind": "numbers", "length": 2},
            {"name": "hour", "entity": "context", "kind": "number"}]
WIDTH = 4 + 5 + 5 + 1 + 3 + 2 + 1
USERS = {"1": {"history": ["a", "b", "c", "d", "e"], "liked": ["a", 7]}, "3": {"history": []}}
ITEMS = {"x": {"price": 3, "age": 3, "vision": [0.5, -1]}, "y": {"price": "1.5e1", "age": 0.5},
         "z": {"price": -2, "age": 100, "vision": [1, 2]}}


def finite_single(values):
    """As float32: 0 where one is beyond it."""
    with np.errstate(over="ignore"):
        return values if np.isfinite(values.astype(np.float32)).all() else np.zeros_like(values)


def make_config(kind):
    return {"format": "homerank/1", "tables": TABLES, "features": FEATURES,
            "network": builders.KINDS[kind](GROUPS, WIDTH),
            "fusion": {"kind": "weighted_sum", "weights": {"click": 1.0}}}


def make_model(config):
    """Random weights, and batch statistics as training would leave them."""
    torch.manual_seed(1)
    model = Network(config)
    for table in model.embedding.values():
        torch.nn.init.normal_(table.weight)
    for name, tensor in model.tensors().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3)
        elif name.endswith("running_var"):
            tensor.uniform_(0.3, 2)
        elif "norm" in name:
            tensor.uniform_(0.5, 1.5)
    return model


# Every kind of value that a record may hold, good and bad.
VALUES = [None, "", "0", "5", "05", "4294967296", "9" * 40, "a", "é", 0, 5, 7, -1, 10**400, 7.0, -0.0, 2.5, 1e300, 1e39,
          -3, 1, 3, 0.999, "3", "-3", "1.5e1", "1e400", "1.", ".5", "+1", "0x1", " 1", True, False, {}, {"a": 1}, [], [1],
          [1, 2], ["1", "2.5"], [1.5, 2.5], [1, None], [None, "x", 7], [1e39, 1.0], [1.5, 7.0, -0.0], ["a", ""],
          list(range(60))]


def inline_requests():
    return [{"request_id": "r", "user_id": user, "item_ids": list(ITEMS), "context": {"hour": 5},
             "user_features": features, "item_features": list(ITEMS.values())} for user, features in USERS.items()]


class Training(unittest.TestCase):
    def test_every_kind_exports_what_the_evaluation_computes(self):
        for kind in builders.KINDS:
            config = make_config(kind)
            with self.subTest(kind), tempfile.TemporaryDirectory() as folder:
                export.export(make_model(config), config, Encoder(config), inline_requests(), folder)
                judge = homerank_eval.Model(folder)
                with open(os.path.join(folder, "verify.jsonl"), encoding="utf-8") as lines:
                    for line in map(json.loads, lines):
                        found = judge.evaluate(line["request"], {})["items"]
                        for item in found:
                            want = line["logits"][item["item_id"]]
                            self.assertEqual(list(item["logits"]), list(want))
                            np.testing.assert_allclose(list(item["logits"].values()), list(want.values()), rtol=1e-5,
                                                       atol=1e-5)

    def test_the_encoder_reads_every_value_as_serving_does(self):
        judge = homerank_eval.Encoder(TABLES, FEATURES)
        for feature in FEATURES:
            config = {"tables": TABLES, "features": [feature]}
            for value in VALUES:
                with self.subTest(feature=feature["name"], value=str(value)[:40]):
                    record = {feature["name"]: value}
                    (column,) = Encoder(config).columns(feature["entity"], None, [record]).values()
                    want = np.asarray(judge.value(feature, record, {}, None), np.float64).reshape(-1)
                    found = column[0][column[0] >= 0] if feature["kind"] == "ids" else column[0]
                    np.testing.assert_allclose(np.asarray(found, np.float64).reshape(-1), finite_single(want), rtol=1e-6)

    def test_ids_without_a_record_are_rows_of_an_empty_one(self):
        columns = trainer.Columns(Encoder(make_config("home")), USERS, ITEMS)
        known, stranger, again = columns.rows("user", ["1", "2", "2"])
        gathered = columns.gather(torch.stack([known, stranger, again]), columns.rows("item", ["x", "x", "new"]), {})
        self.assertEqual(gathered["user_id"].tolist(), [2, 3, 3])
        self.assertEqual((gathered["history"] >= 0).sum(1).tolist(), [4, 0, 0])
        self.assertEqual(gathered["age"].tolist()[1:], [3, 0])
        self.assertEqual(gathered["vision"].tolist()[2], [0, 0])

    def test_what_is_not_finite_is_not_exported(self):
        config = make_config("home")
        for name in ("tower.like.0.weight", "meta.shared.expert.0.norm.running_var"):
            for value in (float("nan"), float("inf")):
                model = make_model(config)
                model.tensors()[name].view(-1)[0] = value
                with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(DataError, name):
                    export.export(model, config, Encoder(config), inline_requests(), os.path.join(folder, "1"))

    def test_a_tensor_of_another_shape_is_not_loaded(self):
        """Also where it could be spread over the right one."""
        config = make_config("home")
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config)
            export.export(model, config, Encoder(config), [], folder)
            tensors = {**model.tensors(), "tower.like.0.bias": torch.zeros(1)}
            export.write_whole(export.Path(folder) / "model.safetensors", export.safetensors(tensors))
            with self.assertRaisesRegex(DataError, r"tower.like.0.bias: expected shape \[32\], found \[1\]"):
                export.load(Network, folder)

    def test_an_exported_model_loads_as_it_was(self):
        config = make_config("home")
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config)
            export.export(model, config, Encoder(config), [], folder)
            loaded, _ = export.load(Network, folder)
            for name, tensor in model.tensors().items():
                self.assertTrue(torch.equal(tensor, loaded.tensors()[name]), name)

    def test_a_home_without_a_part_is_home_but_for_that_part(self):
        names = {kind: set(Network(make_config(kind)).tensors()) for kind in builders.KINDS}
        self.assertTrue(any("feature_gate" in n for n in names["home"] - names["home-no-feature-gate"]))
        self.assertTrue(all("self_gate" in n for n in names["home"] - names["home-no-self-gate"]))
        self.assertTrue(all(".norm." in n for n in names["home"] - names["home-relu-nonorm"]))
        self.assertEqual(names["home"], names["home-flat"])


class Metrics(unittest.TestCase):
    def test_auc_counts_pairs_and_halves_ties(self):
        rng = np.random.default_rng(1)
        labels, scores = rng.random(200) < 0.3, rng.integers(20, size=200)
        above = scores[labels][:, None] - scores[~labels][None, :]
        pairs = (above > 0).mean() + 0.5 * (above == 0).mean()
        self.assertAlmostEqual(metrics.auc(labels, scores), pairs, places=12)
        self.assertTrue(np.isnan(metrics.auc(np.ones(3), np.arange(3))))
        self.assertTrue(np.isnan(metrics.auc(np.array([0, 1, 1]), np.array([0, 1, np.nan]))))

    def test_gauc_weighs_users_of_both_classes_by_their_impressions(self):
        labels, scores, users = np.array([1, 0, 1, 1, 0, 0, 1]), np.array([2, 1, 5, 1, 2, 3, 4]), np.array([1, 1, 2, 3, 3, 3, 3])
        self.assertAlmostEqual(metrics.gauc(labels, scores, users), (2 * 1.0 + 4 * 0.5) / 6)


if __name__ == "__main__":
    unittest.main()
