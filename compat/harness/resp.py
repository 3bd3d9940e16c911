"""A RESP2 client of a page, so that the harness can ask a server something without a client library.

It is no runner: nothing here counts as a client that works. Errors come back as `RespError` values.
"""

import socket
import time


class RespError(Exception):
    """An error reply (`-CODE text`) of the server."""

    @property
    def code(self):
        """The first word, which clients act on: `ERR`, `UNAVAILABLE`, …"""
        return str(self).split(" ", 1)[0]


class Resp:
    """One connection to one server; `call` sends a command and returns its reply."""

    def __init__(self, address, timeout_s=5.0):
        host, port = split(address)
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection; a second call does nothing."""
        self.reader.close()
        self.socket.close()

    def call(self, *arguments):
        """The reply to a command; raises `RespError` for an error reply, `OSError` for a lost connection."""
        self.socket.sendall(encode(arguments))
        reply = self._read()
        if isinstance(reply, RespError):
            raise reply
        return reply

    def _read(self):
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RespError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bulk(int(rest))
        if kind == b"*":
            return None if int(rest) < 0 else [self._read() for _ in range(int(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line[:80]!r}")

    def _bulk(self, length):
        if length < 0:
            return None
        data = self.reader.read(length + 2)
        if len(data) != length + 2:
            raise ConnectionError("the server closed the connection in mid-reply")
        return data[:-2]


def split(address):
    """`host:port` as `(host, port)`."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def encode(arguments):
    """A command as a RESP array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def cluster_info(address, timeout_s=1.0):
    """`CLUSTER INFO` of a server as a dict, or an empty one while it does not answer."""
    try:
        with Resp(address, timeout_s) as connection:
            text = connection.call("CLUSTER", "INFO").decode()
    except (OSError, RespError, ValueError, AttributeError):
        return {}
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def wait_until(claim, holds, deadline_s, every_s=0.05):
    """Asks `holds()` until it is true; raises `TimeoutError` naming `claim` after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {claim}")
        time.sleep(every_s)
