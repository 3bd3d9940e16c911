"""What is measured against what: redis-server, one Gyre node, three Gyre nodes.

Processes are those of compat/harness: each is a child that is remembered and ended by its own pid.
"""

import os
import shutil
import socket
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "compat"))

from harness.resp import wait_until  # noqa: E402
from harness.servers import GyreCluster, Process, answers, free_ports  # noqa: E402

READY_SECONDS = 60.0
BATCH_KEYS = 500
LOAD_TIMEOUT_SECONDS = 120.0


class Redis:
    """redis-server as its users run it for durability: append-only file, fsync every second."""

    name, title = "redis", "Redis, appendonly everysec"

    def __init__(self, _binary):
        self.directory = tempfile.mkdtemp(prefix="gyre-bench-redis-")
        self.port = free_ports(1)[0]
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        self.process = Process(command, os.path.join(self.directory, "log"))
        try:
            address = f"127.0.0.1:{self.port}"
            wait_until("redis-server answers", lambda: answers(address), READY_SECONDS)
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self):
        """Its processes."""
        return [self.process.child.pid]

    def stop(self):
        """Ends the process and removes its data."""
        self.process.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class Gyre:
    """A Gyre cluster; clients talk to its first node. `flags` are given to every node."""

    nodes = 1
    flags = ()

    def __init__(self, binary):
        self.cluster = GyreCluster(binary, self.nodes, ["--appendfsync", "everysec", *self.flags])
        self.cluster.__enter__()
        self.port = self.cluster.ports[0]

    @property
    def pids(self):
        """Its processes."""
        return [process.child.pid for process in self.cluster.processes]

    def stop(self):
        """Ends the processes and removes their data."""
        self.cluster.stop()


class One(Gyre):
    """One node that keeps each key once."""

    name, title = "one", "Gyre, 1 node, RF 1"
    flags = ("--replication-factor", "1")


class OneWorker(One):
    """The same with one worker thread, as redis-server has one."""

    name, title = "one-w1", "Gyre, 1 node, RF 1, 1 worker"
    flags = (*One.flags, "--workers", "1")


class Three(Gyre):
    """Three nodes on this machine, each key on all, QUORUM (the default level).

    One worker a node: the three share the cores that one node has for itself in production.
    """

    name, title = "three", "Gyre, 3 nodes, RF 3, QUORUM"
    nodes = 3
    flags = ("--workers", "1")


class ThreeAllCores(Three):
    """The same with a worker for each core in each node."""

    name, title = "three-wn", "Gyre, 3 nodes, RF 3, QUORUM, all workers"
    flags = ()


SYSTEMS = {system.name: system for system in (Redis, One, OneWorker, Three, ThreeAllCores)}
DEFAULT_SYSTEMS = ("redis", "one", "three")


def load(port, keys, value_bytes):
    """Sets every key that redis-benchmark -r `keys` may ask for, so that each GET hits."""
    value = b"x" * value_bytes
    with socket.create_connection(("127.0.0.1", port), LOAD_TIMEOUT_SECONDS) as connection:
        connection.settimeout(LOAD_TIMEOUT_SECONDS)
        for first in range(0, keys, BATCH_KEYS):
            batch = range(first, min(first + BATCH_KEYS, keys))
            connection.sendall(
                b"".join(
                    b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n" % (key, value_bytes, value)
                    for key in batch
                )
            )
            expect_oks(connection, len(batch))


def expect_oks(connection, count):
    """Reads `count` replies, all of which must be OK."""
    expected = b"+OK\r\n" * count
    received = b""
    while len(received) < len(expected):
        part = connection.recv(65536)
        if not part:
            raise RuntimeError("the server closed the connection while keys were loaded")
        received += part
        if not expected.startswith(received):
            raise RuntimeError(f"a key could not be loaded: {received[-200:]!r}")
