"""
A stage of a test run as a child process: a program that judges the code, or test modules under
trial (``tests.stage``).
"""

from __future__ import annotations

import abc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, ".cache", "tests")


PURE = {"METAQ_NATIVE": "0"}
"""In the environment of the stage ``pure``: what the part in C does is done by the Python beside
it, which is what a machine without a compiler runs."""

SHORTER = {
    "CRASH_STRIDE": "8",
    "METAMORPHOSIS_FUZZ_STREAMS": "500",
    "MODEL_STEPS": "3000",
    "SEEDS_SHARE": "8",
    "TURN_FRAMES": "4000",
    "TWIN_FRAMES": "20000",
    "TWIN_PIECES": "500",
    "TWIN_STREAMS": "500",
}
"""In the environment of the unit tests on other Pythons, and of those of the stage ``pure``: tests
that try much at random, or each call in turn, are about our code and not about the interpreter."""

CHECKS: dict[str, tuple[str, ...]] = {
    "types": ("-m", "mypy"),
    "style": ("-m", "ruff", "check", "--quiet"),
    "format": ("-m", "ruff", "format", "--quiet", "--diff"),
    "documents": ("-m", "sphinx", "-qEW", "--keep-going", "docs", "build/documents"),
}
FIRST_PORT, PORTS = 20000, 4000  # for the servers of the first worker; the next has the following

MEMORY = "/dev/shm"
"""A file system in memory, where unit tests keep their files: they flush often, and half of their
time was spent waiting for the disk."""
PLENTY = 6 << 30  # bytes that must be free there and in all: three stages at a time, 0.7 GiB each


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
    """
    One child process. ``start`` it, then ``finish`` waits for it and reads what it found.

    :ivar environment: what the process has in its environment beside that of this one.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.output = os.path.join(WORK, f"{name}.out")
        self.environment: dict[str, str] = {}

    def start(self, worker: int = 0) -> None:
        """
        Start the process; its output goes to a file.

        :param worker: which of those that run at the same time; its servers have ports of their
            own, so that none takes the port of another that is restarted just now.
        """
        first_port = FIRST_PORT + worker * PORTS
        self.worker = worker
        self.began = time.monotonic()
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **self.environment,
                    "TEST_PORTS": f"{first_port}-{first_port + PORTS - 1}",
                },
            )

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.poll() is None

    def terminate(self) -> None:
        """End the process before its time."""
        self.process.terminate()
        self.process.wait()

    def finish(self) -> Outcome:
        """The outcome of the process, which has ended. A line about it; failures in full."""
        outcome = self.results(self.process.wait())
        seconds = time.monotonic() - self.began
        print(f"{self.name:<13} {outcome.line}, {seconds:.1f} s", flush=True)
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
        self.directory = directory_of(name)
        command = [python, "-bb", "-m", "tests.stage", self.journal, self.directory, *tests]
        is_usual = python == sys.executable and name != "pure"
        self.where = "" if is_usual else f" ({name})"  # behind names of tests
        super().__init__(name, command)
        if name == "pure":
            self.environment = {**SHORTER, **PURE}
        elif not is_usual:
            self.environment = SHORTER

    def start(self, worker: int = 0) -> None:
        """Forget the journal of an earlier run, then start."""
        if os.path.exists(self.journal):
            os.unlink(self.journal)
        super().start(worker)

    def finish(self) -> Outcome:
        """See ``Stage``; memory is given back."""
        outcome = super().finish()
        self._forget_files()
        return outcome

    def terminate(self) -> None:
        """See ``Stage``; memory is given back."""
        super().terminate()
        self._forget_files()

    def _forget_files(self) -> None:
        if self.directory.startswith(MEMORY):
            shutil.rmtree(self.directory, ignore_errors=True)

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


def directory_of(name: str) -> str:
    """Where the tests of a stage keep their files: unit tests in memory, if there is plenty."""
    if name.startswith(("unit", "pure")) and min(free_in_memory()) >= PLENTY:
        checkout = hashlib.sha256(ROOT.encode()).hexdigest()[:8]
        return os.path.join(MEMORY, f"metamorphosis-{checkout}-{name}")
    return os.path.join(WORK, f"trial-{name}")


def free_in_memory() -> tuple[int, int]:
    """The bytes that are free in the file system in memory, and those that are available in all."""
    try:
        state = os.statvfs(MEMORY)
        with open("/proc/meminfo", encoding="ascii") as file:
            found = re.search(r"MemAvailable: +(\d+) kB", file.read())
    except OSError:
        return 0, 0
    return state.f_bavail * state.f_frsize, int(found[1]) << 10 if found else 0
