"""`homerank inspect --data`: its figures are those of a NumPy computation of its own, its page needs nothing else."""

import html.parser
import json
import os
import re

import numpy as np

import harness

import compare
import random_models
from homerank_eval import Model, apply_output, read_store, sigmoid, softmax

ZERO = 1e-6


class Observed(Model):
    """The float64 evaluation, keeping what flows inside it."""

    def forward(self, v):
        self.hidden = []  # (B, out) of every hidden layer of every expert, in the network's order
        self.gates, self.self_gates = {}, {}  # layer.unit -> (B, weights)
        plain, self.activation = self.activation, self._record
        self._plain = plain
        try:
            return super().forward(v)
        finally:
            self.activation = plain

    def _record(self, h):
        self.hidden.append(self._plain(h))
        return self.hidden[-1]

    def _weights(self, name, g, squash):
        return squash(g @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"])

    def _mix(self, layer, unit, experts, g):
        name = layer["name"] + "." + unit["name"]
        n_mixed = sum(len(experts[lender]) for lender in unit["mix"])
        self.gates[name] = self._weights(name + ".gate", g, softmax) if n_mixed > 1 else np.ones((len(g), 1))
        if unit.get("self_gate"):
            self.self_gates[name] = self._weights(name + ".self_gate", g, softmax if unit["experts"] > 1 else sigmoid)
        return super()._mix(layer, unit, experts, g)


def entropy(weights):
    """Over the last axis, 1 where even."""
    n = weights.shape[-1]
    safe = np.where(weights > 0, weights, 1)
    return -(safe * np.log(safe)).sum(-1) / np.log(n) if n > 1 else np.zeros(weights.shape[:-1])


class Expected:
    """All that the tables show, from the rows' v."""

    def __init__(self, model, v):
        logits = model.forward(v)
        self.outputs = {task["name"]: apply_output(task.get("output", "sigmoid"), logits[:, t]).mean()
                        for t, task in enumerate(model.tasks)}
        self.experts, self.gates, self.use, self.own, self.edges = {}, {}, {}, {}, {}
        hidden = iter(model.hidden)
        for layer in model.network["layers"]:
            units = {unit["name"]: unit for unit in layer["units"]}
            for unit in layer["units"]:
                for k in range(unit["experts"]):
                    for i in range(len(unit["hidden"])):
                        self.experts[layer["name"], unit["name"], k, i] = self.expert(next(hidden))
            for unit in layer["units"]:
                if "mix" in unit:
                    self.gate(model, layer["name"], unit, units)
            self.spread(layer)
        assert next(hidden, None) is None

    @staticmethod
    def expert(h):
        zero = np.abs(h) < ZERO
        return {"width": h.shape[1], "zeros": 100 * zero.mean(), "dead": zero.all(0).sum(), "mean": h.mean(),
                "std": h.std(), "row std": np.sqrt((h.std(0)**2).mean())}

    def gate(self, model, layer, unit, units):
        name = layer + "." + unit["name"]
        weights = model.gates[name].mean(0)
        mixed = [(lender, k) for lender in unit["mix"] for k in range(units[lender]["experts"])]
        self.gates[name] = {"experts": len(mixed), "largest": weights.max(), "entropy": entropy(weights),
                            "row entropy": entropy(model.gates[name]).mean(),
                            "weights": {"%s[%d]" % expert: w for expert, w in zip(mixed, weights)}}
        for (lender, k), weight in zip(mixed, weights):
            self.edges["%s.%s[%d] → %s" % (layer, lender, k, unit["name"])] = weight
        own = sum(w for (lender, _), w in zip(mixed, weights) if lender == unit["name"])
        row = self.own[name] = {"experts": unit["experts"]}
        if unit["name"] in unit["mix"] and unit["experts"]:
            row.update({"own weight": own, "even": unit["experts"] / len(mixed)})
        if unit.get("self_gate"):
            s = model.self_gates[name].mean(0)
            row.update({"self gate": s.sum(), "own in all": (own + s.sum()) / (1 + s.sum())})

    def spread(self, layer):
        for unit in layer["units"]:
            for k in range(unit["experts"]):
                expert = "%s[%d]" % (unit["name"], k)
                given = {u["name"]: self.gates[layer["name"] + "." + u["name"]]["weights"][expert]
                         for u in layer["units"] if unit["name"] in u.get("mix", [])}
                w = np.array(list(given.values()))
                if len(given) > 1:
                    self.use[layer["name"] + "." + expert] = {
                        "gates": len(w), "mean weight": w.mean(), "largest share": 100 * w.max() / w.sum(),
                        "from": max(given, key=given.get), "entropy": entropy(w / w.sum())}


def tables(text):
    """{title's first word, or its first two: rows as {column: text}} of the tables in a text."""
    found, lines = {}, text.splitlines()
    for at, line in enumerate(lines):
        if not line.startswith("─"):
            continue
        spans = [match.span() for match in re.finditer("─+", line)]
        spans[-1] = (spans[-1][0], None)
        columns = [lines[at - 1][a:b].strip() for a, b in spans]
        end = next(i for i in range(at, len(lines)) if not lines[i].strip())
        found[lines[at - 2].partition(":")[2].strip()] = [
            dict(zip(columns, (lines[i][a:b].strip() for a, b in spans))) for i in range(at + 1, end)]
    return found


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and keeps titles and what would be loaded from elsewhere."""

    VOID = {"meta"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.titles = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "title":
            self.titles.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "</%s>" % tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.titles[-1] += data


class Inspect(harness.Case):

    def near(self, found, expected, unit, where):
        """A printed number: `unit` is that of its last digit, or None where four digits are printed."""
        found = float(found.rstrip(" %"))
        if not np.isfinite(expected):
            self.fail(where)
        bound = 0.51 * unit + 2e-5 if unit else 1e-3 * abs(expected) + 1e-5
        self.assertLessEqual(abs(found - expected), bound, "%s: expected %.6g, found %.6g" % (where, expected, found))

    def check_experts(self, rows, expected):
        name = None
        self.assertEqual(len(rows), len(expected))
        for row, ((layer, unit, k, i), e) in zip(rows, expected.items()):
            name = row["expert"] or name
            self.assertEqual(name, "%s.%s[%d]" % (layer, unit, k))
            self.assertEqual(row["layer"].split()[0], str(i + 1))
            self.assertEqual(int(row["width"]), e["width"])
            self.near(row["zeros"], e["zeros"], 0.1, name)
            self.assertEqual(int(row["dead"]), e["dead"], name)
            for column in ("mean", "std", "row std"):
                self.near(row[column], e[column], None, name + " " + column)

    def check_rows(self, rows, key, expected, units, words=()):
        self.assertEqual([row[key] for row in rows], list(expected))
        for row in rows:
            for column, value in expected[row[key]].items():
                if column in words:
                    self.assertEqual(row[column], value)
                elif column != "weights":
                    self.near(row[column], value, units.get(column, 0.001), row[key] + " " + column)

    def check_text(self, text, model, expected):
        found = tables(text)
        self.check_experts(found["what the experts put out"], expected.experts)
        gates = found["what each gate mixes"]
        self.check_rows(gates, "gate", expected.gates, {"experts": 1})
        for row in gates:
            given = re.findall(r"(\S+\[\d+\]) (\S+)", row["mean weights"])
            self.assertEqual([name for name, _ in given], list(expected.gates[row["gate"]]["weights"]))
            for name, weight in given:
                self.near(weight, expected.gates[row["gate"]]["weights"][name], 0.001, row["gate"] + name)
        use = [row for row in found["how the gates share the experts that several of them see"] if int(row["gates"]) > 1]
        self.check_rows(use, "expert", expected.use, {"gates": 1, "largest share": 1}, words=("from",))
        own = found["what each task's unit draws from its own experts"]
        self.assertEqual([row["task"] for row in own], [task["name"] for task in model.tasks])
        for row, task in zip(own, model.tasks):
            self.assertEqual(row["unit"], task["input"])
            self.near(row["mean output"], expected.outputs[task["name"]], None, task["name"])
            self.assertEqual({column for column in ("own weight", "even", "self gate", "own in all") if row[column]},
                             set(expected.own[task["input"]]) - {"experts"})
            for column, value in expected.own[task["input"]].items():
                self.near(row[column], value, 1 if column == "experts" else 0.001, task["name"] + " " + column)

    def check_page(self, path, expected):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        page = Page()
        page.feed(text)
        self.assertEqual(page.open, [])
        self.assertFalse({"script", "link", "img", "iframe", "object"} & set(page.tags))
        self.assertFalse({"src", "href", "xlink:href"} & set(page.attributes))
        self.assertNotRegex(text, r"https?:|url\(|@import")
        edges = dict(title.rsplit(": ", 1) for title in page.titles if " → " in title and "self gate" not in title)
        self.assertEqual(set(edges), set(expected.edges))
        for name, weight in edges.items():
            self.near(weight, expected.edges[name], 0.0001, name)

    def check(self, model, folder, requests, records, store, *more, n_rows=None):
        """Inspects the requests' file; the text."""
        v = np.concatenate([model.vectors(request, records) for request in compare.read_lines(requests)])[:n_rows]
        page = self.path("page.html")
        text = self.must_run("inspect", folder, "--data", requests, "--store", store, "--html", page, *more).stdout
        expected = Expected(model, v)
        self.assertIn("\n%d rows of " % len(v), text)
        self.check_text(text, model, expected)
        self.check_page(page, expected)
        return text

    def check_kind(self, kind, seed):
        out = self.path("%s-%d" % (kind, seed))
        paths = random_models.generate(out, kind, seed)
        model, records = Observed(paths["model"]), read_store(paths["records"])
        uri = "lmdb:" + os.path.join(out, "store.lmdb")
        self.must_run("features", "load", "--store", uri, "--in", paths["records"])
        with self.subTest(model=kind, seed=seed):
            self.check(model, paths["model"], paths["requests"], records, uri)
            self.check(model, paths["model"], paths["requests"], {}, "none:", "--rows", "101", n_rows=101)

    def test_home(self):
        for seed in range(2):
            self.check_kind("home1", seed)
            self.check_kind("home2", seed)

    def test_mmoe(self):
        self.check_kind("mmoe", 0)

    def test_ple(self):
        self.check_kind("ple", 1)

    def test_shared_bottom(self):
        self.check_kind("shared_bottom", 0)

    def test_networks_that_no_paper_draws(self):
        for seed in range(2):
            self.check_kind("odd", seed)

    def test_dead_relu_experts_and_a_gate_on_one_expert_are_found(self):
        config, rng = random_models.make_config("home2", 3)
        config["network"]["activation"], config["network"]["norm"] = "relu", "none"
        tensors = random_models.make_tensors(rng, random_models.expected_shapes(config))
        layer, task = config["network"]["layers"][0], config["network"]["layers"][-1]
        sick, gate = layer["units"][0], task["units"][-1]
        tensors["%s.%s.expert.0.bias" % (layer["name"], sick["name"])][0] -= 1000
        bias = "%s.%s.gate.bias" % (task["name"], gate["name"])
        tensors[bias][0] += 1000
        folder = self.path("sick", "1")
        random_models.write_model(folder, config, tensors, rng)
        requests = self.path("requests.jsonl")
        random_models.write_lines(requests, random_models.make_requests(rng, config))
        text = self.check(Observed(folder), folder, requests, {}, "none:")
        findings = text[text.index("\nfindings\n"):]
        self.assertRegex(findings, r"collapse +collapsed +%s\.%s\[0\]: layer 1 of \d+: 100\.0 %% zeros" %
                         (layer["name"], sick["name"]))
        self.assertRegex(findings, r"degradation +one takes all +%s\.%s: %s\[0\] has 1\.000" %
                         (task["name"], gate["name"], gate["mix"][0]))

    def test_the_kuairand_model(self):
        folder = harness.shared("models", "kuairand")
        records, uri = os.path.join(folder, "features.jsonl.gz"), "lmdb:" + self.path("store.lmdb")
        self.must_run("features", "load", "--store", uri, "--in", records)
        model = os.path.join(folder, "1")
        text = self.check(Observed(model), model, os.path.join(folder, "requests.jsonl"), read_store(records), uri)
        self.assertIn("0 requests' users, 0 rows' items", text)

    def test_what_cannot_be_inspected_is_said(self):
        paths = random_models.generate(self.path("model"), "home1", 0)
        data = self.path("data.jsonl")
        model = paths["model"]
        self.must_fail("inspect", model, "--html", self.path("x.html"), says=("--html", "--data"))
        self.must_fail("inspect", model, "--data", self.path("none"), says=(self.path("none"),))
        self.must_fail("inspect", model, "--data", paths["requests"], "--store", "lmdb:" + self.path("none"),
                       says=(self.path("none"),))
        self.must_fail("inspect", model, "--data", paths["requests"], "--html", self.path("no", "x.html"),
                       says=("x.html", "No such file"))
        random_models.write_lines(data, [])
        self.must_fail("inspect", model, "--data", data, says=("expected at least one request", "data.jsonl"))
        with open(paths["requests"], encoding="utf-8") as file:
            good = file.readline()
        with open(data, "w", encoding="utf-8") as file:
            file.write("{\n" + good + json.dumps({"user_id": "u", "item_ids": ["a"], "nonsense": 1}) + "\n")
        done = self.run_command("inspect", model, "--data", data)
        self.assertEqual(done.returncode, 1)  # as `score` does
        self.assertIn("2 bad lines", done.stdout)
        self.assertRegex(done.stderr, r"data\.jsonl:1: .*\n.*data\.jsonl:3: .*nonsense")


if __name__ == "__main__":
    harness.main()
