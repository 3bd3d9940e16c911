"""A program on a pseudo-terminal of 50 × 200, typed at and read like a person would."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

WAIT_SECONDS = 10
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The program runs while the `with` block does; its output is read without colours and cursor moves."""

    def __init__(self, command):
        self.command = command
        self.seen = b""

    def __enter__(self):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        try:
            self.child = subprocess.Popen(
                self.command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
            )
        finally:
            os.close(slave)
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(WAIT_SECONDS)
        os.close(self.master)

    def type(self, text):
        """Types `text`, character for character as a terminal sends it."""
        for character in text:
            os.write(self.master, character.encode())

    def until(self, text):
        """Reads until `text` appears and returns everything up to and with it; fails after ten seconds."""
        end = time.monotonic() + WAIT_SECONDS
        wanted = text.encode()
        while wanted not in self.seen:
            self._read_more(end, text)
        position = self.seen.index(wanted) + len(wanted)
        found, self.seen = self.seen[:position], self.seen[position:]
        return found.decode(errors="replace")

    def ask(self, line, answer, prompt="> "):
        """Types a line at the prompt, waits for `answer` and the next prompt; returns what stood between.

        The answer must not be part of the line, which is echoed. Nothing may be typed before the prompt is
        there: redis-cli drops what arrived earlier.
        """
        self.type(line)
        self.type("\r")
        self.until(answer)
        return self.until(prompt)

    def lines(self, count):
        """The next `count` lines."""
        return [self.until("\n") for _ in range(count)]

    def wait(self):
        """The exit status of the program."""
        return self.child.wait(WAIT_SECONDS)

    def _read_more(self, end, text):
        left = end - time.monotonic()
        if left <= 0 or not select.select([self.master], [], [], left)[0]:
            raise AssertionError(f"the terminal never showed {text!r} but {self.seen[-300:]!r}")
        data = b""
        with contextlib.suppress(OSError):  # EIO: the program has gone
            data = os.read(self.master, 65536)
        if not data:
            raise AssertionError(f"the program ended before it showed {text!r}: {self.seen[-300:]!r}")
        self.seen = ESCAPE.sub(b"", self.seen + data)
