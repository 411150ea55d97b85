"""The feature encoder of MODEL.md 3, for training: values of fields in, table rows and dense values out.

Hashing, buckets and transforms are those of serving; a row encoded here and one encoded by the service are equal.
A value of the wrong kind counts as missing, as one in a stored record does.
"""

import math
import re

import numpy as np
import xxhash

NUMBER_TEXT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
DIRECT_TEXT = re.compile(r"0|[1-9][0-9]{0,9}")  # a table has less than 2^32 rows


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def id_text(value):
    """Text of an id: a string as it is, an integral number as its shortest decimal form, None for all else."""
    if isinstance(value, str):
        return value
    if not is_number(value) or isinstance(value, float) and not value.is_integer():
        return None
    return str(int(value))


def table_row(table, text):
    """Row of a text: 0 for missing, empty or unknown ones."""
    if not text:
        return 0
    if table["index"] == "hash":
        return 1 + xxhash.xxh64_intdigest(text.encode(), seed=0) % (table["rows"] - 1)
    if not DIRECT_TEXT.fullmatch(text) or int(text) >= table["rows"] - 1:
        return 0
    return int(text) + 1


def number(value):
    """A number, a decimal text's number, or None for all else and what is not finite."""
    if isinstance(value, str) and NUMBER_TEXT.fullmatch(value) or is_number(value):
        try:
            x = float(value)
        except OverflowError:  # an integer beyond every float
            return None
        return x if math.isfinite(x) else None
    return None


def single(x):
    """x, which may be None, as a finite float32, else None."""
    with np.errstate(over="ignore"):
        narrow = np.float32(math.nan if x is None else x)
    return narrow if np.isfinite(narrow) else None


def dense_number(feature, value):
    """`number`: ln(1+x) if log1p, then standardised; 0 where missing."""
    x = number(value)
    if x is None:
        return 0.0
    if feature.get("log1p", False):
        if x < 0:
            return 0.0
        x = math.log1p(x)
    return single((x - feature.get("mean", 0.0)) / feature.get("std", 1.0)) or 0.0


def as_list(value):
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, str) or is_number(value) else []


class Encoder:
    """Encodes records of one entity into columns, one per feature of config.json's `features`."""

    def __init__(self, config):
        self.tables = config["tables"]
        self.features = config["features"]

    def of(self, entity):
        return [f for f in self.features if f["entity"] == entity]

    def columns(self, entity, ids, records):
        """{feature name: array}: int64 (n) for id and bucket, int64 (n, longest) padded with -1 for ids,
        float32 (n, width) for number and numbers. ids is None for the context."""
        columns = {}
        for feature in self.of(entity):
            field = feature.get("field", feature["name"])
            if ids is not None and field == f"{entity}_id":
                values = ids
            else:
                values = [record.get(field) for record in records]
            columns[feature["name"]] = self._column(feature, values)
        return columns

    def _column(self, feature, values):
        kind = feature["kind"]
        if kind == "number":
            return np.array([[dense_number(feature, v)] for v in values], np.float32).reshape(-1, 1)
        if kind == "numbers":
            return np.array([self._numbers(feature, v) for v in values], np.float32).reshape(-1, feature["length"])
        table = self.tables[feature["table"]]
        if kind == "id":
            return np.array([table_row(table, id_text(v)) for v in values], np.int64)
        if kind == "bucket":
            return np.array([self._bucket(feature, v) for v in values], np.int64)
        longest = feature.get("max_length", 50)
        lists = [[table_row(table, id_text(e)) for e in as_list(v)[:longest]] for v in values]
        padded = np.full((len(lists), max(1, max(map(len, lists), default=1))), -1, np.int64)
        for row, entries in zip(padded, lists):
            row[: len(entries)] = entries
        return padded

    @staticmethod
    def _bucket(feature, value):
        x = number(value)
        return 0 if x is None else 1 + int(np.searchsorted(feature["boundaries"], x, side="right"))

    @staticmethod
    def _numbers(feature, value):
        numbers = [single(number(element)) for element in as_list(value)]
        if len(numbers) != feature["length"] or None in numbers:
            return [0.0] * feature["length"]
        return numbers
