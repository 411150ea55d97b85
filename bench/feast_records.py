"""Records in Redis as Feast would have written them: entity key serialization version 3, text ids, one feature view.

docs/features.md says how such a store is read; tests/features/feast_store.py has the real Feast write one.
"""

import json
import struct

import redis

PROJECT, VIEW, JOIN_KEY = "bench", "items", "item_id"
PARAMETERS = f"layout=feast&project={PROJECT}&user_view=users&item_view={VIEW}"
STRING, MASK = 2, 0xFFFFFFFF


def murmur3(data):
    """MurmurHash3, 32 bits of x86, seed 0."""
    h, whole = 0, len(data) // 4 * 4

    def mix(k):
        k = k * 0xCC9E2D51 & MASK
        return (k << 15 | k >> 17) * 0x1B873593 & MASK

    for (k,) in struct.iter_unpack("<I", data[:whole]):
        h ^= mix(k)
        h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & MASK
    h ^= mix(int.from_bytes(data[whole:], "little")) ^ len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def key(identity, id_nbytes):
    """The key of an id of so many bytes."""
    head = struct.pack("<III", 1, STRING, len(JOIN_KEY)) + JOIN_KEY.encode()
    return head + struct.pack("<II", STRING, id_nbytes) + identity.encode() + PROJECT.encode()


def field(name):
    return struct.pack("<I", murmur3(f"{VIEW}:{name}".encode()))


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def delimited(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def value(stored):
    """A serialized feast.types.Value: string_val, double_val, string_list_val or double_list_val."""
    if isinstance(stored, str):
        return delimited(2, stored.encode())
    if not isinstance(stored, list):
        return varint(5 << 3 | 1) + struct.pack("<d", stored)
    if all(isinstance(element, str) for element in stored):
        return delimited(12, b"".join(delimited(1, element.encode()) for element in stored))
    return delimited(15, delimited(1, struct.pack(f"<{len(stored)}d", *stored)))


def write(target, lines):
    """Into the Redis at HOST:PORT, from lines of `features load`."""
    host, port = target.split(":")
    with redis.Redis(host=host, port=int(port)) as connection, open(lines, encoding="utf-8") as records:
        pipeline = connection.pipeline(transaction=False)
        for record in map(json.loads, records):
            identity = record["id"]
            mapping = {field(name): value(stored) for name, stored in record["features"].items()}
            pipeline.hset(key(identity, len(identity.encode())), mapping=mapping)
        pipeline.execute()
