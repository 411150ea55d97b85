#!/usr/bin/env bash
# From a bare clone to a ranking: installs what is missing, builds, makes a small world, serves it, ranks once.
#
#   ./demo.sh                               a made-up catalogue, records in the embedded LMDB store
#   ./demo.sh --redis                       the same with records in a redis-server that it starts
#   ./demo.sh --model DIR --features FILE   your own model (the folder with config.json, or the one with its
#                                           versions) and records (JSON lines, may be .gz)
#
# On a terminal the server stays up until Ctrl-C; otherwise it stops once the ranking is printed. What the demo
# made stays in demo/data, so that its commands can be run again; the next run makes it anew.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    echo "demo: $1; usage: ./demo.sh [--redis] [--model DIR --features FILE]" >&2
    exit 2
}

redis=false model="" features=""
while [ $# -gt 0 ]; do
    case $1 in
        --redis) redis=true ;;
        --model | --features)
            [ $# -ge 2 ] || usage "$1: expected a path, found nothing"
            if [ "$1" = --model ]; then model=$2; else features=$2; fi
            shift
            ;;
        -h | --help)
            sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        *) usage "unknown option $1" ;;
    esac
    shift
done
if [ -n "$model$features" ]; then
    [ -n "$model" ] && [ -n "$features" ] || usage "--model and --features go together"
    [ -d "$model" ] || usage "--model: no folder $model"
    [ -f "$features" ] || usage "--features: no file $features"
fi

scratch=$(mktemp -d)
server_pid="" redis_port=""
cleanup() {
    if [ -n "$server_pid" ]; then kill "$server_pid" 2>/dev/null && wait "$server_pid" || true; fi
    if [ -n "$redis_port" ]; then redis-cli -p "$redis_port" shutdown save >/dev/null 2>&1 || true; fi
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

# Prints a command as one may type it.
command_line() {
    local word separator=""
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_./:,=@%+-]+$ ]]; then word=$(printf %q "$word"); fi
        printf '%s%s' "$separator" "$word"
        separator=" "
    done
    echo
}

die() { # MESSAGE LOG: says what failed, with the log's end
    echo "demo: $1:" >&2
    tail -n 20 "$2" >&2
    exit 1
}

wait_until() { # SECONDS COMMAND...: true once the command is
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

free_port() {
    /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Lays the given model out as a repository, ROOT/NAME/VERSION, by links.
link_model() {
    local path name=model version=1
    path=$(realpath "$1")
    if [ ! -f "$path/config.json" ]; then # the folder of a model's versions
        name=$(basename "$path")
        mkdir -p "$data/models"
        ln -s "$path" "$data/models/$name"
        return
    fi
    if [[ $(basename "$path") =~ ^[1-9][0-9]*$ ]]; then
        version=$(basename "$path") name=$(basename "$(dirname "$path")")
    else
        name=$(basename "$path")
    fi
    [[ $name =~ ^[A-Za-z_][A-Za-z0-9_-]*$ ]] || name=model
    mkdir -p "$data/models/$name"
    ln -s "$path" "$data/models/$name/$version"
}

start_redis() {
    redis_port=$(free_port)
    mkdir -p "$data/redis"
    redis_command=(redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$data/redis")
    "${redis_command[@]}" >"$scratch/redis.log" 2>&1 &
    wait_until 10 redis-cli -p "$redis_port" ping >/dev/null 2>&1 || die "redis-server does not answer" "$scratch/redis.log"
}

server_listens_or_ended() { grep -q ' listening ' "$log" || ! kill -0 "$server_pid" 2>/dev/null; }

start_server() {
    local listen=127.0.0.1:50051
    if (exec 3<>/dev/tcp/127.0.0.1/50051) 2>/dev/null; then listen=127.0.0.1:$(free_port); fi
    serve_command=("$homerank" serve --models "$models" --store "$store")
    target=()
    if [ $listen != 127.0.0.1:50051 ]; then
        serve_command+=(--listen "$listen")
        target=(--target "$listen")
    fi
    : >"$log"
    "${serve_command[@]}" 2>"$log" &
    server_pid=$!
    wait_until 60 server_listens_or_ended || true
    grep -q ' listening ' "$log" || die "the server did not start" "$log"
}

say "Packages"
tools/setup.sh

say "Build (a minute or two the first time)"
start=$SECONDS
# Bazel asks for both, and neither a bare machine nor a user without a name need have them.
home=$(getent passwd "$(id -u)" | cut -d: -f6) || true
export HOME=${HOME:-${home:-${TMPDIR:-/tmp}/homerank-$(id -u)}} USER=${USER:-$(id -un 2>/dev/null || true)}
build=(bazel build --config=opt //service:homerank)
if [ -t 1 ]; then
    "${build[@]}" </dev/null
else
    "${build[@]}" >"$scratch/build.log" 2>&1 </dev/null || die "the build failed" "$scratch/build.log"
fi
bazel shutdown >/dev/null 2>&1 || true # its server would stay for hours
homerank=bazel-bin/service/homerank
echo "$("$homerank" --version), built in $((SECONDS - start)) s"

data=demo/data
log=$scratch/server.log
context=()
rm -rf "$data"
if [ -n "$model" ]; then
    models=$data/models
    link_model "$model"
else
    say "A catalogue of videos and their viewers, in $data; the HoME trained for them is in demo/models"
    /usr/bin/python3 demo/generate.py --out "$data"
    models=demo/models
    features=$data/features.jsonl
    context=(--context hour=20 --context device=phone)
fi

store=lmdb:$data/features.lmdb
if $redis; then
    say "A redis-server of our own"
    start_redis
    store=redis://127.0.0.1:$redis_port/0
    echo "on 127.0.0.1:$redis_port"
fi

say "Records into the store"
echo "\$ $(command_line "$homerank" features load --store "$store" --in "$features")"
"$homerank" features load --store "$store" --in "$features" 2>&1

say "The server"
start_server
grep ' listening ' "$log"

say "One ranking"
{
    read -r user
    read -r items
    read -r other_user
} < <(/usr/bin/python3 demo/pick.py "$features" 8)
rank_line() { command_line "$homerank" rank "${target[@]}" --user "$1" --items "$items" "${context[@]}" "${@:2}"; }
echo "\$ $(rank_line "$user")"
echo
"$homerank" rank "${target[@]}" --user "$user" --items "$items" "${context[@]}"

model_folder=$(dirname "$(find -L "$models" -name config.json | sort | tail -n 1)")
interactive=false
if [ -t 0 ] && [ -t 1 ]; then interactive=true; fi
if $interactive; then
    say "Try next, in another terminal, from $PWD"
else
    say "Try next, from $PWD, once the server is up again"
    echo "The server stops now, as this is no terminal. To start it again:"
    if $redis; then echo "  $(command_line "${redis_command[@]}") &"; fi
    echo "  $(command_line "${serve_command[@]}") &"
fi
cat <<END

The same items for someone else, as JSON:
  $(rank_line "$other_user" --json)
What is known of the first user:
  $(command_line "$homerank" features get --store "$store" --entity user --id "$user")
The model's network, as a tree:
  $(command_line "$homerank" inspect "$model_folder")
END

if $interactive; then
    printf '\nThe server is up (its log: %s). Ctrl-C stops it.\n' "$log"
    trap 'exit 0' INT
    wait "$server_pid"
fi
