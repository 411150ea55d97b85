#!/bin/bash
# Runs a Python test in Bazel's runfiles with Debian's interpreter; the real binary is its HOMERANK_BIN.
set -euo pipefail
if [ -x service/homerank ]; then export HOMERANK_BIN=$PWD/service/homerank; fi
# By discovery: a script's folder would be the one its symbolic link leads to, and a file that skips
# itself as a whole (what it needs is not installed) is counted as skipped.
export PYTHONPATH=$PWD/tests/e2e:$PWD/tests/evaluation:$PWD/tests/training
exec /usr/bin/python3 -B -m unittest discover -v -s "$(dirname "$1")" -p "$(basename "$1")"
