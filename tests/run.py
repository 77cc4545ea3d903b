"""
Runs the tests and counts them: ``python -m tests.run --all``, or the names of stages or tests.

Each stage is a process of its own (``tests.stage``), so that neither a crash nor a reactor left
dirty spoils the next. The last line is ``N passed, N failed, N skipped``; the exit status is 0 only
when something ran and nothing failed.
"""

from __future__ import annotations

import abc
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, ".cache", "tests")

TRIAL_STAGES: dict[str, tuple[str, ...]] = {
    "unit": ("tests.unit", "tests.contract", "tests.conformance"),
    "integration": ("tests.integration",),
    "faults": ("tests.faults",),
    "compat": ("compat",),
}
CHECKS: dict[str, tuple[str, ...]] = {
    "types": ("-m", "mypy"),
    "style": ("-m", "ruff", "check", "--quiet"),
    "format": ("-m", "ruff", "format", "--quiet", "--diff"),
}
LATER = ("integration", "faults", "compat")  # they load the machine: nothing runs beside them

INTERPRETERS = os.path.join(ROOT, ".cache", "pythons", "list")
"""What ``tools/python-interpreters`` found: version, and interpreter if there is one."""


@dataclass
class Outcome:
    """What a stage, or all of them, came to. A test that failed in several ways is one failure."""

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # test -> report
    skipped: dict[str, str] = field(default_factory=dict)  # test -> reason

    def add(self, other: Outcome) -> None:
        """Take the results of another stage in."""
        self.passed += other.passed
        self.failed.update(other.failed)
        self.skipped.update(other.skipped)

    @property
    def line(self) -> str:
        """The last line of every run."""
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


class Stage(abc.ABC):
    """One child process. ``start`` it, then ``finish`` waits for it and reads what it found."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.output = os.path.join(WORK, f"{name}.out")

    def start(self) -> None:
        """Start the process; its output goes to a file."""
        self.began = time.monotonic()
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> Outcome:
        """Wait for the end and report it in one line; failures in full."""
        try:
            status = self.process.wait()
        except BaseException:
            self.process.terminate()
            self.process.wait()
            raise
        outcome = self.results(status)
        print(f"{self.name:<12} {outcome.line}, {time.monotonic() - self.began:.1f} s", flush=True)
        for test, report in outcome.failed.items():
            print(f"\n--- FAILED {test}\n{report}", flush=True)
        return outcome

    @abc.abstractmethod
    def results(self, status: int) -> Outcome:
        """The outcome of a process that ended with ``status``."""

    def tail(self) -> str:
        """The end of what the process printed."""
        with open(self.output, encoding="utf-8", errors="replace") as output:
            return output.read()[-20000:].rstrip()


class Check(Stage):
    """A program that judges the code with its exit status; counted as one test."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [sys.executable, *CHECKS[name]])

    def results(self, status: int) -> Outcome:
        """One passed, or one failed with everything the program said."""
        return Outcome(passed=1) if status == 0 else Outcome(failed={self.name: self.tail()})


class TrialStage(Stage):
    """Test modules under trial. The child journals every event, so that a crash loses nothing."""

    def __init__(self, name: str, tests: tuple[str, ...], python: str = sys.executable) -> None:
        self.journal = os.path.join(WORK, f"{name}.jsonl")
        directory = os.path.join(WORK, f"trial-{name}")
        command = [python, "-bb", "-m", "tests.stage", self.journal, directory, *tests]
        self.where = "" if python == sys.executable else f" ({name})"  # behind names of tests
        super().__init__(name, command)

    def start(self) -> None:
        """Forget the journal of an earlier run, then start."""
        if os.path.exists(self.journal):
            os.unlink(self.journal)
        super().start()

    def results(self, status: int) -> Outcome:
        """The journal's results; a test that had begun when the process died failed."""
        passed: set[str] = set()
        outcome = Outcome()
        running = finished = ""
        for event in self.events():
            test = event["test"] + self.where
            if event["what"] == "start":
                running = test
            elif event["what"] == "pass":
                passed.add(test)
            elif event["what"] == "fail":
                outcome.failed[test] = outcome.failed.get(test, "") + event["text"]
            elif event["what"] == "skip":
                outcome.skipped[test] = event["text"]
            elif event["what"] == "done":
                finished = "yes"
        if not finished:
            victim = running or f"{self.name} (the stage itself)"
            outcome.failed[victim] = f"the process ended with status {status}\n{self.tail()}"
        outcome.passed = len(passed - outcome.failed.keys() - outcome.skipped.keys())
        return outcome

    def events(self) -> list[dict[str, str]]:
        """The lines of the journal; the last may be cut off."""
        if not os.path.exists(self.journal):
            return []
        with open(self.journal, encoding="utf-8") as journal:
            return [json.loads(line) for line in journal if line.endswith("\n")]


def stage(name: str) -> Stage:
    """The stage of that name; any other name is a package, module, class or method of tests."""
    if name in CHECKS:
        return Check(name)
    if name in TRIAL_STAGES:
        return TrialStage(name, TRIAL_STAGES[name])
    if name in (pythons := further_pythons()):
        return TrialStage(name, TRIAL_STAGES["unit"], pythons[name] or sys.executable)
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


def run_in_turn(names: tuple[str, ...], total: Outcome) -> None:
    """One stage after the other."""
    for name in names:
        current = stage(name)
        current.start()
        total.add(current.finish())


def run_all(total: Outcome) -> None:
    """Everything, in the order in which failures are cheapest to find."""
    pythons = further_pythons()
    print(f"Python {platform.python_version()}, and for the unit tests also", *pythons, flush=True)
    units = [stage(name) for name in ("unit", *pythons) if pythons.get(name, "this one")]
    for each in units:
        each.start()
    run_in_turn(tuple(CHECKS), total)  # beside the unit tests
    for each in units:
        total.add(each.finish())
    for name, python in pythons.items():
        if python is None:
            print(f"{name:<12} skipped, there is no such Python here", flush=True)
            total.skipped[name] = "no such Python on this machine, nor in its package registries"
    prepare_compat()
    run_in_turn(LATER, total)


def prepare_compat() -> None:
    """Build the Java side now: its downloads must not eat the time limit of the first test."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.javabuild"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
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
    run_in_turn(tuple(options.names), total)
    print_skipped(total.skipped)
    if total.failed:
        print("\nfailed:", *total.failed, sep="\n    ")
    with open(os.path.join(WORK, "count"), "w", encoding="ascii") as file:
        print(total.line, file=file)
    print(f"\n{total.line}", flush=True)
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())
