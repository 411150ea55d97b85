"""An ideal queue: M/D/c, first come, first served, fed with the very arrivals that `homerank load` makes.

The same arrivals in both take the luck of the draw out of the comparison. `arrivals` is service/load_random.c and
send_phase of service/load_lane.c once more, for one lane.

    queue_sim.py SERVICE_MS LOAD C        prints the percentiles of a long run
"""

import math
import sys

MASK = (1 << 64) - 1


class Random:
    """SplitMix64."""

    def __init__(self, state):
        self.state = state & MASK

    def next(self):
        self.state = z = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def exponential(self, mean):
        return -mean * math.log(((self.next() >> 11) + 1) * 2.0**-53)


def arrivals(seed, phases):
    """Seconds since the start of the calls of `--seed SEED --phases RATE:SECONDS,...`, a list a phase."""
    draw = Random(Random(seed).next())
    out, begin = [], 0.0
    for rate, seconds in phases:
        at, times = begin, []
        while rate > 0:
            at += draw.exponential(1 / rate)
            if at >= begin + seconds:
                break
            times.append(at)
        out.append(times)
        begin += seconds
    return out


def latencies(times, service, servers):
    """Of each arrival until it is served, where each takes `service`."""
    free, out = [0.0] * servers, []
    for at in times:
        i = min(range(servers), key=free.__getitem__)
        free[i] = max(at, free[i]) + service
        out.append(free[i] - at)
    return out


def percentile(values, q):
    """The smallest value that at least q of them do not exceed, as base/histogram.h has it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def main():
    service, load, servers = float(sys.argv[1]) / 1e3, float(sys.argv[2]), int(sys.argv[3])
    (times,) = arrivals(1, [(load * servers / service, 200000 * service)])
    found = latencies(times, service, servers)
    print(f"{len(times)} calls, mean {sum(found) / len(found) * 1e3:.2f} ms, "
          + ", ".join(f"p{q * 100:g} {percentile(found, q) * 1e3:.2f} ms" for q in (0.5, 0.9, 0.99, 0.999)))


if __name__ == "__main__":
    main()
