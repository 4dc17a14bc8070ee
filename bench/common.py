"""What the benchmarks share: a world to measure in, percentiles, and a description of the machine."""

import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALICE = "sip:alice@p2psip.org"
# What the tools read; a benchmark must not inherit the user's own overlay.
VARIABLES = ("OVERLAY", "SOCKET", "PEER", "DNS", "HOME", "AOR")


def tool(folder, name):
    """The path of one of the binaries under test."""
    path = Path(folder) / name
    if not path.exists():
        sys.exit(f"{path} is missing: run cargo build --release --bins --examples, or scripts/dist, or give --bin")
    return str(path)


def percentile(values, share):
    """By nearest rank: a value that was measured, never an interpolated one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values):
    return {
        "runs": len(values),
        "median": percentile(values, 0.5),
        "p90": percentile(values, 0.9),
        "p95": percentile(values, 0.95),
        "min": min(values),
        "max": max(values),
    }


def bare_environment():
    return {key: value for key, value in os.environ.items() if key.removeprefix("P2PSIP_") not in VARIABLES}


@contextmanager
def lab(binaries, members):
    """A `p2p-lab up` of so many members with alice registered on both of her devices; yields its environment."""
    with tempfile.TemporaryDirectory(prefix="p2psip-bench-") as folder:
        process = subprocess.Popen(
            [tool(binaries, "p2p-lab"), "up", "--peers", str(members), "--folder", folder, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=bare_environment(),
            text=True,
        )
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit("p2p-lab did not come up")
            environment = bare_environment() | json.loads(line)["environment"]
            for device in ("alice-desk", "alice-mobile"):
                home = Path(folder) / device
                at = environment | {"P2PSIP_HOME": str(home), "P2PSIP_SOCKET": str(home / "member.sock")}
                register = [tool(binaries, "p2p-register"), ALICE]
                subprocess.run(register, env=at, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            yield environment, process.pid
        finally:
            process.terminate()
            process.wait()


def entries(environment):
    """The members named in P2PSIP_PEER."""
    return shlex.split(environment["P2PSIP_PEER"])


def version_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        return None
    found = re.search(r"\d+\.\d+[\w.\-+]*", done.stdout + done.stderr)
    return found.group(0) if found else "unknown"


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "cores": os.cpu_count(),
        "cpu": cpu,
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d"),
        "load": [float(value) for value in open("/proc/loadavg").read().split()[:3]],
    }


def save(path, result):
    """Writes the results as JSON, or nothing if no path is given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")


def table(header, rows):
    """Prints aligned columns; all but the first are numbers."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
