#!/usr/bin/env bash
# The GPU engine, built, checked and measured on a machine that has no more than nvcc, gcc and (for bench) Python 3
# with PyTorch and NumPy: no Bazel, no packages, no network. Appends what it finds to one report.
#
#   tools/gpu_check.sh [--report FILE] [--build DIR] PHASE...
#
#   build      base/, schema's header, kernels/ (reference and cuda), the checks and the benchmark, into DIR
#   parity     every kernel against plain C over the same memory; whole networks against `reference`; a row's bits in
#              batches of 1 to 8192 rows; the launches of `base` (where there is NumPy)
#   sanitize   the same at small sizes under compute-sanitizer: memcheck, then racecheck
#   bench      `base` and `large` beside PyTorch: eager and in a CUDA graph
#   compiled   `base` at B = 512 and 8192 beside torch.compile (max-autotune) too, which tunes for minutes
#   all        the five in this order
#
# FILE is gpu_report.md and DIR build/gpu_check unless told. Each phase but build takes less than 8 minutes; all build
# first what is not built or out of date. $CUDA_HOME, else /usr/local/cuda, is the toolkit; $PYTHON the
# interpreter (python3). Exit code: 0 passed, 1 something failed, 2 wrong usage, 3 no CUDA device.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

report=gpu_report.md
dir=build/gpu_check
phases=()
usage() {
    echo "gpu_check: $1; usage: tools/gpu_check.sh [--report FILE] [--build DIR] build|parity|sanitize|bench|compiled|all ..." >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --report) [ $# -ge 2 ] || usage "--report wants a file"; report=$2; shift 2 ;;
        --build) [ $# -ge 2 ] || usage "--build wants a folder"; dir=$2; shift 2 ;;
        build | parity | sanitize | bench | compiled) phases+=("$1"); shift ;;
        all) phases+=(build parity sanitize bench compiled); shift ;;
        *) usage "unknown argument $1" ;;
    esac
done
[ ${#phases[@]} -gt 0 ] || usage "expected a phase"

cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$cuda/bin/nvcc
python=${PYTHON:-python3}
[ -x "$nvcc" ] || { echo "gpu_check: no nvcc at $nvcc (set CUDA_HOME)" >&2; exit 1; }
mkdir -p "$dir" && dir=$(realpath "$dir") || exit 1

# Of the device at hand alone where it says what it is, else of all that the product is built for.
targets() {
    local capability
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
    case $capability in
        8?) echo "-gencode=arch=compute_80,code=sm_80" ;;
        90) echo "-gencode=arch=compute_90a,code=sm_90a" ;;
        1??) echo "-gencode=arch=compute_90,code=compute_90" ;;
        *) echo "-gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_90,code=compute_90" ;;
    esac
}

library=(base/status.c base/arena.c base/arena_blocks.c base/clock.c base/log.c base/utf8.c kernels/backend.c kernels/failover.c
    kernels/reference/reference.c kernels/cuda/builder.c kernels/cuda/cuda_plan.c kernels/cuda/cuda_bind.c
    kernels/cuda/cuda_engine.c kernels/cuda/cuda.c bench/plain_plan.c tests/kernels/random_plan.c
    tests/kernels/cuda_emulator.c tests/kernels/cuda_fake.c tests/kernels/cuda_rig.c tests/kernels/cuda_check.c)
programs=(tests/kernels/cuda_check_main.c bench/gpu_forward.c)

object_of() {
    echo "$dir/$(tr / _ <<<"$1").o"
}

compile() { # SOURCE: its object, where the source or a header is newer
    local source=$1 object flags
    object=$(object_of "$source")
    [ -z "$(find base schema kernels bench tests/kernels '(' -name '*.h' -o -name '*.cuh' ')' -newer "$object" 2>&1 | head -n 1)" ] &&
        [ "$object" -nt "$source" ] && return 0
    if [[ $source == *.cu ]]; then
        # shellcheck disable=SC2046
        "$nvcc" -std=c++17 -O3 -lineinfo -Werror=all-warnings -Xcompiler=-fPIC,-Wall,-Wextra,-Werror -I. $(targets) \
            -c "$source" -o "$object"
    else
        flags=(-std=c11 -D_GNU_SOURCE -O2 -g1 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -DHR_CUDA_TOOLKIT=1)
        gcc "${flags[@]}" -I. -c "$source" -o "$object"
    fi
}

build() {
    local source objects=() code=0 jobs=()
    for source in "${library[@]}" "${programs[@]}"; do compile "$source" || return 1; done
    for source in kernels/cuda/*.cu; do
        compile "$source" & jobs+=($!)
        if [ ${#jobs[@]} -ge "$(nproc)" ]; then
            wait "${jobs[0]}" || code=1
            jobs=("${jobs[@]:1}")
        fi
    done
    for job in "${jobs[@]}"; do wait "$job" || code=1; done
    [ $code -eq 0 ] || return 1
    for source in "${library[@]}" kernels/cuda/*.cu; do objects+=("$(object_of "$source")"); done
    link cuda_check tests/kernels/cuda_check_main.c && link gpu_forward bench/gpu_forward.c && echo "built in $dir"
}

link() { # NAME MAIN_SOURCE; uses build's objects
    gcc -o "$dir/$1" "$(object_of "$2")" "${objects[@]}" "$cuda/lib64/libcudart_static.a" -lstdc++ -ldl -lrt -lpthread -lm
}

parity() {
    local plans=()
    build || return 1
    if "$python" -c 'import numpy' 2>/dev/null; then
        "$python" bench/workload.py base "$dir/base" && "$python" bench/plain_plan.py "$dir/base" "$dir/base.plan" &&
            plans=("$dir/base.plan")
    else
        echo "no NumPy for $python: the launches of base are left out"
    fi
    # The comparison with plain C takes most of the time: a process a CPU.
    local n i jobs=() code=0
    n=$(nproc)
    rm -f "$dir"/share.*
    for ((i = 0; i < n; i++)); do timeout 460 "$dir/cuda_check" share "$i" "$n" >"$dir/share.$i" & jobs+=($!); done
    for job in "${jobs[@]}"; do
        wait "$job" || { i=$?; [ "$i" -gt "$code" ] && code=$i; }
    done
    cat "$dir"/share.* | grep -v ': 0 failed$' | sort | uniq -c | sort -rn | head -n 40
    [ "$code" -eq 0 ] || return "$code"
    [ ${#plans[@]} -eq 0 ] || timeout 200 "$dir/cuda_check" plans "${plans[@]}"
}

sanitize() {
    local tool code=0
    build || return 1
    [ -x "$cuda/bin/compute-sanitizer" ] || { echo "no compute-sanitizer in $cuda/bin"; return 1; }
    for tool in memcheck racecheck; do
        echo "compute-sanitizer $tool:"
        timeout 220 "$cuda/bin/compute-sanitizer" --tool "$tool" --error-exitcode 1 "$dir/cuda_check" small || code=$?
        [ $code -eq 3 ] && return 3
    done
    return $code
}

measure() { # SECONDS ARGUMENT...: cut after so many
    "$dir/cuda_check" device || return
    (cd bench && timeout "$1" "$python" -u gpu_forward.py --binary "$dir/gpu_forward" "${@:2}")
}

bench() {
    build || return 1
    measure 470 --seconds 380
}

# A size in a process of its own. PyTorch keeps what it has compiled: a second try goes on from there.
compiled() {
    local n code=0
    build || return 1
    for n in 512 8192; do
        measure 230 --workloads base --sizes "$n" --compiled "base:$n" || code=$?
        [ $code -eq 3 ] && return 3
        [ $code -eq 124 ] && echo "torch.compile was still tuning for B = $n" && code=1
    done
    return $code
}

worst=0
for phase in "${phases[@]}"; do
    start=$SECONDS
    {
        echo
        echo "## $phase, $(date -u '+%Y-%m-%d %H:%M UTC')"
        echo
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
        "$nvcc" --version | tail -n 2 | head -n 1
        echo
    } | tee -a "$report"
    "$phase" 2>&1 | tee -a "$report"
    code=${PIPESTATUS[0]}
    echo "$phase: exit code $code after $((SECONDS - start)) s" | tee -a "$report"
    [ "$code" -gt "$worst" ] && worst=$code
    [ "$code" -eq 0 ] || break
done
[ "$worst" -eq 124 ] && worst=1
exit "$worst"
