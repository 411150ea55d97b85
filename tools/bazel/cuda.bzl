"""Finds the CUDA toolkit at build time: $CUDA_HOME, else /usr/local/cuda. The build says which, and
so does the error of `--backend cuda` in a build without that backend. `--repo_env=CUDA_HOME=none` builds without."""

def _cuda_toolkit_impl(ctx):
    home = ctx.os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = ctx.path(home + "/bin/nvcc")
    available = nvcc.exists
    if available:
        ctx.symlink(home, "toolkit")
        print("CUDA toolkit found at %s" % home)  # buildifier: disable=print
    else:
        print("no CUDA toolkit at %s: building without the cuda backend" % home)  # buildifier: disable=print
    ctx.file("BUILD", "")
    ctx.file("config.bzl", "CUDA_AVAILABLE = %s\nCUDA_HOME = %r\n" % (available, home if available else ""))

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    environ = ["CUDA_HOME"],
    local = True,
)
