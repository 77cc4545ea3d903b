"""
How late the timers of our broker come under full load: a timer of 1 kHz in its process, which
``timerprobe`` puts there.
"""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

from benchmarks import brokers
from benchmarks.brokers import Layout
from benchmarks.load import generate
from benchmarks.memory import warm_free_pages
from benchmarks.processes import BenchmarkError
from benchmarks.report import Check
from benchmarks.rounds import REPEATS, Log, undisturbed

LIMIT_MS = 5.0
LEAST_SECONDS = 3.0
LOADS = ("16/64/100", "16/64/1024", "200/1/1024")


def checks(directory: Path, zookeeper_port: int, seconds: float, log: Log) -> list[Check]:
    """Each of the loads, on one broker; repeated while other work disturbs it."""
    report = directory.with_name(f"{directory.name}.json")
    server = brokers.start_ours(directory, zookeeper_port, Layout(), probe=report)
    try:
        return [_check(server, load, max(seconds, LEAST_SECONDS), report, log) for load in LOADS]
    finally:
        server.stop()


def _check(server: brokers.Server, load: str, seconds: float, report: Path, log: Log) -> Check:
    connections, window, size = load.split("/")
    options = ["-m", "put", "-t", "bench", "-c", connections, "-w", window, "-b", size]
    run_load = partial(generate, server, options, seconds, 0.5)
    for _ in range(1 + REPEATS):
        warm_free_pages()
        os.kill(server.pid, signal.SIGUSR1)
        run = run_load()
        os.kill(server.pid, signal.SIGUSR2)
        late = read_report(report)
        log(
            f"timer of 1 kHz at put {load}: late by {late['p50']:.2f} ms at the median,"
            f" p99 {late['p99']:.2f}, max {late['max']:.1f} ms; {run.rate:.0f} put/s,"
            f" other work {run.other_cpu:.0f} %"
        )
        if undisturbed(run):
            break
    return Check(f"p99 of a 1 kHz timer at put {load}", late["p99"], LIMIT_MS, False, " ms")


def read_report(path: Path) -> dict[str, float]:
    """What the probe has written, as soon as it has; in milliseconds."""
    deadline = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the timer has not written {path}")
        time.sleep(0.02)
    found: dict[str, float] = json.loads(path.read_text())
    path.unlink()
    return found
