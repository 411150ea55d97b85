"""Compares answers of `homerank score` or of a server with the float64 evaluation.

    python3 tests/evaluation/compare.py --model DIR --records FILE --requests FILE --answers FILE --precision f32

An answer holds outputs, not logits, so each output must lie where MODEL.md 5 lets its logit be: between the
outputs of z - bound and z + bound, and a score where such outputs can put it. The order is held to account
where the scores' ranges do not overlap.
"""

import argparse
import gzip
import itertools
import json
import sys

import numpy as np

from homerank_eval import Model, read_store

BOUND = {"f32": 1e-4, "bf16": 5e-2}
FLOAT32_ROUNDING = 2e-7  # answers carry float32, printed with 9 digits


class Mismatch(AssertionError):
    pass


def logit_bound(logit, precision):
    return BOUND[precision] * np.maximum(1.0, np.abs(logit))


class Expected:
    """What one request's answer may be."""

    def __init__(self, model, request, store, precision, logits=None):
        self.model, self.request = model, request
        if logits is None:
            logits = model.forward(model.vectors(request, store))
        self.logits = logits
        bound = logit_bound(logits, precision)
        self.low, self.high = model.outputs(logits - bound), model.outputs(logits + bound)
        self.outputs = model.outputs(logits)
        self.score_low, self.score_high = self._score_range()
        self.finite = np.isfinite(model.fuse(self.outputs)) & np.isfinite(self.outputs).all(axis=1)

    def _score_range(self):
        fusion, names = self.model.config["fusion"], self.model.task_names
        with np.errstate(over="ignore", invalid="ignore"):
            if fusion["kind"] == "weighted_sum":
                low = high = np.zeros(len(self.outputs))
                for name, weight in fusion["weights"].items():
                    ends = weight * np.stack([self.low[:, names.index(name)], self.high[:, names.index(name)]])
                    low, high = low + ends.min(0), high + ends.max(0)
                return low, high
            low = high = np.ones(len(self.outputs))
            for name, term in fusion["terms"].items():
                ends = np.stack([self.low[:, names.index(name)], self.high[:, names.index(name)]])
                ends = (ends + term.get("offset", 0.0))**term.get("power", 1.0)
                low, high = low * ends.min(0), high * ends.max(0)
            return low, high

    def check(self, answer):
        """Raises Mismatch; the largest |difference of an output's logit| / its bound over the answer."""
        rows, request = answer["items"], self.request
        wanted = request.get("tasks") or self.model.task_names
        n = len(request["item_ids"])
        top = request.get("top_k", 0) or n
        if answer.get("request_id", "") != request.get("request_id", ""):
            raise Mismatch("request_id %r, expected %r" % (answer.get("request_id"), request.get("request_id")))
        if len(rows) != min(top, n):
            raise Mismatch("%d items, expected %d" % (len(rows), min(top, n)))
        for row in rows:
            if set(row["tasks"]) != set(wanted):
                raise Mismatch("tasks %s, expected %s" % (sorted(row["tasks"]), sorted(wanted)))
        positions = self._assign(rows)
        self._check_order(rows, positions)
        return self._worst(rows, positions)

    def fits(self, row, i):
        """Is this answer row within bounds for position i?"""
        if not self.finite[i]:
            return row["score"] is None
        if row["score"] is None or not _within(row["score"], self.score_low[i], self.score_high[i]):
            return False
        return all(p is not None and
                   _within(p, self.low[i, t], self.high[i, t])
                   for p, t in ((p, self.model.task_names.index(name)) for name, p in row["tasks"].items()))

    def _assign(self, rows):
        """Each row's position in the request. Duplicates of an item may stand in any order."""
        by_id, positions = {}, [None] * len(rows)
        for i, item_id in enumerate(self.request["item_ids"]):
            by_id.setdefault(item_id, []).append(i)
        row_groups = {}
        for r, row in enumerate(rows):
            row_groups.setdefault(row["item_id"], []).append(r)
        for item_id, group in row_groups.items():
            candidates = by_id.get(item_id, [])
            if len(group) > len(candidates):
                raise Mismatch("item %r answered %d times, asked %d times" % (item_id, len(group), len(candidates)))
            match = self._match(rows, group, candidates)
            if match is None:
                raise Mismatch(self._describe(rows[group[0]], candidates[0]))
            for r, i in zip(group, match):
                positions[r] = i
        return positions

    def _match(self, rows, group, candidates):
        """Distinct positions that the rows fit, by augmenting paths (a user may repeat an item often)."""
        owner = {}

        def place(r, seen):
            for i in sorted(candidates, key=lambda i: self._distance(rows[r], i)):
                if i not in seen and self.fits(rows[r], i):
                    seen.add(i)
                    if i not in owner or place(owner[i], seen):
                        owner[i] = r
                        return True
            return False

        if not all(place(r, set()) for r in group):
            return None
        return [next(i for i in owner if owner[i] == r) for r in group]

    def _distance(self, row, i):
        if row["score"] is None or not self.finite[i]:
            return 0.0
        return sum(abs(p - self.outputs[i, self.model.task_names.index(name)])
                   for name, p in row["tasks"].items() if p is not None)

    def _describe(self, row, i):
        parts = ["request %r item %r (position %d):" % (self.request.get("request_id"), row["item_id"], i)]
        for name, p in row["tasks"].items():
            t = self.model.task_names.index(name)
            if p is None or not _within(p, self.low[i, t], self.high[i, t]):
                parts.append("%s expected %.9g..%.9g (logit %.9g), found %s;" %
                             (name, self.low[i, t], self.high[i, t], self.logits[i, t], p))
        parts.append("score expected %.9g..%.9g, found %s" % (self.score_low[i], self.score_high[i], row["score"]))
        return " ".join(parts)

    def _check_order(self, rows, positions):
        ceiling, last = np.inf, None
        for row, i in zip(rows, positions):
            if row["score"] is None:
                ceiling = -np.inf  # everything after a score that is not finite is not finite either
                continue
            if ceiling == -np.inf:
                raise Mismatch("item %r with a finite score ranks behind one without" % row["item_id"])
            if last is not None and row["score"] > last:
                raise Mismatch("item %r: score %r stands behind %r" % (row["item_id"], row["score"], last))
            last = row["score"]
            if self.score_low[i] - _slack(self.score_low[i]) > ceiling:
                raise Mismatch("item %r ranks behind one whose score is lower" % row["item_id"])
            ceiling = min(ceiling, self.score_high[i] + _slack(self.score_high[i]))
        absent = set(range(len(self.request["item_ids"]))) - set(positions)
        for i in absent:
            if self.finite[i] and self.score_low[i] - _slack(self.score_low[i]) > ceiling:
                raise Mismatch("position %d is among the best and is missing" % i)

    def _worst(self, rows, positions):
        """How far outputs are from the evaluation's, in shares of what is allowed."""
        worst = 0.0
        for row, i in zip(rows, positions):
            for name, p in row["tasks"].items():
                t = self.model.task_names.index(name)
                if p is None or not self.finite[i]:
                    continue
                difference = p - self.outputs[i, t]
                room = (self.high if difference > 0 else self.low)[i, t] - self.outputs[i, t]
                if abs(difference) > _slack(p) and room != 0:
                    worst = max(worst, difference / room)
        return worst


def _slack(x):
    return FLOAT32_ROUNDING * abs(x) + 1e-37


def _within(x, low, high):
    return low - _slack(low) <= x <= high + _slack(high)


def compare_answers(model, store, requests, answers, precision):
    """Checks all answers against all requests, one to one; the worst share of the bound used."""
    worst, n = 0.0, 0
    for request, answer in itertools.zip_longest(requests, answers):
        if request is None or answer is None:
            raise Mismatch("answers end at another line than the requests")
        worst = max(worst, Expected(model, request, store, precision).check(answer))
        n += 1
    return worst


def read_lines(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--records", help="lines of `features load`; none: inline features only")
    parser.add_argument("--requests", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--precision", choices=sorted(BOUND), default="f32")
    arguments = parser.parse_args()
    store = read_store(arguments.records) if arguments.records else {}
    try:
        worst = compare_answers(Model(arguments.model), store, read_lines(arguments.requests),
                                read_lines(arguments.answers), arguments.precision)
    except Mismatch as error:
        sys.exit("compare: %s" % error)
    print("all within bounds; the farthest output uses %.3g of what %s allows" % (worst, arguments.precision))


if __name__ == "__main__":
    main()
