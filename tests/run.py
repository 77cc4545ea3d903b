"""
Runs the tests and counts them: ``python -m tests.run --all``, or the names of stages or tests.

Each stage is a process of its own (``tests.stage``), so that neither a crash nor a reactor left
dirty spoils the next. ``--all`` runs three stages at a time, because those with processes wait half
of their time: for a session to expire, a process to start. The last line is ``N passed, N failed, N
skipped``; the exit status is 0 only when something ran and nothing failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable

from tests.stageprocess import CHECKS, ROOT, WORK, Check, Outcome, Stage, TrialStage

TRIAL_STAGES: dict[str, tuple[str, ...]] = {
    "unit": ("tests.unit", "tests.contract", "tests.conformance"),
    "integration": ("tests.integration",),
    "faults": ("tests.faults",),
    "compat": ("compat",),
    "pure": (
        "tests.unit.broker",
        "tests.unit.store",
        "tests.unit.replication.pairmaster",
        "tests.unit.client.delivery",
        "tests.unit.client.fetch",
        "tests.unit.client.network",
        "tests.unit.client.producer",
        "tests.unit.transactions.test_scan",
        "tests.conformance",
        "tests.faults.test_live_fuzz",
        "compat.test_sidebyside",
    ),
}

ABOUT_SOURCES = (
    "test_architecture",
    "test_conformance_pages",
    "test_differences",
    "test_layers",
    "test_links",
    "test_loglines",
    "test_pictures",
    "test_sizes",
)
"""Unit tests that read sources and pages: one Python is enough for them."""

WORKERS = 3  # stages at a time
LATER = ("faults", "compat", "integration-1", "integration-2", "pure")
"""The stages that wait much, the longest first. Those with the unit tests of other Pythons, which
never wait, go between them."""
PARTS = 2  # of the integration tests, of about the same length
SECONDS = {  # of the integration tests that take longest; others take about SECONDS_OF_OTHERS
    "test_newuser": 50,
    "test_examples": 30,
    "test_cli": 45,
    "test_clocks": 35,
    "test_lifecycle": 30,
    "test_local": 28,
    "test_zookeeper_outage": 25,
    "test_zookeeper_rules": 25,
    "test_zookeeper_differential": 25,
    "test_administration": 20,
    "test_native_build": 20,
    "test_offset_stores": 20,
    "test_twophase": 20,
    "test_orderly_stop": 17,
    "test_zookeeper_faults": 15,
    "test_zookeeper_losses": 15,
    "test_client_transactions": 13,
    "test_producing": 10,
    "test_readme": 10,
}
SECONDS_OF_OTHERS = 6

BUILD_JAVA = (sys.executable, "-m", "tests.support.javabuild")
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
POLL_SECONDS = 0.1
INTERPRETERS = os.path.join(ROOT, ".cache", "pythons", "list")
"""What ``tools/python-interpreters`` found: version, and interpreter if there is one."""


def stage(name: str) -> Stage:
    """The stage of that name; any other name is a package, module, class or method of tests."""
    if name in CHECKS:
        return Check(name)
    if name in TRIAL_STAGES:
        return TrialStage(name, TRIAL_STAGES[name])
    if name in (parts := integration_parts()):
        return TrialStage(name, parts[name])
    if name in (pythons := further_pythons()):
        return TrialStage(name, tests_of_pythons(), pythons[name] or sys.executable)
    return TrialStage(re.sub(r"[^\w.]", "_", name), (name,))


def further_pythons() -> dict[str, str | None]:
    """
    The unit tests on other Pythons than this one: name of the stage -> interpreter, None where
    there is none.
    """
    if not os.path.exists(INTERPRETERS):
        return {}
    with open(INTERPRETERS, encoding="utf-8") as file:
        lines = [line.split() for line in file]
    return {
        f"unit-{version}": os.path.join(ROOT, *python) if python else None
        for version, *python in lines
    }


def tests_of_pythons() -> tuple[str, ...]:
    """What runs on the other Pythons: the stage ``unit`` without the tests about the sources."""
    package = os.path.join(ROOT, "tests", "unit")
    named = re.compile(r"(test_\w+)\.py$|([a-z]\w*)$")
    found = (match[1] or match[2] for match in map(named.match, os.listdir(package)) if match)
    units = sorted(f"tests.unit.{name}" for name in found if name not in ABOUT_SOURCES)
    return (*units, *TRIAL_STAGES["unit"][1:])


def integration_parts() -> dict[str, tuple[str, ...]]:
    """The modules of the integration tests in parts: each goes to the part that is shortest yet,
    the longest module first."""
    package = os.path.join(ROOT, "tests", "integration")
    names = sorted(name[:-3] for name in os.listdir(package) if re.match(r"test_\w+\.py$", name))
    parts: list[list[str]] = [[] for _ in range(PARTS)]
    lengths = [0] * PARTS
    for name in sorted(names, key=seconds_of, reverse=True):
        shortest = lengths.index(min(lengths))
        parts[shortest].append(f"tests.integration.{name}")
        lengths[shortest] += seconds_of(name)
    return {f"integration-{number}": tuple(part) for number, part in enumerate(parts, 1)}


def seconds_of(module: str) -> int:
    """How long the module takes, about."""
    return SECONDS.get(module, SECONDS_OF_OTHERS)


def run_stages(names: Iterable[str], workers: int, total: Outcome) -> None:
    """Run the stages in this order, so many at a time."""
    waiting = deque(names)
    free = set(range(workers))
    running: list[Stage] = []
    try:
        while waiting or running:
            while waiting and free:
                if waiting[0] == "compat":
                    prepare_compat()
                running.append(stage(waiting.popleft()))
                running[-1].start(free.pop())
            time.sleep(POLL_SECONDS)
            for ended in [each for each in running if not each.is_running]:
                running.remove(ended)
                free.add(ended.worker)
                total.add(ended.finish())
    finally:
        for each in running:
            each.terminate()


def run_all(total: Outcome) -> None:
    """Everything, in the order in which failures are cheapest to find."""
    pythons = further_pythons()
    print(f"Python {platform.python_version()}, and for the unit tests also", *pythons, flush=True)
    for name, python in pythons.items():
        if python is None:
            print(f"{name:<13} skipped, there is no such Python here", flush=True)
            total.skipped[name] = "no such Python on this machine, nor in its package registries"
    building = subprocess.Popen(BUILD_JAVA, cwd=ROOT, **QUIET)  # downloads, mostly
    try:
        units = [name for name, python in pythons.items() if python]
        run_stages(("unit", *CHECKS, *mixed(LATER, units)), WORKERS, total)
    finally:
        building.terminate()
        building.wait()


def mixed(stages: Iterable[str], others: Iterable[str]) -> list[str]:
    """The stages, with one of the others after each two of them."""
    left = deque(others)
    found: list[str] = []
    for number, name in enumerate(stages, 1):
        found.append(name)
        if number % 2 == 0 and left:
            found.append(left.popleft())
    return found + list(left)


def prepare_compat() -> None:
    """Wait until the Java side is built: that must not eat the time limit of the first test."""
    if subprocess.run(BUILD_JAVA, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
        print("the tests with the original Java software will be skipped", flush=True)


def print_skipped(skipped: dict[str, str]) -> None:
    """Every skipped test by name, under its reason."""
    for reason, count in Counter(skipped.values()).most_common():
        print(f"\nskipped, {count}: {reason}")
        for test in sorted(test for test, why in skipped.items() if why == reason):
            print(f"    {test}")


def main() -> int:
    """Run what the arguments name; the exit status."""
    parser = argparse.ArgumentParser(prog="tests.run", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every stage")
    parser.add_argument("names", nargs="*", help=f"{', '.join([*CHECKS, *TRIAL_STAGES])}, or tests")
    options = parser.parse_args()
    if not options.all and not options.names:
        parser.error("name stages or tests, or say --all")
    os.makedirs(WORK, exist_ok=True)
    total = Outcome()
    if options.all:
        run_all(total)
    run_stages(options.names, 1, total)
    print_skipped(total.skipped)
    if total.failed:
        print("\nfailed:", *total.failed, sep="\n    ")
    with open(os.path.join(WORK, "count"), "w", encoding="ascii") as file:
        print(total.line, file=file)
    print(f"\n{total.line}", flush=True)
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())
