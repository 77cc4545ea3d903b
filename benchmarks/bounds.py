"""
The figures that must not get worse: everything that is required beside the ratios of the cells, on
brokers of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import brokers, crowds, endurance, largelogs, timers, transactions
from benchmarks.report import Check
from benchmarks.rounds import Log

STEADY_SECONDS = 20.0
LATENCY_RATIO = 1.0
"""The 99th percentile at the steady rate, ours over the Java broker's."""


def run(options: argparse.Namespace, directory: Path, zookeeper_port: int, log: Log) -> list[Check]:
    """What the options ask for; without any, everything but the soak."""
    everything = not (options.quick or options.cells or options.no_cells)
    names = options.servers.split(",")
    steady: dict[str, float] = {}
    checks: list[Check] = []
    for name, start in (("java", brokers.start_java), ("ours", brokers.start_ours)):
        if name not in names:
            continue
        fresh = partial(start, directory / f"{name}-alone", zookeeper_port)
        found: list[Check] = []
        if options.steady or everything:
            found += endurance.steady_checks(fresh, STEADY_SECONDS, log)
            steady[name] = next(check.value for check in found if check.name.endswith(": p99"))
        if options.memory or everything:
            found += endurance.memory_checks(fresh, log)
            found += transactions.open_checks(fresh, log)
        if options.soak and name == "ours":
            found += endurance.soak_checks(fresh, options.soak_mode, options.soak, log)
        for check in found:
            log(str(check))
        if name == "ours":  # the Java broker's are for comparison; they decide nothing
            checks += found
    if len(steady) == 2:
        name = f"{endurance.STEADY_RATE} put/s: p99 over Java's"
        checks.append(Check(name, steady["ours"] / steady["java"], LATENCY_RATIO, False))
    if "ours" in names:
        fresh = partial(brokers.start_ours, directory / "ours-alone", zookeeper_port)
        checks += _of_ours(options, fresh, directory, zookeeper_port, everything, log)
    if options.recovery or everything:
        checks += _recovery(options, directory, zookeeper_port, log)
    return checks


def _of_ours(
    options: argparse.Namespace,
    start: endurance.Start,
    directory: Path,
    zookeeper_port: int,
    everything: bool,
    log: Log,
) -> list[Check]:
    """Figures without a counterpart of the Java broker's."""
    parts: list[tuple[bool, Callable[[], list[Check]]]] = [
        (options.crowds, lambda: crowds.checks(start, options.seconds, log)),
        (
            options.large_logs,
            lambda: largelogs.checks(directory / "large", zookeeper_port, options.seconds, log),
        ),
        (
            options.timers,
            lambda: timers.checks(directory / "timers", zookeeper_port, options.seconds, log),
        ),
    ]
    found: list[Check] = []
    for wanted, measure in parts:
        if wanted or everything:
            some = measure()
            for check in some:
                log(str(check))
            found += some
    return found


def _recovery(
    options: argparse.Namespace, directory: Path, zookeeper_port: int, log: Log
) -> list[Check]:
    """A start with a large journal, which our broker writes for both."""
    starters: dict[str, Callable[[Path, int, brokers.Layout], brokers.Server]] = {
        "java": brokers.start_java,
        "ours": brokers.start_ours,
    }
    if "java" not in options.servers.split(","):
        del starters["java"]
    mib = options.journal_size or (64 if options.quick else 1024)
    rounds = options.rounds or (1 if options.quick else 3)
    return transactions.recovery_checks(starters, directory, zookeeper_port, mib, rounds, log)
