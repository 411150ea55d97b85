#!/usr/bin/python3
"""The folders are the architecture: who may include whom, and what stays inside a folder.

Reads the source tree itself, so it sees every file; it also runs alone: python3 tests/architecture/test_architecture.py
"""
import os
import re
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))

# Folder -> the folders it may include. model and features do not know each other: what passes between them is
# schema's encoded rows.
ARROWS = {
    "base": set(),
    "proto": {"base"},
    "schema": {"base"},
    "kernels": {"base", "schema"},
    "model": {"base", "schema", "kernels"},
    "features": {"base", "schema", "proto"},
    "service": {"base", "schema", "kernels", "model", "features", "proto"},
}

# System header -> the only folders that may include it. base, schema, kernels (reference, cuda) and model build
# where there is no gRPC, Redis, LMDB or oneDNN.
LIBRARIES = {
    r"grpc/": ["service"],
    r"hiredis/": ["features"],
    r"lmdb\.h|murmurhash\.h": ["features"],
    r"uv\.h": ["features"],
    r"oneapi/|dnnl|omp\.h": ["kernels/onednn"],
    r"cuda|cublas": ["kernels/cuda"],
    r"yaml\.h|microhttpd\.h": ["service"],
    r"jansson\.h": ["schema", "proto", "model", "features", "service"],
    r"protobuf-c/": ["proto", "features", "service"],
    r"zlib\.h|zstd\.h": ["base"],
    r"pcre2\.h": ["service/experiments"],
}

MAX_LINES = 800
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def sources(folder):
    for directory, _, names in os.walk(os.path.join(ROOT, folder)):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".cu", ".cuh")):
                yield os.path.relpath(os.path.join(directory, name), ROOT)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def includes(path):
    """(is it a system header, the header) of every include."""
    return [(kind == "<", header) for kind, header in INCLUDE.findall(read(path))]


def is_private(header):
    """A header that says in its banner, or by its name, that it stays in its folder."""
    if re.search(r"_internal\.h$", header):
        return True
    path = os.path.join(ROOT, header)
    return os.path.exists(path) and "Private to" in read(header)[:2000]


class Architecture(unittest.TestCase):
    def test_every_folder_is_found(self):
        for folder in ARROWS:
            self.assertTrue(list(sources(folder)), f"{folder}/ has no sources")

    def test_includes_follow_the_arrows(self):
        wrong = []
        for folder, allowed in ARROWS.items():
            for path in sources(folder):
                for is_system, header in includes(path):
                    other = header.split("/")[0]
                    if not is_system and other in ARROWS and other != folder and other not in allowed:
                        wrong.append(f"{path} includes {header}: {folder} may include {sorted(allowed) or 'nothing'}")
        self.assertEqual(wrong, [])

    def test_product_code_includes_no_tests(self):
        known = set(ARROWS) | {"google"}  # protobuf's own descriptor.proto
        wrong = [f"{path} includes {header}" for folder in ARROWS for path in sources(folder)
                 for is_system, header in includes(path) if not is_system and header.split("/")[0] not in known]
        self.assertEqual(wrong, [])

    def test_private_headers_stay_in_their_folder(self):
        wrong = []
        for folder in ARROWS:
            for path in sources(folder):
                for is_system, header in includes(path):
                    other = header.split("/")[0]
                    if not is_system and other != folder and other in ARROWS and is_private(header):
                        wrong.append(f"{path} includes {header}, which is private to {other}/")
        self.assertEqual(wrong, [])

    def test_libraries_are_used_where_they_belong(self):
        wrong = []
        for folder in ARROWS:
            for path in sources(folder):
                for is_system, header in includes(path):
                    for pattern, homes in LIBRARIES.items():
                        if is_system and re.match(pattern, header) and not any(path.startswith(h + "/") for h in homes):
                            wrong.append(f"{path} includes <{header}>, which belongs to {homes}")
        self.assertEqual(wrong, [])

    def test_no_source_file_is_too_long(self):
        long = [f"{path}: {n} lines" for folder in list(ARROWS) + ["tests"] for path in sources(folder)
                if (n := read(path).count("\n")) > MAX_LINES]
        self.assertEqual(long, [])


if __name__ == "__main__":
    unittest.main()
