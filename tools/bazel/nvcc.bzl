"""CUDA C++ compiled by the toolkit that cuda.bzl found."""

load("@cuda//:config.bzl", "CUDA_AVAILABLE", "CUDA_HOME")

# Machine code for sm_80 (which all of 8.x runs) and sm_90a, and PTX that later devices compile for themselves.
_TARGETS = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90a,code=sm_90a",
    "-gencode=arch=compute_90,code=compute_90",
]

# Intermediate files are named by the process's number, which in a sandbox is the same for all, and /tmp is one.
_OPTIONS = [
    "--objdir-as-tempdir",
    "-std=c++17",
    "-O3",
    "-Werror=all-warnings",
    "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror",
    "-I.",
]

def _cuda_objects_impl(ctx):
    objects = []
    for source in ctx.files.srcs:
        object = ctx.actions.declare_file(source.basename[:-len(".cu")] + ".cu.pic.o")
        ctx.actions.run(
            outputs = [object],
            inputs = [source] + ctx.files.hdrs,
            executable = ctx.attr.home + "/bin/nvcc",
            arguments = _OPTIONS + _TARGETS + ["-c", source.path, "-o", object.path],
            mnemonic = "CudaCompile",
            use_default_shell_env = True,
        )
        objects.append(object)
    return [DefaultInfo(files = depset(objects))]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "home": attr.string(),
    },
)

def cuda_library(name, srcs, hdrs):
    """Kernels for a C library to call, linked with the static runtime: a binary starts where there is no CUDA.

    Empty where there is no toolkit. srcs: .cu files; hdrs: all that they include from this tree.
    """
    if not CUDA_AVAILABLE:
        native.cc_library(name = name)
        return
    _cuda_objects(
        name = name + "_objects",
        srcs = srcs,
        hdrs = hdrs,
        home = CUDA_HOME,
    )
    native.cc_library(
        name = name,
        srcs = [name + "_objects"],
        linkopts = [
            CUDA_HOME + "/lib64/libcudart_static.a",
            "-ldl",
            "-lrt",
            "-lpthread",
            "-lstdc++",
        ],
    )
