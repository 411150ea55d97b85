"""Python tests under Debian's own interpreter, where python3-grpcio and NumPy live."""

def hr_python_test(name, main, data = [], timeout = "long", **kwargs):
    """Runs a unittest file; `data` and what it imports must be listed."""
    native.sh_test(
        name = name,
        srcs = ["//tests/e2e:run_python.sh"],
        args = ["$(location %s)" % main],
        data = [main] + data,
        timeout = timeout,
        **kwargs
    )
