#!/usr/bin/env python3
"""A million keys that expire at one moment: what clients notice while they are swept, and whether the space comes back.

Starts a cluster of its own, loads the keys with one expiry, and lets redis-benchmark read and write other keys before
and after that moment, one slice after the other. Prints a table: throughput, p50 and p99 of each slice, and how far the
sweepers were.
"""

import argparse
import csv
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from side.measure import cpu_seconds  # noqa: E402

CHUNK = 10_000
START_SECONDS_MAX = 30.0


def main():
    """Runs it."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="gyre-storm-") as directory:
        command = [options.binary, "dev", "--nodes", str(options.nodes), "--port", str(options.port), "--dir", directory]
        command += ["--", "--replication-factor", str(min(3, options.nodes))]
        with open(os.path.join(directory, "log"), "w", encoding="utf-8") as log:
            # A process group of its own: Ctrl-C is for this program, which then stops it.
            dev = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                storm(options, directory, dev.pid)
            finally:
                dev.send_signal(signal.SIGTERM)
                dev.wait(timeout=30)


def storm(options, directory, dev):
    """Loads, measures before, and after the moment until all is swept."""
    ports = [options.port + index for index in range(options.nodes)]
    wait_formed(ports, options.nodes)
    pids = children(dev)
    load(ports[0], options.hot_keys, options.value_bytes, "key:{:012d}", None)
    ends_at = time.time() + options.lead
    started = time.monotonic()
    load(ports[0], options.keys, options.value_bytes, "storm:{}", int(ends_at * 1_000))
    print(f"loaded {options.keys:,} keys on {options.nodes} nodes in {time.monotonic() - started:.1f} s; "
          f"{disk_bytes(directory) / 1e6:.0f} MB on disk", flush=True)
    if time.time() > ends_at:
        sys.exit("loading took longer than --lead: nothing is left to measure")
    print("| s | swept, all nodes | GET/s | p50 ms | p99 ms | SET/s | p50 ms | p99 ms | servers' CPU s |\n" + "|---" * 9 + "|")
    total, deadline = options.keys * min(3, options.nodes), ends_at + options.seconds
    time.sleep(max(0.0, ends_at - time.time() - options.before))
    while time.time() < deadline:
        at, cpu = time.time() - ends_at, cpu_seconds(pids)
        figures = [benchmark(options, test) for test in ("get", "set")]
        done = sum(swept(port) for port in ports)
        cells = [f"{value:.2f}" if value < 1_000 else f"{value:,.0f}" for row in figures for value in row]
        print(f"| {at:.0f} | {done:,} | {' | '.join(cells)} | {cpu_seconds(pids) - cpu:.1f} |", flush=True)
        if done >= total:
            break
    while sum(swept(port) for port in ports) < total:
        time.sleep(0.5)
    print(f"all swept {time.time() - ends_at:.0f} s after they expired; {disk_bytes(directory) / 1e6:.0f} MB on disk")


def load(port, keys, value_bytes, name, expires_at_ms):
    """Sets `keys` keys; all expire at `expires_at_ms` unless that is None."""
    value = b"x" * value_bytes
    until = [] if expires_at_ms is None else [b"PXAT", str(expires_at_ms).encode()]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for first in range(0, keys, CHUNK):
            numbers = range(first, min(first + CHUNK, keys))
            connection.sendall(b"".join(resp([b"SET", name.format(n).encode(), value, *until]) for n in numbers))
            wanted = len(numbers) * len(b"+OK\r\n")
            while wanted > 0:
                reply = connection.recv(1 << 20)
                if not reply or b"-" in reply:
                    sys.exit(f"a SET failed: {reply[:200]}")
                wanted -= len(reply)


def resp(words):
    """A command as Redis wants it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def benchmark(options, test):
    """Operations a second, p50 and p99 in milliseconds of one slice."""
    command = ["redis-benchmark", "-p", str(options.port), "-c", "50", "-d", str(options.value_bytes), "-t", test]
    command += ["-r", str(options.hot_keys), "-n", str(options.requests), "--csv"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = next(row for row in csv.DictReader(output.splitlines()) if row["test"].lower() == test)
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def swept(port):
    """How many keys a node has swept."""
    lines = run(port, "INFO", "stats").splitlines()
    return int(next(line for line in lines if line.startswith("expired_keys:")).split(":")[1])


def wait_formed(ports, nodes):
    """Waits until every node belongs to the cluster."""
    deadline = time.monotonic() + START_SECONDS_MAX
    wanted = f"cluster_known_nodes:{nodes}"
    while not all(wanted in run(port, "CLUSTER", "INFO") for port in ports):
        if time.monotonic() > deadline:
            sys.exit("the cluster does not form")
        time.sleep(0.2)


def run(port, *words):
    """What redis-cli prints."""
    done = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=False)
    return done.stdout


def children(pid):
    """The processes that `pid` has started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return [int(child) for child in listed.read().split()]


def disk_bytes(directory):
    """Bytes of all table files and logs of all nodes."""
    return sum(
        os.stat(os.path.join(at, name)).st_blocks * 512
        for at, _, names in os.walk(directory)
        for name in names
        if name.endswith((".sst", ".log"))
    )


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/dist/gyre")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--port", type=int, default=7600)
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys that expire at one moment")
    parser.add_argument("--hot-keys", type=int, default=100_000, help="keys that clients read and write")
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument("--requests", type=int, default=100_000, help="requests of a slice")
    parser.add_argument("--lead", type=float, default=45, help="seconds from the begin of loading until they expire")
    parser.add_argument("--before", type=float, default=12, help="seconds measured before they expire")
    parser.add_argument("--seconds", type=float, default=60, help="seconds measured after, at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
