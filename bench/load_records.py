#!/usr/bin/python3
"""`homerank features load` beside `redis-cli --pipe` of the same data: bench/run load-records.

Makes records as JSON lines, has homerank load them once, writes what then lies in Redis as the commands that
`redis-cli --pipe` sends, and times both in turn, each into an empty redis-server of its own start. The memory is
homerank's largest, of a tenth of the records and of all: it does not grow with the file.
"""
import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import redis

PREFIX = "hr:item:"


def write_records(path, n):
    """Records of some nine features, about 190 bytes a line."""
    rng = random.Random(1)
    with open(path, "w", encoding="ascii") as out:
        for i in range(n):
            tags = ",".join(f'"t{rng.randrange(1000)}"' for _ in range(4))
            out.write(f'{{"entity":"item","id":"{i}","features":{{"author":"a{rng.randrange(100000)}",'
                      f'"category":{rng.randrange(500)},"tags":[{tags}],"duration":{rng.random() * 300:.3f},'
                      f'"ctr":{rng.random():.6f},"age_days":{rng.randrange(900)},"plays":{rng.randrange(10**6)},'
                      f'"lang":"{rng.choice(("en", "de", "zh", "fr"))}"}}}}\n')


def write_commands(path, port, n):
    client = redis.Redis(port=port)
    with open(path, "wb") as out:
        for first in range(0, n, 1000):
            keys = [f"{PREFIX}{i}".encode() for i in range(first, min(n, first + 1000))]
            for key, value in zip(keys, client.mget(keys)):
                out.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))


def serve(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                "--appendonly", "no", "--dir", folder], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    while True:
        try:
            client.ping()
            return process, port, client
        except redis.ConnectionError:
            if process.poll() is not None:
                sys.exit("load_records: redis-server does not start")
            time.sleep(0.01)


def timed(command, stdin=None):
    """(seconds, CPU seconds, largest resident memory in MB) of a command that must succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"load_records: {' '.join(command)}: {said.decode(errors='replace')}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--homerank", required=True)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="homerank-load-")
    process, port, client = serve(folder)
    load = [options.homerank, "features", "load", "--store", f"redis://127.0.0.1:{port}/0", "--in"]
    try:
        path, few, commands = (os.path.join(folder, name) for name in ("all.jsonl", "few.jsonl", "commands"))
        write_records(path, options.records)
        write_records(few, options.records // 10)
        few_mb = timed(load + [few])[2]
        client.flushall()
        timed(load + [path])
        if client.dbsize() != options.records:
            sys.exit(f"load_records: expected {options.records} records, found {client.dbsize()}")
        write_commands(commands, port, options.records)
        ours, pipes = [], []
        for _ in range(options.rounds):
            client.flushall()
            ours.append(timed(load + [path]))
            client.flushall()
            with open(commands, "rb") as stdin:
                pipes.append(timed(["redis-cli", "-p", str(port), "--pipe"], stdin))
            if client.dbsize() != options.records:
                sys.exit("load_records: redis-cli --pipe left records out")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
    ratios = [pipe[0] / own[0] for own, pipe in zip(ours, pipes)]
    print(f"{options.records} records, {options.rounds} rounds in turn, medians; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':28}{'s':>8}{'records/s':>12}{'CPU s':>8}{'MB':>7}")
    for name, runs in (("homerank features load", ours), ("redis-cli --pipe", pipes)):
        seconds, cpu, memory = (statistics.median(column) for column in zip(*runs))
        print(f"{name:28}{seconds:8.2f}{options.records / seconds:12.0f}{cpu:8.2f}{memory:7.0f}")
    print(f"ratio {statistics.median(ratios):.2f} (each round: {', '.join(f'{r:.2f}' for r in ratios)}); "
          f"memory of a tenth of the records {few_mb:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
