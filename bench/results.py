"""bench/RESULTS.md: one section a benchmark, rewritten by the run that measured it."""

import datetime
import os
import platform
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
PREFACE = """# Results

Written by `bench/run`; a figure counts as a ratio within one run on one machine. Absolute times are of that machine.
"""


def table(head, rows):
    """Lines of a markdown table."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    width = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.rjust(w) for c, w in zip(row, width)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (w + 1) + ":" for w in width) + "|", *lines[1:]]


def cpu_model():
    info = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", info)
    return f"{name.group(1) if name else platform.machine()}, {os.cpu_count()} CPUs"


def write(section, command, lines, load_before):
    """Replaces the section of that name, keeps the others."""
    text = RESULTS.read_text() if RESULTS.exists() else PREFACE
    parts = re.split(r"(?m)^(?=## )", text)
    parts = [p for p in parts if not p.startswith(f"## {section}\n")]
    load = f"load average {load_before[0]:.1f} before, {os.getloadavg()[0]:.1f} after (this run alone makes about 1)"
    body = [f"## {section}", "", f"`{command}`, {datetime.date.today()}, {cpu_model()}; {load}.", "", *lines, ""]
    RESULTS.write_text("\n".join([p.rstrip() + "\n" for p in parts] + ["\n".join(body)]))
