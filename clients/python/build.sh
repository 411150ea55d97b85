#!/usr/bin/env bash
# Builds the Python package: the sources and the messages generated from proto/homerank.proto, in one folder to
# put on PYTHONPATH (or copy elsewhere).
#
#   clients/python/build.sh [OUT]      OUT defaults to clients/python/build
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/build}
mkdir -p "$out/homerank"
cp "$here"/homerank/*.py "$out/homerank/"
protoc --proto_path="$here/../../proto" --python_out="$out/homerank" homerank.proto
