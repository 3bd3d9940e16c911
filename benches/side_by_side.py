#!/usr/bin/env python3
"""Gyre beside redis-server, in the same run, on the same cores, with redis-benchmark as the client.

All servers run all the time; rounds are interleaved, so that whatever else the machine does hits all alike, and a
measurement begins when the servers are idle. Every key is loaded first: each GET hits. Results are medians over the
rounds: throughput and its ratio to Redis, p50 and p99, CPU seconds and context switches per million operations of
all server processes, peak memory. Prints a table, writes JSON and an SVG.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from side import measure, report  # noqa: E402
from side.systems import DEFAULT_SYSTEMS, ROOT, SYSTEMS, load  # noqa: E402

TESTS = ("set", "get", "incr")
VALUE_BYTES = 64


def main():
    """Runs the comparison."""
    options = arguments()
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"no gyre binary at {options.binary}: build it, or name one with --binary")
    cases = [(test, pipeline) for pipeline in options.pipelines for test in options.only]
    machine, running = about_machine(), {}
    try:
        for name in options.systems:
            running[name] = SYSTEMS[name](options.binary)
        for name, system in running.items():
            started = time.monotonic()
            load(system.port, options.keys, VALUE_BYTES)
            print(f"loaded {options.keys:,} keys into {name} in {time.monotonic() - started:.1f} s", flush=True)
        rounds = run_rounds(running, cases, options)
        peaks = {name: measure.peak_bytes(system.pids) for name, system in running.items()}
    finally:
        for system in running.values():
            system.stop()
    publish(rounds, peaks, cases, machine, options)


def run_rounds(running, cases, options):
    """Every case on every system, `options.rounds` times; another system begins each round."""
    names, results = list(running), []
    all_pids = [pid for system in running.values() for pid in system.pids]
    for number in range(options.rounds):
        for test, pipeline in cases:
            requests = options.requests * (4 if pipeline > 1 else 1)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                system = running[name]
                measure.wait_idle(all_pids)
                run = measure.run(system.port, system.pids, test, pipeline, requests, options.keys, VALUE_BYTES)
                results.append({"round": number, "system": name, "test": test, "pipeline": pipeline, **run})
                label = f"round {number + 1}/{options.rounds}  {test.upper():4} P={pipeline:<2}  {name:8}"
                print(f"{label} {run['rps']:>10,.0f} op/s  p99 {run['p99_ms']:.3f} ms", flush=True)
    return results


def publish(rounds, peaks, cases, machine, options):
    """Prints the table, writes the files."""
    titles = {name: SYSTEMS[name].title for name in options.systems}
    summary = report.summarise(rounds, options.systems, cases)
    subtitle = f"{machine['cpu']}, {machine['cores']} cores shared by servers and client; commit {machine['commit']}"
    print(f"\n{subtitle}\n{options.rounds} rounds, {measure.CLIENTS} clients, {VALUE_BYTES} B values, "
          f"{options.keys:,} keys\n")  # fmt: skip
    print(report.table(summary, titles, peaks))
    os.makedirs(options.out, exist_ok=True)
    settings = {name: getattr(options, name) for name in ("rounds", "requests", "keys", "systems")}
    document = {"machine": machine, "options": settings, "summary": summary, "peak_bytes": peaks, "rounds": rounds}
    path = os.path.join(options.out, "side_by_side")
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    with open(f"{path}.svg", "w", encoding="utf-8") as file:
        file.write(report.chart(summary, titles, subtitle))
    print(f"\nwritten: {path}.json, {path}.svg")


def about_machine():
    """What the figures depend on."""
    def line(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return done.stdout.strip()

    with open("/proc/cpuinfo", encoding="utf-8") as info:
        models = [text.partition(":")[2].strip() for text in info if text.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "redis": line("redis-server", "--version"),
        "commit": line("git", "rev-parse", "--short", "HEAD") or "unknown",
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    binary = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "dist", "gyre")
    parser.add_argument("--binary", default=binary, help="gyre binary (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=200_000, help="requests a test; four times as many with a pipeline")
    parser.add_argument("--keys", type=int, default=1_000_000, help="key space, loaded before (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds, 20,000 requests, 50,000 keys: does it run at all?")
    parser.add_argument("--only", default=",".join(TESTS), help=f"tests, of {','.join(TESTS)}")
    parser.add_argument("--pipelines", default="1,16", help="requests a pipeline (default: %(default)s)")
    parser.add_argument("--systems", default=",".join(DEFAULT_SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--out", default=os.path.join(ROOT, "bench-results"), help="where the files go")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.requests, options.keys = 2, 20_000, 50_000
    options.only, options.systems = options.only.lower().split(","), options.systems.split(",")
    options.pipelines = [int(number) for number in options.pipelines.split(",")]
    unknown = [word for word in options.only if word not in TESTS]
    unknown += [word for word in options.systems if word not in SYSTEMS]
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}")
    if options.rounds < 1 or min(options.pipelines) < 1:
        parser.error("rounds and pipelines begin at 1")
    return options


if __name__ == "__main__":
    main()
