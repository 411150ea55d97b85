"""The Python client's values: what a Python value becomes on the wire, by the rules of the JSON form."""

import unittest

import numpy as np

from harness import homerank, main, make_request, pb


class Values(unittest.TestCase):

    def check(self, value, **kind):
        self.assertEqual(homerank.feature_value(value), pb.FeatureValue(**kind), repr(value))

    def test_texts_and_integers_are_ids(self):
        self.check("a", id="a")
        self.check("", id="")
        self.check(7, id="7")
        self.check(2**70, id=str(2**70))
        self.check(np.int64(-3), id="-3")

    def test_other_numbers_are_numbers(self):
        self.check(7.0, number=7.0)
        self.check(np.float32(0.5), number=0.5)
        self.assertTrue(np.isnan(homerank.feature_value(float("nan")).number))

    def test_lists_with_a_text_or_of_integers_only_are_ids(self):
        self.check([1, 2], ids=pb.IdList(values=["1", "2"]))
        self.check(("a", 1, None, 2.0, 0.25), ids=pb.IdList(values=["a", "1", "", "2", "0.25"]))
        self.check(np.arange(2), ids=pb.IdList(values=["0", "1"]))
        self.check([7, None], ids=pb.IdList(values=["7", ""]))
        self.check([None], ids=pb.IdList(values=[""]))
        self.check([], ids=pb.IdList())
        self.assertEqual(homerank.feature_value([]).WhichOneof("kind"), "ids")

    def test_other_lists_are_numbers(self):
        self.check([1, 2.5], numbers=pb.NumberList(values=[1.0, 2.5]))
        self.check(np.array([1.5, 2.0]), numbers=pb.NumberList(values=[1.5, 2.0]))
        self.assertTrue(np.isnan(homerank.feature_value([None, 1.5]).numbers.values[0]))

    def test_none_is_a_value_without_a_kind(self):
        self.assertIsNone(homerank.feature_value(None).WhichOneof("kind"))
        self.assertIn("color", homerank.feature_map({"color": None}).features)

    def test_anything_else_is_refused_by_name(self):
        for value in (True, np.bool_(True), [True], [1.5, False], {"a": 1}, b"x", [["a"], "b"], object()):
            with self.subTest(repr(value)), self.assertRaisesRegex(TypeError, "feature 'color'"):
                homerank.feature_map({"color": value})

    def test_a_request_carries_every_field(self):
        request = make_request("u", [1, "b"], context={"tab": 1}, user_features={"age": 3.5},
                               item_features=[None, {"x": "y"}], top_k=2, model="home@1", tasks=["click"],
                               request_id="r", attributes={"a": 1}, forced_variations={"e": 1}, priority=1,
                               strict_features=True)
        unset = [field.name for field in request.DESCRIPTOR.fields if not getattr(request, field.name)]
        self.assertEqual(unset, [])
        self.assertEqual(list(request.item_ids), ["1", "b"])
        self.assertEqual(len(request.item_features), 2)


if __name__ == "__main__":
    main()
