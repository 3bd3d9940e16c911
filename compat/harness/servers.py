"""The servers a run talks to: three `gyre server` processes, or real Redis as the reference.

Every process started here is a child of its own session, is remembered, and is ended by its own pid.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

from harness.resp import Resp, RespError, cluster_info, wait_until

READY_SECONDS = 60.0
STOP_SECONDS = 15.0


def free_ports(count):
    """`count` different ports that were free on loopback a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Process:
    """One server process with its log file."""

    def __init__(self, command, log_path):
        self.log_path = log_path
        # Settings of the shell that started the run (GYRE_PORT, …) are not meant for these servers.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GYRE_")}
        with open(log_path, "ab") as log:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=environment,
            )  # fmt: skip

    def running(self):
        """Whether the process has not ended."""
        return self.child.poll() is None

    def end(self, how=signal.SIGTERM):
        """Sends `how`, then SIGKILL if the process is still there after `STOP_SECONDS`."""
        if not self.running():
            return
        self.child.send_signal(how)
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(STOP_SECONDS)

    def log_tail(self, lines=15):
        """The last lines of the log, for a failure report."""
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-lines:])


class GyreCluster:
    """Three Gyre nodes on loopback in a temporary directory, formed from the same seeds."""

    def __init__(self, binary, nodes=3, extra=()):
        self.binary = os.path.abspath(binary)
        self.extra = list(extra)
        self.directory = tempfile.mkdtemp(prefix="gyre-compat-")
        ports = free_ports(2 * nodes)
        self.ports, self.peer_ports = ports[:nodes], ports[nodes:]
        self.processes = [None] * nodes

    @property
    def addresses(self):
        """`host:port` of every node, running or not."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    def __enter__(self):
        try:
            for index in range(len(self.ports)):
                self.start(index)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, index):
        """Starts node `index` (again) on its own directory and ports."""
        seeds = ",".join(f"127.0.0.1:{port}" for port in self.peer_ports)
        home = os.path.join(self.directory, f"node{index}")
        os.makedirs(home, exist_ok=True)
        command = [self.binary, "server", "--dir", home, "--bind", "127.0.0.1"]
        command += ["--port", str(self.ports[index]), "--peer-port", str(self.peer_ports[index])]
        command += ["--seeds", seeds, *self.extra]
        self.processes[index] = Process(command, os.path.join(self.directory, f"node{index}.log"))

    def kill(self, index):
        """Ends node `index` as a crash would: SIGKILL."""
        self.processes[index].end(signal.SIGKILL)

    def wait_ready(self):
        """Waits until every node says that the cluster is formed; raises with the logs if it is not."""
        try:
            wait_until("every node reports cluster_state:ok and all nodes", self._ready, READY_SECONDS)
        except (TimeoutError, RuntimeError) as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from error

    def _ready(self):
        for index, process in enumerate(self.processes):
            if not process.running():
                raise RuntimeError(f"node {index} ended with status {process.child.returncode}")
        return all(is_formed(address, len(self.ports)) for address in self.addresses)

    def logs(self):
        """The last log lines of every node."""
        started = [(index, process) for index, process in enumerate(self.processes) if process]
        return "\n".join(f"--- node {index}\n{process.log_tail()}" for index, process in started)

    def stop(self):
        """Ends every node and removes the directory."""
        for process in self.processes:
            if process:
                process.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class RedisReference:
    """Real Redis: one standalone server for plain clients, a cluster of three for the cluster drivers."""

    def __init__(self, binary="redis-server"):
        self.binary = binary
        self.directory = tempfile.mkdtemp(prefix="redis-reference-")
        self.processes = []
        self.plain, *self.cluster = [f"127.0.0.1:{port}" for port in self._ports()]

    @staticmethod
    def _ports():
        """Four ports whose cluster bus ports (+ 10,000) are valid too."""
        for _ in range(100):
            ports = free_ports(4)
            if max(ports) <= 55_535:
                return ports
        raise RuntimeError("no four free ports below 55,536")

    def __enter__(self):
        try:
            for index, address in enumerate([self.plain, *self.cluster]):
                self._start(index, address)
            for address in [self.plain, *self.cluster]:
                wait_until(f"Redis answers on {address}", lambda a=address: answers(a), READY_SECONDS)
            self._create_cluster()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self, index, address):
        home = os.path.join(self.directory, str(index))
        os.makedirs(home)
        command = [self.binary, "--port", address.split(":")[1], "--bind", "127.0.0.1", "--dir", home]
        command += ["--save", "", "--appendonly", "no"]
        if index > 0:
            command += ["--cluster-enabled", "yes"]
        self.processes.append(Process(command, os.path.join(self.directory, f"{index}.log")))

    def _create_cluster(self):
        command = ["redis-cli", "--cluster", "create", *self.cluster, "--cluster-yes"]
        subprocess.run(command, check=True, timeout=READY_SECONDS, stdout=subprocess.DEVNULL)
        for address in self.cluster:
            wait_until(f"{address} is in the cluster", lambda a=address: is_formed(a, 3), READY_SECONDS)

    def stop(self):
        """Ends every server and removes the directory."""
        for process in self.processes:
            process.end()
        shutil.rmtree(self.directory, ignore_errors=True)


def answers(address):
    """Whether the server at `address` answers PING."""
    try:
        with Resp(address, 1.0) as connection:
            return connection.call("PING") == "PONG"
    except (OSError, RespError):
        return False


def is_formed(address, nodes):
    """Whether the server at `address` sees a working cluster of `nodes` nodes."""
    info = cluster_info(address)
    return info.get("cluster_state") == "ok" and info.get("cluster_known_nodes") == str(nodes)
