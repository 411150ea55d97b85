"""Python values as the service's FeatureValues, by the rules of its JSON form.

A str becomes an id, an int the id of its decimal text, another number a number; a list with any str, or of ints
(and Nones) only, becomes ids, another list numbers; None is a missing value, and within a list an empty text or a
NaN.
"""

import numbers

from . import homerank_pb2 as pb


def feature_value(value):
    """A FeatureValue of a Python (or NumPy) value. TypeError: a bool, a mapping, anything else."""
    message = pb.FeatureValue()
    if value is None:
        return message
    if isinstance(value, str):
        message.id = value
    elif _is_integer(value):
        message.id = str(int(value))
    elif _is_real(value):
        message.number = float(value)
    elif _is_list(value):
        _fill_list(message, list(value))
    else:
        raise TypeError("a feature is a str, a number, a list of those, or None; found %s" % type(value).__name__)
    return message


def feature_map(features, target=None):
    """A FeatureMap of a mapping {feature: value}, or `target`, a map field, filled with it."""
    message = pb.FeatureMap() if target is None else None
    target = message.features if target is None else target
    for name, value in features.items():
        try:
            target[name].CopyFrom(feature_value(value))
        except TypeError as error:
            raise TypeError("feature %r: %s" % (name, error)) from None
    return message


def _fill_list(message, values):
    if any(isinstance(v, str) for v in values) or all(v is None or _is_integer(v) for v in values):
        message.ids.SetInParent()
        message.ids.values.extend(_text(v) for v in values)
    else:
        message.numbers.values.extend(_number(v) for v in values)


def _text(value):
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if _is_integer(value):
        return str(int(value))
    if _is_real(value):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    raise TypeError("a list holds strs, numbers and Nones; found %s" % type(value).__name__)


def _number(value):
    if value is None:
        return float("nan")
    if _is_real(value):
        return float(value)
    raise TypeError("a list holds strs, numbers and Nones; found %s" % type(value).__name__)


def _is_bool(value):
    return isinstance(value, bool) or type(value).__name__ == "bool_"  # NumPy's is no subclass of ours


def _is_integer(value):
    return isinstance(value, numbers.Integral) and not _is_bool(value)


def _is_real(value):
    return isinstance(value, numbers.Real) and not _is_bool(value)


def _is_list(value):
    return hasattr(value, "__iter__") and not hasattr(value, "keys") and not isinstance(value, (bytes, bytearray))
