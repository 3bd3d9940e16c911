#!/usr/bin/env python3
"""The two-minute tour of a cluster that loses nodes, with nothing but redis-cli.

Starts three `gyre server` processes of its own and shows: keys written on one port are read on the others;
with one node killed QUORUM goes on; with two killed QUORUM answers `-UNAVAILABLE` and ONE still serves the
keys held; after a restart the data is there. Exits non-zero at the first claim that does not hold.
"""

import argparse
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness.resp import split, wait_until  # noqa: E402
from harness.servers import GyreCluster, is_formed  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLI_SECONDS = 20
NOTICE_SECONDS = 15
KEYS = 50
LIFETIME_SECONDS = 10


def main():
    """Runs the tour; prints a line per claim."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    default = os.environ.get("GYRE_BINARY") or os.path.join(ROOT, "target", "dist", "gyre")
    parser.add_argument("--binary", default=default, help="gyre binary (default: %(default)s)")
    binary = parser.parse_args().binary
    if not os.access(binary, os.X_OK):
        sys.exit(f"no gyre binary at {binary}: build it, or name one with --binary")
    started = time.monotonic()
    with GyreCluster(binary) as cluster:
        ports = cluster.addresses
        print(f"three nodes: {' '.join(ports)}")
        try:
            tour(cluster, ports)
        except (Broken, TimeoutError) as error:
            print(f"✗ {error}\n{cluster.logs()}")
            return 1
    print(f"tour passed in {time.monotonic() - started:.0f} s")
    return 0


def tour(cluster, ports):
    """All steps in order."""
    three_ports(ports)
    expires = time.monotonic() + LIFETIME_SECONDS
    expect(ports[0], "OK", "set", "brief", "v", "ex", str(LIFETIME_SECONDS))
    write(ports[0], "whole")
    one_killed(cluster, ports)
    two_killed(cluster, ports)
    restarted(cluster, ports)
    expired(ports, expires)


def three_ports(ports):
    """set, get and del, each on another port."""
    for i, port in enumerate(ports):
        after, last = ports[(i + 1) % 3], ports[(i + 2) % 3]
        expect(port, "OK", "set", f"k{i}", f"value {i}")
        expect(after, f"value {i}", "get", f"k{i}")
        expect(last, "1", "del", f"k{i}")
        expect(port, "", "get", f"k{i}")
        expect(port, "OK", "set", f"timed{i}", "v", "ex", "100")
        left = int(cli(after, "ttl", f"timed{i}"))
        check(97 <= left <= 100, f"TTL on another port is {left}")
    done("set, get, del and `set k v ex` work on three ports, each seeing the others' writes")


def one_killed(cluster, ports):
    """QUORUM keeps serving, without an error, from the moment of the kill."""
    cluster.kill(2)
    for port in ports[:2]:
        read(port, "whole")
    write(ports[0], "degraded")
    read(ports[1], "degraded")
    expect(ports[1], "1", "incr", "counter")
    expect(ports[0], "2", "incr", "counter")
    done("one node killed: QUORUM serves every read and write")


def two_killed(cluster, ports):
    """QUORUM is refused with a plain reason; ONE serves what is held."""
    cluster.kill(1)
    wait_until("QUORUM is refused with UNAVAILABLE", lambda: refused(ports[0]), NOTICE_SECONDS)
    reply = cli(ports[0], "get", "whole:0")
    check(reply.startswith("UNAVAILABLE") and "needed 2" in reply, f"a read at QUORUM answers {reply!r}")
    done(f"two nodes killed: QUORUM answers `{reply.strip()}`")
    commands = ["CONSISTENCY ONE"] + [f"GET degraded:{i}" for i in range(KEYS)] + ["SET alone v", "GET alone"]
    found = script(ports[0], commands)
    check(found == ["OK", *(f"degraded {i}" for i in range(KEYS)), "OK", "v"], f"at ONE: {found[:5]}…")
    done("ONE still serves reads and writes of keys held")


def refused(port):
    """Whether a write at QUORUM is refused as unavailable."""
    return cli(port, "set", "refused", "v").startswith("UNAVAILABLE")


def restarted(cluster, ports):
    """Everything acknowledged is there on every port, also what a node missed."""
    cluster.start(1)
    cluster.start(2)
    wait_serving(cluster, ports)
    for port in ports:
        read(port, "whole")
        read(port, "degraded")
        expect(port, "2", "get", "counter")
    write(ports[2], "healed")
    read(ports[0], "healed")
    for index in range(3):
        cluster.processes[index].end()
    done("nodes restarted: all data is there on every port")
    for index in range(3):
        cluster.start(index)
    wait_serving(cluster, ports)
    for port in ports:
        read(port, "whole")
        read(port, "degraded")
        read(port, "healed")
    check(all(is_formed(port, 3) for port in ports), "the cluster is whole")
    done("the whole cluster stopped with SIGTERM and started again: all data is there")


def wait_serving(cluster, ports):
    """Waits until each node reports the cluster and all its workers have links to enough replicas to answer at QUORUM."""
    cluster.wait_ready()
    for port in ports:
        wait_until(f"{port} serves QUORUM", lambda p=port: serves(p), NOTICE_SECONDS)


def serves(port):
    """Whether QUORUM is served whichever worker is asked: connections go to the workers in turn."""
    return all(cli(port, "get", "none") == "" for _ in range(2 * os.cpu_count()))


def expired(ports, expires):
    """The key with a lifetime has gone everywhere."""
    time.sleep(max(0.0, expires - time.monotonic()) + 0.1)
    for port in ports:
        expect(port, "0", "exists", "brief")
    done(f"the key set with `ex {LIFETIME_SECONDS}` has expired, across restarts")


class Broken(Exception):
    """A claim that does not hold."""


def write(port, name):
    """Sets `KEYS` keys of this name through one connection."""
    replies = script(port, [f'SET {name}:{i} "{name} {i}"' for i in range(KEYS)])
    check(replies == ["OK"] * KEYS, f"SET {name}:… on {port} answers {replies[:3]}…")


def read(port, name):
    """Reads the keys of `write`."""
    replies = script(port, [f"GET {name}:{i}" for i in range(KEYS)])
    check(replies == [f"{name} {i}" for i in range(KEYS)], f"GET {name}:… on {port} answers {replies[:3]}…")


def expect(port, reply, *command):
    """Runs a command and fails unless it answers `reply`."""
    answer = cli(port, *command)
    check(answer == reply, f"`{' '.join(command)}` on {port}: expected {reply!r}, got {answer!r}")


def cli(address, *command):
    """What `redis-cli command…` prints."""
    return run_cli(address, list(command), None).strip()


def script(address, commands):
    """The lines that redis-cli prints for commands on its standard input."""
    return run_cli(address, [], "\n".join(commands) + "\n").splitlines()


def run_cli(address, command, stdin):
    host, port = split(address)
    done = subprocess.run(
        ["redis-cli", "-h", host, "-p", str(port), *command],
        input=stdin, capture_output=True, text=True, timeout=CLI_SECONDS, check=False,
    )  # fmt: skip
    check(not done.stderr.startswith("Could not connect"), f"{address}: {done.stderr.strip()}")
    return done.stdout


def check(holds, claim):
    """Fails with `claim` unless it holds."""
    if not holds:
        raise Broken(claim)


def done(claim):
    """Prints a claim that held."""
    print(f"✓ {claim}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
