"""The house's build rules: strict C11, tests, and C code from .proto files."""

_COPTS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wpointer-arith",
    "-Wvla",
    "-Werror",
]

def hr_library(name, copts = [], **kwargs):
    native.cc_library(name = name, copts = _COPTS + copts, **kwargs)

def hr_binary(name, copts = [], **kwargs):
    native.cc_binary(name = name, copts = _COPTS + copts, **kwargs)

def hr_test(name, srcs, deps = [], copts = [], **kwargs):
    """A cmocka test of one module."""
    native.cc_test(
        name = name,
        srcs = srcs,
        copts = _COPTS + copts,
        deps = deps + ["//third_party:cmocka"],
        **kwargs
    )

def hr_proto_library(name, srcs, **kwargs):
    """C code by protoc-c, made at build time; nothing generated is committed."""
    stems = [src[:-len(".proto")] for src in srcs]
    native.genrule(
        name = name + "_gen",
        srcs = srcs,
        outs = [s + ".pb-c.c" for s in stems] + [s + ".pb-c.h" for s in stems],
        cmd = "protoc-c --proto_path=. --c_out=$(GENDIR) $(SRCS)",
    )
    native.cc_library(
        name = name,
        srcs = [s + ".pb-c.c" for s in stems],
        hdrs = [s + ".pb-c.h" for s in stems],
        deps = ["//third_party:protobuf_c"],
        **kwargs
    )
