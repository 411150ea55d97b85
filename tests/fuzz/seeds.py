#!/usr/bin/python3
"""Writes the hand-made seeds of the corpora rank_request, json_lines and redis_reply beside this file."""
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




def resp(value):
    """A reply of the Redis protocol: lists, texts, integers and None."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(resp, value))
    return b"$%d\r\n%s\r\n" % (len(value.encode()), value.encode())


def shard(slots, *nodes):
    return ["slots", slots, "nodes", [
        ["id", "f" * 8, "port", port, "ip", "10.0.0.1", "endpoint", endpoint, "role", role,
         "replication-offset", 7, "health", health] for port, endpoint, role, health in nodes]]


REDIS_REPLY = {
    "shards": b"\x05" + resp([
        shard([0, 5460, 16383, 16383], (7000, "10.0.0.1", "master", "online"), (7003, None, "replica", "online")),
        shard([5461, 10922], (7001, "", "master", "fail"), (7004, "h", "master", "online")),
        shard([], (7002, "?", "master", "online"))]),
    "slots": b"\x03" + resp([[0, 99, ["10.0.0.1", 7000, "id", []], ["10.0.0.2", 7003, "id"]], [100, 199, [None, 7001]],
                            [200, 200, ["10.0.0.1", 7000]]]),
    "overlap": b"\x00" + resp([[0, 99, ["h", 1]], [99, 100, ["h", 2]]]),
    "records": b"\x07" + resp(["user", None, "", "x" * 300]) + resp("bulk") + resp(None) + b"*-1\r\n*0\r\n",
    "lines": b"\x02+OK\r\n-MOVED 3999 127.0.0.1:6381\r\n-ASK 16383 [::1]:1\r\n-MOVED 1 :7\r\n+" + b"y" * 300
             + b"\r\n:-9223372036854775808\r\n",
    "messages": b"\x04" + resp(["message", "__redis__:invalidate", ["hr:item:1", "hr:user:2"]]) + resp(["message", "c", None]),
    "deep": b"\x01" + b"*1\r\n" * 9 + b":1\r\n",
    "lengths": b"\x01*2147483647\r\n$536870913\r\n",
    "huge_text": b"\x01$536870912\r\nx",
    "numbers": b"\x01:+1\r\n:01\r\n:-0\r\n$-2\r\n",
    "newlines": b"\x02$2\r\n\r\n\r\n+a\nb\r\n$1\r\nab\r\n",
}


def main():
    for corpus, seeds in (("rank_request", RANK_REQUEST), ("json_lines", JSON_LINES), ("redis_reply", REDIS_REPLY)):
        folder = CORPUS / corpus
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
