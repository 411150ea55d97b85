"""Fuzz targets: one function, built two ways."""

load("//tools/bazel:defs.bzl", "hr_library")

def hr_fuzz_target(name, deps, srcs = None):
    """A parser under hostile input, from NAME_fuzz.c and corpus/NAME/*.

    Makes NAME_replay_test, which replays the corpus and some hundred mutations of each of its files with any
    compiler, and NAME_fuzz, the libFuzzer binary that tools/fuzz builds (clang and --config=fuzz only).
    """
    hr_library(
        name = name + "_fuzz_target",
        testonly = True,
        srcs = srcs or [name + "_fuzz.c"],
        alwayslink = True,
        deps = deps + [":fuzz"],
    )
    native.cc_test(
        name = name + "_replay_test",
        size = "small",
        args = [native.package_name() + "/corpus/" + name],
        data = native.glob(["corpus/" + name + "/*"]),
        deps = [":" + name + "_fuzz_target", ":replay_main"],
    )
    native.cc_binary(
        name = name + "_fuzz",
        testonly = True,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [":" + name + "_fuzz_target"],
    )
