#!/usr/bin/env bash
# homerank with all that it needs, in one file: for a machine that has a Linux kernel, a shell and perhaps a GPU, but none
# of Debian's packages. Made on a machine that has built it.
#
#   tools/bundle.sh [--workload base|large|tiny] [--users N] [--items N] [--binary FILE] OUT.tar.gz
#
# In it, in a folder homerank-bundle:
#   homerank    runs the binary with the loader and the libraries that lie beside it; takes homerank's own arguments
#   measure     the end-to-end path under `homerank load`, on whichever backend is there: measure --help
#   models/ records.jsonl.gz   a workload's model (random weights) and records
#
# The binary is built (`bazel build --config=opt //service:homerank`) unless one is given. The driver's libcuda.so.1 is
# the target machine's own.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")

usage() {
    echo "bundle: $1; usage: tools/bundle.sh [--workload base|large|tiny] [--users N] [--items N] [--binary FILE] OUT.tar.gz" >&2
    exit 2
}

workload=base users=1000 items=10000 binary="" out=""
while [ $# -gt 0 ]; do
    case $1 in
        --workload | --users | --items | --binary)
            [ $# -ge 2 ] || usage "$1: expected a value, found nothing"
            declare "${1#--}=$2"
            shift
            ;;
        -*) usage "unknown option $1" ;;
        *)
            [ -z "$out" ] || usage "expected one file, found also $1"
            out=$1
            ;;
    esac
    shift
done
[[ $out == *.tar.gz ]] || usage "expected a name that ends in .tar.gz, found ${out:-nothing}"

if [ -z "$binary" ]; then
    (cd "$root" && bazel build --config=opt //service:homerank)
    binary=$root/bazel-bin/service/homerank
fi
[ -x "$binary" ] || usage "--binary: no program $binary"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=$scratch/homerank-bundle
mkdir -p "$bundle/lib" "$bundle/bin"

# The libraries by the names they are asked for, and the loader among them.
missing=$(ldd "$binary" | grep 'not found' || true)
[ -z "$missing" ] || { echo "bundle: $binary: expected all its libraries, found$missing" >&2; exit 1; }
ldd "$binary" | grep -oE '/[^ ]+' | sort -u | xargs cp -L -t "$bundle/lib"
mv "$bundle"/lib/ld-linux-*.so.* "$bundle/lib/loader"
install "$binary" "$bundle/bin/homerank"
[ -n "$(file -b "$binary" 2>/dev/null | grep 'with debug_info')" ] && strip "$bundle/bin/homerank"
install "$root/tools/bundle/homerank" "$root/tools/bundle/measure" "$bundle"

/usr/bin/python3 "$root/bench/world.py" "$workload" "$bundle" --users "$users" --items "$items"
gzip "$bundle/records.jsonl"
cat >"$bundle/world" <<END
workload=$workload users=u0..u$((users - 1)) items=v0..v$((items - 1))
END

tar -C "$scratch" -czf "$out" --owner=0 --group=0 homerank-bundle
echo "$out: $(du -h "$out" | cut -f1), $(find "$bundle/lib" -type f | wc -l) libraries, workload $workload"
