#!/usr/bin/env bash
# Builds homerank and runs its tests, then the C tests again under AddressSanitizer with UBSan, and under
# ThreadSanitizer.
#
#   ./test.sh           everything
#   ./test.sh --quick   without the sanitizers
#
# A test of real servers that fails is tried again, for a busy machine may keep one waiting too long; Bazel says FLAKY.
# Real data is used where ../shared lies beside the project (HOMERANK_SHARED names another place), and with it the
# GrowthBook SDK's conformance cases (GROWTHBOOK_CASES names another file). Ends with the line
# "N passed, N failed, N skipped"; the exit code is 0 where something passed and nothing failed.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

sanitizers=true
case "${1-}" in
    "") ;;
    --quick) sanitizers=false ;;
    *)
        echo "test: unknown option $1; usage: ./test.sh [--quick]" >&2
        exit 2
        ;;
esac

tools/setup.sh || exit 1
# Bazel asks for both, and neither a bare machine nor a user without a name need have them.
home=$(getent passwd "$(id -u)" | cut -d: -f6) || true
export HOME=${HOME:-${home:-${TMPDIR:-/tmp}/homerank-$(id -u)}} USER=${USER:-$(id -un 2>/dev/null || true)}

data=()
if [ -z "${HOMERANK_SHARED-}" ] && [ -d ../shared ]; then HOMERANK_SHARED=$(realpath ../shared); fi
if [ -n "${HOMERANK_SHARED-}" ]; then data=(--test_env=HOMERANK_SHARED="$HOMERANK_SHARED"); fi
if [ -n "${GROWTHBOOK_CASES-}" ]; then data+=(--test_env=GROWTHBOOK_CASES="$(realpath "$GROWTHBOOK_CASES")"); fi

scratch=$(mktemp -d)
cleanup() {
    rm -rf "$scratch"
    if [ -n "${CI-}" ]; then bazel shutdown; fi
}
trap cleanup EXIT
events=()
code=0

# run NAME ARGUMENTS...: one `bazel test`; its events are counted at the end.
run() {
    local name=$1 start=$SECONDS
    shift
    echo "test: $name"
    bazel test --keep_going --flaky_test_attempts=3 --color=no --curses=no --noshow_progress \
        --build_event_json_file="$scratch/$name.json" "$@" </dev/null || code=1
    events+=("$scratch/$name.json")
    echo "test: $name took $((SECONDS - start)) s"
}

run default "${data[@]}" -- //tests/...
c_tests=(--build_tests_only --test_lang_filters=cc -- //tests/...)
rnd_bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)
if $sanitizers; then
    run asan --config=asan "${c_tests[@]}"
    if [ "$rnd_bits" -le 28 ]; then
        run tsan --config=tsan "${c_tests[@]}"
    else
        echo "test: no tsan run: gcc 12's needs vm.mmap_rnd_bits of at most 28, found $rnd_bits"
    fi
fi

# Whatever bazel says of a run that it could not begin, its count is here.
for file in "${events[@]}"; do [ -s "$file" ] || code=1; done
tools/count_tests.py "${events[@]}" || code=1
exit $code
