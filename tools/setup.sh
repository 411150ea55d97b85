#!/usr/bin/env bash
# Installs the Debian 12 packages that homerank needs, and only those that are missing: where none is, it
# touches neither the network nor the machine.
#
#   tools/setup.sh           to build, to test, and for ./demo.sh
#   tools/setup.sh --dev     also for tools/lint and the fuzz targets
#   tools/setup.sh --bench   also training and the peers that bench/run compares with (PyTorch, with OpenBLAS: on
#                            Debian's reference BLAS it is nine times slower; others go into a scratch environment)
set -euo pipefail

packages=(
    # build
    bazel-bootstrap bazel-rules-java gcc g++ libprotobuf-dev protobuf-c-compiler protobuf-compiler
    # libraries, in the order of third_party/BUILD
    libcmocka-dev libdnnl-dev libgrpc-dev libhiredis-dev libjansson-dev liblmdb-dev libmicrohttpd-dev
    libmurmurhash-dev libpcre2-dev libprotobuf-c-dev libuv1-dev libxxhash-dev libyaml-dev libzstd-dev zlib1g-dev
    # the store, and the Python client with its tests
    redis-server python3 python3-grpcio python3-numpy python3-prometheus-client python3-protobuf python3-redis
)
for option in "$@"; do
    case $option in
        --dev) packages+=(clang clang-format clang-tidy libclang-rt-14-dev) ;;
        --bench) packages+=(python3-torch python3-venv libopenblas0-pthread python3-tqdm python3-xxhash) ;;
        *)
            echo "setup: unknown option $option (expected --dev or --bench)" >&2
            exit 2
            ;;
    esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: expected Debian 12, found no dpkg and apt-get; install by hand: ${packages[*]}" >&2
    exit 1
fi

installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null |
    awk '$2 == "installed" { print $1 }') || true
missing=()
for package in "${packages[@]}"; do
    grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "setup: all ${#packages[@]} packages are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: not root and no sudo; as root, run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

scratch=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
policy_is_ours=false
cleanup() {
    if $policy_is_ours; then "${as_root[@]}" rm -f "$policy"; fi
    rm -rf "$scratch"
}
trap cleanup EXIT

# The redis-server package would start a server on the default port; the tests and the demo start their own.
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$scratch/policy-rc.d"
    policy_is_ours=true
    "${as_root[@]}" install -m 755 "$scratch/policy-rc.d" "$policy"
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
        "$@" >"$scratch/log" 2>&1 </dev/null && return 0
    echo "setup: apt-get $1 failed:" >&2
    tail -n 20 "$scratch/log" >&2
    return 1
}

echo "setup: reading the package lists"
apt update -q
echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
start=$SECONDS
apt install -q -y --no-install-recommends "${missing[@]}"
echo "setup: installed in $((SECONDS - start)) s"
