"""The frame of a Python runner: its arguments, its cases one by one, its JSON lines.

A runner prints one line per case: `{"client", "case", "ok", "detail", "ms"}`. A case is a function (or a
coroutine function) of the `Job`; it fails by raising. Each case has its own deadline and opens its own
connections, so that one failure does not spill into the next case.
"""

import argparse
import asyncio
import contextlib
import inspect
import json
import signal
import time
import traceback
from dataclasses import dataclass

CASE_SECONDS = 40
DETAIL_MAX = 500


@dataclass(frozen=True)
class Job:
    """What the orchestrator asks of one runner."""

    client: str
    entry: str
    nodes: list
    cluster_entry: str
    cases: list
    prefix: str
    many: int
    flush: bool

    def key(self, case, name=""):
        """A key of this run and case; one case's keys share a hash tag, so that cluster drivers take them."""
        return f"{{{self.prefix}:{case}}}:{name}"

    def spread(self, case, name=""):
        """Like `key`, but without a tag: such keys lie in different slots."""
        return f"{self.prefix}:{case}:{name}"


def parse_arguments():
    """The job described by the command line; the same flags for the runners of every language."""
    parser = argparse.ArgumentParser()
    for flag in ("--client", "--entry", "--nodes", "--cluster-entry", "--cases", "--prefix"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--flush", action="store_true")
    given = vars(parser.parse_args())
    given["nodes"] = given["nodes"].split(",")
    given["cases"] = given["cases"].split(",")
    return Job(**given)


def run(cases):
    """Runs the cases of the job that `cases` (name -> function) knows and reports each."""
    job = parse_arguments()
    for name in job.cases:
        started = time.monotonic()
        try:
            run_case(cases[name], job)
            detail, passed = "", True
        except BaseException as error:  # a runner reports whatever ended a case, KeyboardInterrupt too
            detail, passed = describe(error), False
        report(job.client, name, passed, detail, started)


def run_case(case, job):
    """One case under its deadline."""
    if inspect.iscoroutinefunction(case):
        asyncio.run(asyncio.wait_for(case(job), CASE_SECONDS))
        return
    with deadline(CASE_SECONDS):
        case(job)


@contextlib.contextmanager
def deadline(seconds):
    """Raises `TimeoutError` in blocking code after `seconds`."""

    def expired(*_):
        raise TimeoutError(f"the case took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def describe(error):
    """An exception in one line, with the place in the runner that raised it."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "/compat/clients/" in frame.filename:
            place = f" at {frame.filename.rsplit('/', 1)[1]}:{frame.lineno} `{frame.line}`"
    return f"{type(error).__name__}: {error}{place}"[:DETAIL_MAX]


def report(client, case, ok, detail, started):
    """Prints the JSON line of a case that began at `started` (monotonic seconds)."""
    ms = round((time.monotonic() - started) * 1000)
    print(json.dumps({"client": client, "case": case, "ok": ok, "detail": detail, "ms": ms}), flush=True)


def equal(actual, expected, what=""):
    """Fails unless the two are equal; the message shows both, shortened."""
    if actual != expected:
        raise AssertionError(f"{what or 'reply'}: expected {short(expected)}, got {short(actual)}")


def between(actual, low, high, what=""):
    """Fails unless `low <= actual <= high`."""
    if not low <= actual <= high:
        raise AssertionError(f"{what or 'reply'}: expected {low}..{high}, got {short(actual)}")


def short(value):
    """A value as text of bounded length."""
    text = repr(value if not isinstance(value, (bytes, str)) else value[:120])
    return text if len(text) <= 160 else f"{text[:160]}… ({len(value) if hasattr(value, '__len__') else '?'})"


def pattern(size):
    """`size` bytes that repeat with a long odd period, so that a misplaced chunk is seen."""
    period = bytes((i * 7 + (i >> 8) * 13 + (i >> 16)) & 0xFF for i in range(65_537))
    return (period * (size // len(period) + 1))[:size]
