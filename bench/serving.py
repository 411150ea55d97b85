"""What the serving benchmarks share: servers and their load on cores of their own, CPU time, goals.

Everything runs on one machine, so the servers (with their store, where it is embedded) are bound to some cores and the
load generator, with Redis, to others. A figure of a machine that does other work as well is worth little: where it
can be said per CPU second of the server too, it is.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = "/usr/bin/python3"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WAIT_S = 120


def arguments(part, quick_help, **defaults):
    """The options that every part has; defaults become options of their own."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog=f"bench/run {part}")
    parser.add_argument("--quick", action="store_true", help=quick_help + "; writes no results")
    parser.add_argument("--server-cores", default=str(cores[0]), help="as taskset -c takes them")
    parser.add_argument("--client-cores", default=str(cores[-1]))
    parser.add_argument("--binaries", type=Path, required=True, help=argparse.SUPPRESS)
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    args = parser.parse_args()
    args.part, args.load_before = part, os.getloadavg()
    args.n_server_cores = len(core_list(args.server_cores))
    return args


def core_list(text):
    cores = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return cores


def report(args, lines):
    """Prints a part's lines and, but for a quick run, makes them its section of RESULTS.md."""
    lines = [*setting(args), "", *lines]
    print("\n".join(lines))
    if args.quick:
        return
    hidden = {"--binaries"}
    options = [a for i, a in enumerate(sys.argv[1:]) if a not in hidden and sys.argv[i] not in hidden]
    results.write(args.part, " ".join([f"bench/run {args.part}", *options]), lines, args.load_before)


def setting(args):
    shared = set(core_list(args.server_cores)) & set(core_list(args.client_cores))
    return [f"{versions(args.binaries)}. Server on core {args.server_cores}, load generator (and Redis, where there is one) on "
            f"core {args.client_cores} of the same machine"
            + (", WHICH OVERLAP: the figures are worth nothing." if shared else ".")]


def output_of(*command):
    with contextlib.suppress(OSError):
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return ""


def versions(binaries):
    own = output_of(str(homerank_path(binaries)), "--version").strip()
    grpc = output_of("dpkg-query", "-W", "-f=${Version}", "libgrpc-dev").strip() or "unknown"
    redis = re.search(r"v=(\S+)", output_of("redis-server", "--version"))
    return f"{own}, gRPC core {grpc}, Redis {redis.group(1) if redis else 'none'}, Linux {os.uname().release}"


def homerank_path(binaries):
    return binaries / "service" / "homerank"


# --- processes -----------------------------------------------------------------------------------------------


class Process:
    """A process on its cores, ended with the `with` block; `line` waits for a line of its output."""

    def __init__(self, cores, command, log, **options):
        self.log = log
        self.output = open(log, "w", encoding="utf-8")
        self.process = subprocess.Popen(["taskset", "-c", cores, *map(str, command)], stdout=self.output,
                                        stderr=subprocess.STDOUT, **options)
        self.target = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self.output.close()

    def line(self, pattern):
        """The match of the first line of the output that has the pattern."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            text = Path(self.log).read_text(encoding="utf-8", errors="replace")
            found = re.search(pattern, text)
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        sys.exit(f"bench: {self.process.args[3]} did not say {pattern!r}:\n{text[-2000:]}")

    def cpu_s(self):
        """User and system seconds of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_bytes(self):
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024


def serve(args, folder, models, store, *flags, threads=None):
    """`homerank serve`, ready."""
    server = Process(args.server_cores, [homerank_path(args.binaries), "serve", "--models", models, "--store", store,
                                         "--listen", "127.0.0.1:0", "--log-format", "json", "--threads",
                                         threads or args.n_server_cores, *flags], Path(folder) / "serve.log")
    server.target = server.line(r'"listening".*"address":"([^"]+)"').group(1)
    return server


def echo(args, folder, answer_nbytes):
    """The bare echo server, with as many pollers as ours has."""
    server = Process(args.server_cores, [args.binaries / "bench" / "echo_server", answer_nbytes], Path(folder) / "echo.log",
                     stdin=subprocess.PIPE)
    server.target = "127.0.0.1:" + server.line(r"listening (\d+)").group(1)
    return server


def redis(args, folder):
    """A redis-server on a free port, its data in memory alone; target is HOST:PORT."""
    for port in range(20000 + os.getpid() % 20000, 65000):
        server = Process(args.client_cores, ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
                                             "--appendonly", "no", "--dir", folder], Path(folder) / "redis.log")
        if server.line(r"Ready to accept connections|Address already in use").group(0).startswith("Ready"):
            server.target = f"127.0.0.1:{port}"
            return server
        server.__exit__()
    sys.exit("bench: no port for redis-server")


def run(args, cores, *command, **options):
    """A program to its end; its standard output."""
    done = subprocess.run(["taskset", "-c", cores, *map(str, command)], stdout=subprocess.PIPE, text=True, check=False,
                          **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def load_features(args, store, records):
    run(args, args.client_cores, homerank_path(args.binaries), "features", "load", "--store", store, "--in", records,
        stderr=subprocess.DEVNULL)


def load(args, target, **flags):
    """`homerank load --json`: its report. A flag's underscores are dashes."""
    texts = [t for name, value in flags.items() for t in ("--" + name.replace("_", "-"), value)]
    return json.loads(run(args, args.client_cores, homerank_path(args.binaries), "load", "--target", target, "--json", *texts))


def load_with_cpu(args, server, **flags):
    """The one phase of a load without warm-up, and the server's CPU seconds during it."""
    before = server.cpu_s()
    phase = load(args, server.target, warmup_s=0, **flags)["phases"][0]
    return phase, server.cpu_s() - before


def require_all_answered(phase):
    if phase["answered"] != phase["sent"]:
        sys.exit(f"bench: not every call was answered: {phase['statuses']}")


# --- figures -------------------------------------------------------------------------------------------------


def medians(rounds):
    """{name: median} of a list of {name: value}; what is no number is left out."""
    return {name: statistics.median(r[name] for r in rounds) for name, value in rounds[0].items()
            if isinstance(value, (int, float))}


def pooled(buckets, q):
    """The quantile of several runs' latencies together, ms, from the lists of their buckets."""
    ordered = sorted(bucket for run_buckets in buckets for bucket in run_buckets)
    rank, seen = q * sum(n for _, n in ordered), 0
    for top_us, n in ordered:
        seen += n
        if seen >= rank:
            return top_us / 1e3
    return 0.0


def spread(values):
    return f"{min(values):,.2f} to {max(values):,.2f}"


def verdict(met):
    return "met" if met else "MISSED"


def scratch():
    return tempfile.TemporaryDirectory(prefix="homerank-bench-")


def progress(text):
    print(text, file=sys.stderr, flush=True)
