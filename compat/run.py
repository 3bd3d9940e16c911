#!/usr/bin/env python3
"""Runs existing Redis clients against a three-node Gyre cluster and prints a table client × case.

Every client has a runner (see README.md for the cases); it is started once per node, with that node as the
entry. Without `--hosts` three `gyre server` processes are started for the run and ended after it.
`--reference` runs the same matrix against real Redis, which proves the runners.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import matrix, table  # noqa: E402
from harness.resp import Resp, RespError  # noqa: E402
from harness.servers import GyreCluster, RedisReference  # noqa: E402

RUNNER_SECONDS = 120
MANY, MANY_QUICK = 10_000, 1_000
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    """Starts what is needed, runs the matrix, prints and writes the results; the exit status of the run."""
    options = parse_arguments()
    clients = [client for client in matrix.ALL if chosen(options.client, client.name)]
    if not clients:
        sys.exit(f"no such client; there are: {' '.join(client.name for client in matrix.ALL)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended then too
    started = time.monotonic()
    with servers(options) as (plain, cluster):
        results = run_matrix(options, clients, plain, cluster)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"seconds": round(time.monotonic() - started, 1), "results": results}, file, indent=1)
    print(table.render(clients, results))
    print(table.failures(results))
    print(f"in {time.monotonic() - started:.0f} s")
    failed = sum(not result["ok"] for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


def parse_arguments():
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    default = os.environ.get("GYRE_BINARY") or os.path.join(ROOT, "target", "dist", "gyre")
    parser.add_argument("--hosts", help="h:p,h:p,h:p of a running cluster, which is not flushed")
    parser.add_argument("--binary", default=default, help="gyre binary to start (default: %(default)s)")
    parser.add_argument("--reference", action="store_true", help="real Redis instead of Gyre")
    parser.add_argument("--client", action="append", help="only clients whose name starts so; repeatable")
    parser.add_argument("--case", action="append", help="only this case; repeatable")
    parser.add_argument("--entries", type=int, default=3, help="how many nodes to use as the entry")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer sizes")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    return parser.parse_args()


def chosen(filters, name):
    """Whether a client of this name was asked for."""
    return not filters or any(name.startswith(each) for each in filters)


@contextlib.contextmanager
def servers(options):
    """The addresses of the nodes for plain clients and for cluster drivers, while the servers run."""
    if options.hosts:
        nodes = options.hosts.split(",")
        yield nodes, nodes
    elif options.reference:
        with RedisReference() as redis:
            yield [redis.plain] * 3, redis.cluster
    else:
        if not os.access(options.binary, os.X_OK):
            sys.exit(f"no gyre binary at {options.binary}: build it, or name one with --binary")
        with GyreCluster(options.binary) as gyre:
            yield gyre.addresses, gyre.addresses


def run_matrix(options, clients, plain, cluster):
    """The results of every client with every entry."""
    results = []
    for client in clients:
        cases = [case for case in client.cases if wanted(options, case)]
        if not cases:
            continue
        try:
            command, environment = client.command()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            results += [outcome(client, case, "-", False, f"not installed: {error}") for case in cases]
            continue
        for number in range(min(options.entries, len(cluster))):
            nodes = cluster if client.cluster else plain
            job = describe(client, nodes, cluster, number, cases, options)
            found = run_one(client, command + job, environment, cases, nodes[number])
            results += found
            progress(client, nodes[number], found)
            if not options.hosts:
                flush(set(plain + cluster))
    return results


def wanted(options, case):
    """Whether a case was asked for."""
    if options.case:
        return case in options.case
    return not (options.quick and case in matrix.SLOW)


def describe(client, nodes, cluster, number, cases, options):
    """The arguments of one runner."""
    arguments = ["--client", client.name, "--entry", nodes[number], "--nodes", ",".join(nodes)]
    arguments += ["--cluster-entry", cluster[number], "--cases", ",".join(cases)]
    arguments += ["--prefix", f"compat:{client.name}:{number}:{os.getpid()}"]
    arguments += ["--many", str(MANY_QUICK if options.quick else MANY)]
    return arguments if options.hosts else [*arguments, "--flush"]


def run_one(client, command, environment, cases, entry):
    """Runs one runner to its end, or to `RUNNER_SECONDS`; a case without a line has failed."""
    child = subprocess.Popen(
        command, env={**os.environ, **environment}, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = child.communicate(timeout=RUNNER_SECONDS)
        ending = f"the runner ended with {child.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, errors = child.communicate()
        ending = f"the runner was killed after {RUNNER_SECONDS} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    lines = {line["case"]: line for line in parse_lines(output)}
    tail = errors.decode(errors="replace").strip()[-600:]
    results = []
    for case in cases:
        line = lines.get(case)
        if line:
            results.append(outcome(client, case, entry, line["ok"], line["detail"], line["ms"]))
        else:
            results.append(outcome(client, case, entry, False, f"no result; {ending} {tail}"))
    return results


def parse_lines(output):
    """The JSON lines of a runner; anything else it printed is left out."""
    for line in output.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            parsed = json.loads(line)
            if isinstance(parsed, dict) and "case" in parsed:
                yield parsed


def outcome(client, case, entry, ok, detail, ms=0):
    """One result."""
    return {"client": client.name, "case": case, "entry": entry, "ok": ok, "detail": detail, "ms": ms}


def progress(client, entry, found):
    """One line on standard error per runner, so that a long run is seen to move."""
    failed = [result["case"] for result in found if not result["ok"]]
    seconds = sum(result["ms"] for result in found) / 1000
    verdict = "FAILED " + " ".join(failed) if failed else "ok"
    print(f"{client.name:26}{entry:18}{seconds:6.1f} s  {verdict}", file=sys.stderr, flush=True)
    for result in found:
        if not result["ok"]:
            print(f"    {result['case']}: {result['detail'].strip()[:200]}", file=sys.stderr, flush=True)


def flush(addresses):
    """Empties servers that belong to this run, so that each runner meets the same database."""
    for address in sorted(addresses):
        with contextlib.suppress(OSError, RespError), Resp(address, 30.0) as connection:
            connection.call("FLUSHALL")


if __name__ == "__main__":
    sys.exit(main())
