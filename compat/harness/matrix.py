"""The matrix: which client runs which cases, and how its runner is started."""

import os
import sys
from dataclasses import dataclass

from harness import packages

CLIENTS = os.path.join(packages.HERE, "clients")
NODE = os.path.join(packages.HERE, "node")

COMMON = [
    "connect", "set", "strings", "binary", "empty", "unicode", "1mib", "64mib", "pipeline", "expiry",
    "counters", "mget-mset", "del-exists", "scan", "errors", "unknown", "reconnect",
]  # fmt: skip
PLAIN_ONLY = ["databases", "nodes"]
CLI = ["resp3", "follow", "formats", "bigkeys", "memkeys", "stat", "latency", "terminal"]
BENCHMARK = ["bench", "bench-p16", "bench-resp3", "bench-threads", "bench-cluster"]

# Left out by `--quick`.
SLOW = {"64mib"}


@dataclass(frozen=True)
class Client:
    """A client (or one mode of it): its name in the table, its runner, whether it is a cluster driver."""

    name: str
    runtime: str
    runner: str
    cluster: bool = False
    own_cases: tuple = ()

    @property
    def cases(self):
        """The cases this client runs, in order."""
        if self.runner == "redis_benchmark.py":
            return list(self.own_cases)
        shared = COMMON if self.cluster else COMMON + PLAIN_ONLY
        return shared + list(self.own_cases)

    def command(self):
        """The command line of the runner and its environment; installs packages on the way."""
        if self.runtime == "rust":
            return [packages.rust_runner()], {}
        if self.runtime == "node":
            return ["node", os.path.join(NODE, self.runner)], {"NODE_PATH": packages.node_path()}
        interpreter = packages.python() if self.runtime == "venv" else sys.executable
        return [interpreter, "-B", os.path.join(CLIENTS, self.runner)], {"PYTHONPATH": packages.HERE}


ALL = [
    Client("redis-cli", "python", "redis_cli.py", own_cases=tuple(CLI)),
    Client("redis-benchmark", "python", "redis_benchmark.py", own_cases=tuple(BENCHMARK)),
    Client("redis-py-resp2", "venv", "redis_py.py"),
    Client("redis-py-resp3", "venv", "redis_py.py"),
    Client("redis-py-asyncio", "venv", "redis_py.py"),
    Client("redis-py-cluster", "venv", "redis_py.py", cluster=True),
    Client("redis-py-cluster-asyncio", "venv", "redis_py.py", cluster=True),
    Client("glide", "venv", "glide_runner.py"),
    Client("glide-cluster", "venv", "glide_runner.py", cluster=True),
    Client("node-redis", "node", "node_redis.js"),
    Client("node-redis-resp2", "node", "node_redis.js"),
    Client("node-redis-cluster", "node", "node_redis.js", cluster=True),
    Client("ioredis", "node", "ioredis.js"),
    Client("ioredis-cluster", "node", "ioredis.js", cluster=True),
    Client("redis-rs", "rust", "gyre-compat"),
    Client("redis-rs-async", "rust", "gyre-compat"),
    Client("redis-rs-cluster", "rust", "gyre-compat", cluster=True),
    Client("redis-rs-cluster-async", "rust", "gyre-compat", cluster=True),
    Client("fred", "rust", "gyre-compat"),
    Client("fred-resp3", "rust", "gyre-compat"),
    Client("fred-cluster", "rust", "gyre-compat", cluster=True),
]
