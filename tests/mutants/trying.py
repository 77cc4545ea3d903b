"""Tries faults, several at a time, each job in a copy of the tree of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from queue import Queue
from typing import Final, NamedTuple

from tests.mutants.coverage import Coverage
from tests.mutants.host import NOTICED, SURVIVED, UNPLANTED
from tests.mutants.planting import Fault

MOST_SECONDS: Final = 60.0
"""Of the tests that are tried for one fault, as they were recorded, the likeliest first. A fault
that only later ones would notice counts as one that none does."""
LONG_SECONDS: Final = 6.0
"""A test that takes longer is tried only for the module that it is named after."""

_versions = iter(range(10**9 + random.randrange(10**8), 2 * 10**9, 10))


class Outcome(NamedTuple):
    """
    What became of a fault.

    :ivar test: the one that noticed it.
    :ivar tried: how many were run for a fault that none noticed.
    """

    what: str
    test: str
    tried: int


class Tests:
    """
    Which tests may notice a fault: those that execute its line, likely and quick ones first.

    :param noticed: key of a fault -> the test that noticed it last time; it goes first.
    """

    def __init__(self, recorded: Iterable[Coverage], noticed: dict[str, str]) -> None:
        self._noticed = noticed
        self._seconds: dict[str, float] = {}
        self._lines: dict[tuple[str, int], list[str]] = {}
        self._modules: dict[str, list[str]] = {}
        for coverage in recorded:
            for test, (seconds, files) in coverage.items():
                self._seconds[test] = seconds
                for path, lines in files.items():
                    self._modules.setdefault(path, []).append(test)
                    for line in lines:
                        self._lines.setdefault((path, line), []).append(test)

    def of(self, fault: Fault) -> list[tuple[str, float]]:
        """
        Those that execute the line; those of the module for what its import executes, by name where
        nothing else of the module is ever executed.

        :returns: names and seconds.
        """
        found = self._lines.get((fault.path, fault.line), [])
        package = f".{fault.path.split('/')[1].removesuffix('.py')}."
        named = fault.path.removesuffix("/__init__.py").removesuffix(".py")
        module = f".test_{os.path.basename(named)}."
        if fault.imported or not found:
            found = self._modules.get(fault.path) or [
                test for test in self._seconds if module in test
            ]
        last = self._noticed.get(fault.key)

        def order(test: str) -> tuple[bool, bool, bool, float]:
            own = module in test
            return test != last, not own, package not in test, self._seconds[test]

        chosen: list[tuple[str, float]] = []
        total = 0.0
        for test in sorted(found, key=order):
            seconds = self._seconds[test]
            if seconds > LONG_SECONDS and module not in test and test != last:
                continue
            total += seconds
            if total < MOST_SECONDS or not chosen:
                chosen.append((test, seconds))
        return chosen


class Host:
    """
    A process that runs tests (``tests.mutants.host``).

    :param anew: each request imports the modules again.
    """

    def __init__(self, copy: str, anew: bool) -> None:
        command = [sys.executable, "-bb", "-m", "tests.mutants.host", f"{copy}/trial"]
        self._errors = f"{copy}/host.err"
        with open(self._errors, "ab") as errors:
            self._process = subprocess.Popen(
                [*command, *(["--anew"] if anew else [])],
                cwd=copy,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answer()

    def run(
        self,
        tests: list[tuple[str, float]],
        path: str = "",
        before: bytes = b"",
        after: bytes = b"",
    ) -> tuple[str, str]:
        """The outcome, and the test that made it."""
        assert self._process.stdin is not None
        request = path, before.decode(), after.decode(), tests
        print(json.dumps(request), file=self._process.stdin, flush=True)
        what, test = json.loads(self._answer())
        return what, test

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"mutants: a process that runs tests ended, see {self._errors}")
        return line

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Job:
    """One copy of the tree, and the processes in it."""

    def __init__(self, copy: str) -> None:
        self._copy = copy
        self._swapping = Host(copy, anew=False)
        self._anew = Host(copy, anew=True)
        self._sound: dict[str, bool] = {}

    def outcome(self, fault: Fault, source: bytes, tests: list[tuple[str, float]]) -> Outcome:
        """A test that fails without the fault as well says nothing, and is left out."""
        while tests:
            what, test = self._swapping.run(tests, fault.path, source, fault.apply(source))
            if what == UNPLANTED:
                what, test = self._imported(fault, source, tests)
            if what != NOTICED:
                break
            name = test.partition(",")[0]
            if self._is_sound(name, tests):
                return Outcome(NOTICED, test, 0)
            tests = [each for each in tests if each[0] != name]
        return Outcome(SURVIVED, "", len(tests))

    def _imported(
        self, fault: Fault, source: bytes, tests: list[tuple[str, float]]
    ) -> tuple[str, str]:
        path = os.path.join(self._copy, fault.path)
        _write(path, fault.apply(source))
        try:
            return self._anew.run(tests)
        finally:
            _write(path, source)

    def _is_sound(self, name: str, tests: list[tuple[str, float]]) -> bool:
        known = self._sound.get(name)
        if known is None:
            alone = [each for each in tests if each[0] == name]
            known = not alone or self._swapping.run(alone)[0] == SURVIVED
            self._sound[name] = known
        return known

    def close(self) -> None:
        """End the processes."""
        self._swapping.close()
        self._anew.close()
        shutil.rmtree(f"{self._copy}/trial", ignore_errors=True)


class Trial:
    """
    :param sources: of the modules, by path.
    :param copies: of the tree, one a job.
    """

    def __init__(self, sources: dict[str, bytes], tests: Tests, copies: list[str]) -> None:
        self._sources = sources
        self._tests = tests
        self._jobs: Queue[Job] = Queue()
        for copy in copies:
            self._jobs.put(Job(copy))

    def outcome(self, fault: Fault) -> Outcome:
        """What becomes of a fault. Thread: one of as many as there are jobs."""
        tests = self._tests.of(fault)
        job = self._jobs.get()
        try:
            return job.outcome(fault, self._sources[fault.path], tests)
        finally:
            self._jobs.put(job)

    def close(self) -> None:
        """End all processes."""
        while not self._jobs.empty():
            self._jobs.get().close()


def _write(path: str, source: bytes) -> None:
    """With a time of its own: Python tells by it whether what it has compiled is still right."""
    with open(path, "wb") as file:
        file.write(source)
    version = next(_versions)
    os.utime(path, (version, version))
