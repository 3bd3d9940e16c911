"""redis-benchmark: short runs of its main tests; it must end with status 0 and print no error."""

import subprocess

from harness.resp import split
from harness.runner import run

TESTS = "ping,set,get,incr,mset"
EXPECTED = ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]
SECONDS = 35


def benchmark(address, requests, *options):
    """Runs redis-benchmark and fails unless every test was measured without an error line."""
    host, port = split(address)
    command = ["redis-benchmark", "-h", host, "-p", str(port), "-n", str(requests), "-q", "--csv"]
    command += ["-r", "1000", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        raise AssertionError(f"status {done.returncode}: {text[-300:]}")
    for line in text.splitlines():
        if "error" in line.lower() or "WARNING" in line:
            raise AssertionError(f"an error line: {line}")
    measured = [line.split('","')[0].strip('"') for line in done.stdout.splitlines() if line.startswith('"')]
    expected = ["test"] + [name for name in EXPECTED if wanted(name, options)]
    if measured != expected:  # with the line of column names
        raise AssertionError(f"measured {measured}, expected {expected}")


def wanted(name, options):
    """Whether this test is among those asked for with `-t`."""
    tests = options[options.index("-t") + 1].split(",")
    return name.split("_")[0].split(" ")[0].lower() in tests


def requests(job):
    """How many requests per test."""
    return job.many


def plain(job):
    """Fifty connections, one request at a time."""
    benchmark(job.entry, requests(job) // 2, "-t", TESTS)


def pipelined(job):
    """Sixteen requests at a time."""
    benchmark(job.entry, requests(job) * 2, "-t", TESTS, "-P", "16")


def resp3(job):
    """RESP3."""
    benchmark(job.entry, requests(job) // 2, "-t", TESTS, "-3")


def threads(job):
    """Two threads."""
    benchmark(job.entry, requests(job) // 2, "-t", TESTS, "--threads", "2")


def cluster(job):
    """As a cluster client, which finds the nodes through CLUSTER NODES; it has no PING and MSET there."""
    benchmark(job.cluster_entry, requests(job) // 2, "-t", "set,get,incr", "--cluster")


run({
    "bench": plain, "bench-p16": pipelined, "bench-resp3": resp3, "bench-threads": threads,
    "bench-cluster": cluster,
})  # fmt: skip
