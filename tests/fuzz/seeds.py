#!/usr/bin/python3
"""Writes the hand-made seeds of the corpora rank_request and json_lines beside this file."""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """A field of the wire type that fits the value: bytes, integer or float."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


def entry(key, value):
    return field(1, key) + field(2, value)


def ids(*values):
    return field(3, b"".join(field(1, v) for v in values))


def numbers(*values):
    return field(4, field(1, b"".join(struct.pack("<d", v) for v in values)))


REQUEST = (
    field(1, "r1") + field(2, "u1") + field(3, "i1") + field(3, "i2")
    + field(4, entry("tab", field(2, "1"))) + field(4, entry("hour", field(1, 13.5)))
    + field(5, entry("history", ids("1", "2", "caf\u00e9"))) + field(5, entry("vision", numbers(0.5, float("nan"))))
    + field(6, field(1, entry("age", field(1, 3.0)))) + field(6, b"")
    + field(7, 10) + field(8, "home@3") + field(9, '{"country":"de"}') + field(10, field(1, "exp") + field(2, 2))
    + field(11, "click") + field(12, 1) + field(13, 1)
)

RANK_REQUEST = {
    "full": REQUEST,
    "small": field(2, "u") + field(3, "i"),
    "many_items": field(2, "u") + b"".join(field(3, str(i)) for i in range(40)),
    "unknown_fields": field(2, "u") + field(99, b"\xff\x00") + field(100, 7) + varint(101 << 3 | 5) + b"abcd",
    "bare_entries": field(4, b"") + field(5, field(1, "k")) + field(6, field(1, field(2, b""))),
    "unpacked_numbers": field(5, entry("v", field(4, field(1, 0.5) + field(1, 1.5)))),
    "oneof_twice": field(4, entry("v", field(1, 1.0) + field(2, "x") + field(2, "y"))),
    "value_twice": field(4, field(1, "v") + field(2, field(1, 1.0)) + field(2, field(1, 2.0))),
    "bad_utf8": field(2, b"\xed\xa0\x80"),
    "nul": field(3, b"a\x00b"),
    "cut": REQUEST[:-20],
    "group": field(2, "u") + varint(3 << 3 | 3) + varint(3 << 3 | 4),
    "wrong_wire_type": varint(2 << 3) + varint(5),
    "long_varint": varint(7 << 3) + b"\xff" * 11,
    "length_past_end": varint(6 << 3 | 2) + varint(1 << 31) + b"x",
    "nested_unknown": field(15, field(15, field(15, field(15, b"")))),
}

JSON_LINES = {
    "requests": b"""{"request_id":"r1","user_id":"u1","item_ids":["a",2],"context":{"tab":1,"hour":13.5},"top_k":10}
{"user_features":{"history":[1,2,null]},"item_features":[{"v":[0.5,1,null]},null,{}],"attributes":{"c":"de","n":[1,{"a":null}]}}
{"model":"home@3","forced_variations":{"e":-1},"tasks":["click"],"priority":1,"strict_features":true}
""",
    "records": b"""{"entity":"user","id":"u1","features":{"a":7,"b":"7","c":"007","d":1.5,"e":[],"f":["x",null,7.0],"g":[1,2],"h":[0.5,null]}}
{"a":-0,"b":-0.0,"c":1e300,"d":9223372036854775807,"e":"\\ud83d\\ude00","f":"caf\xc3\xa9"}
""",
    "bad_values": b"""{"user_id":1.5}
{"item_ids":[null]}
{"context":{"f":{"g":1}}}
{"top_k":4294967296}
{"item_features":[1]}
{"forced_variations":{"e":2147483648}}
{"unknown":1}
[]
7
""",
    "not_json": b"""{"a":1,"a":2}
{"a":"\\u0000"}
{"a":"\xff"}
{"a":"\\ud800"}
{"a":1e999}
{"a":99999999999999999999}
{} x
{"a":NaN}
[[[[[[
""",
    "mixed_list": b'{"a":["x",0.1,1.5e-7,-1e20,1e21],"b":["",null],"c":[null],"d":["-0","1"]}\n',
}


def main():
    for corpus, seeds in (("rank_request", RANK_REQUEST), ("json_lines", JSON_LINES)):
        folder = CORPUS / corpus
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
