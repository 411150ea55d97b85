"""The judge itself is judged: published hash vectors, the trained fixture, and answers it must refuse."""

import copy
import json
import os
import sys
import tempfile
import unittest

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import compare  # noqa: E402
import random_models  # noqa: E402
from homerank_eval import Encoder, Model, WrongKind, feature_value, read_store, xxh64  # noqa: E402


def exact_answer(model, request, store):
    """What a service without any rounding would answer."""
    result = model.evaluate(request, store)
    wanted = request.get("tasks") or model.task_names
    rows = [result["items"][i] for i in result["order"]][:request.get("top_k", 0) or None]
    return {"request_id": request["request_id"],
            "items": [{"item_id": row["item_id"], "score": row["score"] if np.isfinite(row["score"]) else None,
                       "tasks": {name: row["tasks"][name] for name in wanted}} for row in rows]}


class Hash(unittest.TestCase):

    def test_xxh64_gives_the_published_values(self):
        # The self-test vectors of the xxHash distribution.
        generator, buffer = 2654435761, bytearray()
        for _ in range(222):
            buffer.append(generator >> 56)
            generator = generator * 11400714785074694797 & (1 << 64) - 1
        expected = {(0, 0): 0xEF46DB3751D8E999, (0, 2654435761): 0xAC75FDA2929B17EF,
                    (1, 0): 0xE934A84ADB052768, (1, 2654435761): 0x5014607643A9B4C3,
                    (4, 0): 0x9136A0DCA57457EE, (4, 2654435761): 0xCAAB286BD8E9FDB5,
                    (14, 0): 0x8282DCC4994E35C8, (14, 2654435761): 0xC3BD6BF63DEB6DF0,
                    (222, 0): 0xB641AE8CB691C174, (222, 2654435761): 0x20CB8AB7AE10C14A}
        for (length, seed), value in expected.items():
            self.assertEqual(xxh64(bytes(buffer[:length]), seed), value)


class Nulls(unittest.TestCase):
    """MODEL 3: a null is missing. DESIGN 5: in a list it is an empty text or a NaN, and nothing is lost."""

    tables = {"direct": {"rows": 102, "dim": 2, "index": "direct"}}

    def read(self, kind, value, **feature):
        """As stored and as inline: neither refused nor counted, and alike."""
        encoder = Encoder(self.tables, [])
        feature.update(name="f", entity="item", kind=kind)
        inline = encoder.value(feature, {}, {"f": value}, "5")
        self.assertEqual(encoder.value(feature, {"f": value}, {}, "5"), inline)
        self.assertEqual(encoder.n_invalid, 0)
        return inline

    def test_in_a_list_of_ids_it_is_row_0(self):
        for value in ([7, None, 2], ["7", None, "2"], ["7", None, 2], [7.0, None, 2]):
            self.assertEqual(self.read("ids", value, table="direct"), [8, 0, 3])
        self.assertEqual(self.read("ids", [None], table="direct"), [0])

    def test_beside_integers_it_leaves_them_exact(self):
        self.assertEqual(feature_value([2**53 + 1, None]), ("ids", ["9007199254740993", ""]))

    def test_in_a_list_of_numbers_it_makes_all_zeros(self):
        for value in ([1, None, 3], ["1", None, "3"], [0.5, None, 3], [None, None, None]):
            self.assertEqual(self.read("numbers", value, length=3), [0.0, 0.0, 0.0])

    def test_an_empty_text_alone_is_no_number(self):
        encoder = Encoder(self.tables, [])
        feature = {"name": "f", "entity": "item", "kind": "numbers", "length": 1}
        with self.assertRaises(WrongKind):
            encoder.value(feature, {}, {"f": ""}, "5")


class Fixture(unittest.TestCase):

    def test_the_trained_model_gives_its_published_logits(self):
        shared = os.environ.get("HOMERANK_SHARED")
        if not shared:
            self.skipTest("HOMERANK_SHARED is not set")
        folder = os.path.join(shared, "models", "kuairand")
        model, store = Model(os.path.join(folder, "1")), read_store(os.path.join(folder, "features.jsonl.gz"))
        requests = compare.read_lines(os.path.join(folder, "requests.jsonl"))
        expected = compare.read_lines(os.path.join(folder, "expected.jsonl"))
        self.assertEqual(len(requests), len(expected))
        for request, answer in zip(requests, expected):
            result = model.evaluate(request, store)
            rows = [result["items"][i] for i in result["order"]]
            self.assertEqual([row["item_id"] for row in rows], [item["item_id"] for item in answer["items"]])
            for row, item in zip(rows, answer["items"]):
                np.testing.assert_allclose(list(row["logits"].values()), item["logits"], rtol=0, atol=1e-9)
                self.assertAlmostEqual(row["score"], item["score"], delta=1e-9)


class Comparison(unittest.TestCase):

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        paths = random_models.generate(self.folder.name, "home2", 5)
        self.model, self.store = Model(paths["model"]), read_store(paths["records"])
        self.request = compare.read_lines(paths["requests"])[0]
        self.request.pop("tasks", None)
        self.request.pop("top_k", None)
        self.expected = compare.Expected(self.model, self.request, self.store, "f32")
        self.answer = exact_answer(self.model, self.request, self.store)

    def refuse(self, change):
        answer = copy.deepcopy(self.answer)
        change(answer["items"])
        with self.assertRaises(compare.Mismatch):
            self.expected.check(answer)

    def test_the_exact_answer_passes(self):
        self.assertEqual(self.expected.check(self.answer), 0.0)

    def test_an_output_off_by_a_thousandth_is_refused(self):
        task = self.model.task_names[0]

        def change(items):
            items[3]["tasks"][task] *= 1.001

        self.refuse(change)

    def test_a_wrong_order_is_refused(self):
        self.refuse(lambda items: items.reverse())

    def test_a_missing_item_is_refused(self):
        self.refuse(lambda items: items.pop())

    def test_an_item_in_the_place_of_another_is_refused(self):

        def change(items):
            items[0]["item_id"], items[-1]["item_id"] = items[-1]["item_id"], items[0]["item_id"]

        self.refuse(change)

    def test_a_null_for_a_finite_score_is_refused(self):

        def change(items):
            items[-1]["score"] = None

        self.refuse(change)


class Generator(unittest.TestCase):

    def test_a_seed_gives_the_same_files(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            a, b = (random_models.generate(out, "odd", 3, verify=True) for out in (one, two))
            for name in ("config.json", "model.safetensors", "verify.jsonl"):
                with open(os.path.join(a["model"], name), "rb") as x, open(os.path.join(b["model"], name), "rb") as y:
                    self.assertEqual(x.read(), y.read())

    def test_every_kind_is_evaluated_to_finite_and_varied_logits(self):
        for kind in random_models.KINDS:
            with tempfile.TemporaryDirectory() as out:
                paths = random_models.generate(out, kind, 1)
                model, store = Model(paths["model"]), read_store(paths["records"])
                request = compare.read_lines(paths["requests"])[0]
                logits = model.forward(model.vectors(request, store))
                self.assertTrue(np.isfinite(logits).all())
                self.assertGreater(logits.std(axis=0).max(), 0.01, json.dumps(model.config["description"]))


if __name__ == "__main__":
    unittest.main()
