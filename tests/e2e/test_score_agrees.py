"""`homerank score` agrees with the float64 evaluation of MODEL.md, for random models of every kind.

HOMERANK_SEEDS=100..120 takes other seeds, HOMERANK_SCORE_REPORT=1 prints how near each came.
"""

import os

import harness

import compare
import random_models
from homerank_eval import Model, read_store

SEEDS = range(3)
PRECISIONS = {"reference": ("f32",), "onednn": ("f32", "bf16")}


def seeds():
    text = os.environ.get("HOMERANK_SEEDS")
    if not text:
        return SEEDS
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


class ScoreAgrees(harness.Case):

    def check_kind(self, kind):
        for seed in seeds():
            out = self.path(str(seed))
            paths = random_models.generate(out, kind, seed, verify=True)
            model, store = Model(paths["model"]), read_store(paths["records"])
            uri = "lmdb:" + os.path.join(out, "store.lmdb")
            self.must_run("features", "load", "--store", uri, "--in", paths["records"])
            # Stored records, then the same requests with nothing stored.
            for records, where in ((store, uri), ({}, "none:")):
                self.check(model, records, where, paths, "%s seed %d" % (kind, seed))

    def check(self, model, store, uri, paths, name):
        requests = compare.read_lines(paths["requests"])
        expected = {precision: [compare.Expected(model, request, store, precision) for request in requests]
                    for precision in ("f32", "bf16")}
        for backend, precisions in PRECISIONS.items():
            for precision in precisions:
                with self.subTest(model=name, store=uri.partition(":")[0], backend=backend, precision=precision):
                    self.must_run("score", "--model", paths["model"], "--store", uri, "--in", paths["requests"],
                                  "--out", self.path("answers"), "--backend", backend, "--precision", precision)
                    answers = compare.read_lines(self.path("answers"))
                    self.assertEqual(len(answers), len(requests))
                    worst = max(e.check(answer) for e, answer in zip(expected[precision], answers))
                    if os.environ.get("HOMERANK_SCORE_REPORT"):
                        print("%s, %s, %s %s: %.3g of the bound" % (name, uri[:4], backend, precision, worst))

    def test_home_with_one_expert_layer(self):
        self.check_kind("home1")

    def test_home_with_two_expert_layers(self):
        self.check_kind("home2")

    def test_home_with_three_expert_layers(self):
        self.check_kind("home3")

    def test_mmoe(self):
        self.check_kind("mmoe")

    def test_cgc(self):
        self.check_kind("cgc")

    def test_ple(self):
        self.check_kind("ple")

    def test_shared_bottom(self):
        self.check_kind("shared_bottom")

    def test_networks_that_no_paper_draws(self):
        self.check_kind("odd")

    def test_an_output_that_overflows_is_null_and_ranks_last(self):
        config, rng = random_models.make_config("shared_bottom", 7)
        for task in config["network"]["tasks"]:
            task["output"] = "exp"
        config["fusion"] = {"kind": "weighted_sum",
                            "weights": {task["name"]: 1.0 for task in config["network"]["tasks"]}}
        requests = random_models.make_requests(rng, config, 1)
        requests[0].pop("tasks", None)
        requests[0].pop("top_k", None)
        tensors = random_models.make_tensors(rng, random_models.expected_shapes(config))
        random_models.calibrate(config, tensors, requests, {})
        first = config["network"]["tasks"][0]
        end = "tower.%s.%d." % (first["name"], len(first.get("tower", [])))
        # Logits some thousands wide: half of them overflow, in float32 as in float64, and few are near the brink.
        tensors[end + "weight"] = tensors[end + "weight"] * 4096
        folder = self.path("models", "overflow", "1")
        random_models.write_model(folder, config, tensors, rng)
        model = Model(folder)
        random_models.write_lines(self.path("in"), requests)
        self.must_run("score", "--model", folder, "--store", "none:", "--in", self.path("in"), "--out",
                      self.path("out"))
        (answer,) = compare.read_lines(self.path("out"))
        logits = model.forward(model.vectors(requests[0], {}))[:, 0]
        n_null = sum(row["score"] is None for row in answer["items"])
        self.assertGreater(n_null, 0)
        self.assertEqual(n_null, (logits > 88.73).sum())
        self.assertEqual([row["score"] is None for row in answer["items"]],
                         [False] * (len(logits) - n_null) + [True] * n_null)
        # Those without a score stand in the request's order.
        wanted = [item for item, logit in zip(requests[0]["item_ids"], logits) if logit > 88.73]
        self.assertEqual([row["item_id"] for row in answer["items"] if row["score"] is None], wanted)
        for row in answer["items"]:
            self.assertEqual(row["score"] is None, row["tasks"][first["name"]] is None)
        server = self.start_server("--models", self.path("models"), "--store", "none:")
        with server.connect() as client:
            served = client.rank_request(harness.request_of_json(requests[0]))
        self.assertEqual([row.item_id for row in served], [row["item_id"] for row in answer["items"]])
        self.assertEqual(len(served.warnings), 1)
        self.assertIn("finite", served.warnings[0])


if __name__ == "__main__":
    harness.main()
