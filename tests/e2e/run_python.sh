#!/bin/bash
# Runs a Python test in Bazel's runfiles with Debian's interpreter; the real binary is its HOMERANK_BIN.
set -euo pipefail
if [ -x service/homerank ]; then export HOMERANK_BIN=$PWD/service/homerank; fi
# As a module, for a script's folder would be the one its symbolic link leads to.
export PYTHONPATH=$PWD/tests/e2e:$PWD/tests/evaluation:$PWD/tests/training
exec /usr/bin/python3 -B -m "$(basename "$1" .py)"
