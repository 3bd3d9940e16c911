"""One measurement: redis-benchmark against a port, and what its server processes spent meanwhile."""

import csv
import glob
import os
import subprocess
import time

CLIENTS = 50
RUN_TIMEOUT_SECONDS = 600
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS_MAX = 20.0
IDLE_LOOK_SECONDS = 0.25
IDLE_SHARE = 0.05


def cpu_seconds(pids):
    """User and system time of `pids` so far, all threads."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # After the name, which may hold anything: state is field 3, utime 14, stime 15.
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def context_switches(pids):
    """Voluntary and involuntary context switches of all live threads of `pids`."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/status"):
            try:
                total += sum(int(value) for name, value in status(path) if name.endswith("ctxt_switches"))
            except FileNotFoundError:
                continue
    return total


def peak_bytes(pids):
    """Sum of the peak resident sizes of `pids`."""
    peaks = [value for pid in pids for name, value in status(f"/proc/{pid}/status") if name == "VmHWM"]
    return sum(int(peak.split()[0]) * 1024 for peak in peaks)


def status(path):
    """Name and value of each line of a /proc status file."""
    with open(path, encoding="ascii", errors="replace") as lines:
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def wait_idle(pids):
    """Waits until `pids` together use little CPU, so that the work one test left behind is not the next one's.

    Gives up after IDLE_SECONDS_MAX: then the measurement goes ahead as it is.
    """
    deadline = time.monotonic() + IDLE_SECONDS_MAX
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(IDLE_LOOK_SECONDS)
        if cpu_seconds(pids) - before < IDLE_SHARE * IDLE_LOOK_SECONDS:
            return


def run(port, pids, test, pipeline, requests, keys, value_bytes):
    """Runs one test of redis-benchmark; answers its figures and the servers' costs."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(CLIENTS), "-d", str(value_bytes)]
    command += ["-r", str(keys), "-n", str(requests), "-P", str(pipeline), "-t", test, "--csv"]
    cpu, switches = cpu_seconds(pids), context_switches(pids)
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS, check=False)
    cpu, switches = cpu_seconds(pids) - cpu, context_switches(pids) - switches
    row = figures(done.stdout, test)
    if done.returncode != 0 or row is None:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    millions = requests / 1e6
    return {
        "rps": float(row["rps"]),
        "p50_ms": float(row["p50_latency_ms"]),
        "p99_ms": float(row["p99_latency_ms"]),
        "cpu_seconds_per_million": cpu / millions,
        "context_switches_per_million": switches / millions,
    }


def figures(text, test):
    """The row of `test` in redis-benchmark's CSV."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    return next((row for row in csv.DictReader(lines) if row["test"].lower() == test.lower()), None)
