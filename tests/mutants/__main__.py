"""
Plants seeded faults and lists those that no unit test notices: ``python -m tests.mutants store
broker/filters``. The status is 0 only when each was noticed or stands in ``equivalent.txt``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

from tests.mutants.planting import Fault, faults_of
from tests.run import ROOT, further_pythons

WORK = os.path.join(ROOT, ".cache", "mutants")
EQUIVALENT = os.path.join(ROOT, "tests", "mutants", "equivalent.txt")
COPIED = ("metamorphosis", "tests", "compat", "benchmarks", "twisted", "docs", "contrib", "tools")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md")
MOST_SECONDS = 120.0
"""Of the tests of one fault, besides ``SLOWER`` times what they took when they were recorded: what
takes longer hangs, however busy the machine is."""
SLOWER = 20.0
NOTICED, SURVIVED, EQUAL = "noticed", "survived", "equivalent"

Coverage = dict[str, tuple[float, dict[str, list[int]]]]


TAKEN = os.path.join(WORK, "taken")
"""The tree as it was at the start; whoever works on meanwhile does not matter."""


def copy_tree(copy: str, source: str = TAKEN) -> str:
    """A copy of the tree without what was built; its path. The work tree is never changed."""
    shutil.rmtree(copy, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "target", "bin", "*.egg-info", "dropin.cache")
    for directory in COPIED:
        shutil.copytree(
            os.path.join(source, directory), os.path.join(copy, directory), ignore=ignore
        )
    for file in FILES:
        shutil.copy(os.path.join(source, file), copy)
    return copy


def modules(names: list[str]) -> dict[str, bytes]:
    """The sources of ``store`` or ``broker/filters``, by path."""
    found: dict[str, bytes] = {}
    for name in names:
        top = os.path.join(TAKEN, "metamorphosis", name)
        paths = [f"{top}.py"] if os.path.exists(f"{top}.py") else []
        for directory, _, files in os.walk(top):
            paths += [os.path.join(directory, file) for file in files if file.endswith(".py")]
        if not paths:
            raise SystemExit(f"mutants: metamorphosis/{name} is no module and no package")
        for path in sorted(paths):
            with open(path, "rb") as source:
                found[os.path.relpath(path, TAKEN)] = source.read()
    return found


def coverage() -> Coverage:
    """Which test executes which lines; recorded anew when code or tests have changed."""
    state = hashlib.sha256()
    for top in ("metamorphosis", "tests"):
        for directory, _, files in sorted(os.walk(os.path.join(TAKEN, top))):
            for file in sorted(files):
                if file.endswith(".py"):
                    with open(os.path.join(directory, file), "rb") as source:
                        state.update(source.read())
    path = os.path.join(WORK, f"coverage-{state.hexdigest()[:16]}.json")
    if not os.path.exists(path):
        began = time.monotonic()
        command = [recording_python(), "-m", "tests.mutants.coverage", path]
        with open(f"{path}.out", "wb") as output:
            subprocess.run(
                command, cwd=copy_tree(f"{path}.tree"), stdout=output, stderr=output, check=True
            )
        print(f"recorded what the tests execute, {time.monotonic() - began:.0f} s", flush=True)
    with open(path, encoding="utf-8") as file:
        found: Coverage = json.load(file)
    return found


def recording_python() -> str:
    """One from 3.12 on, which records at a tenth of the cost, if there is one."""
    others = [python for python in further_pythons().values() if python]
    return sys.executable if sys.version_info >= (3, 12) or not others else others[0]


class Tests:
    """Which tests may notice a fault: those that execute its line, likely and quick ones first."""

    def __init__(self, recorded: Coverage) -> None:
        self._seconds = {test: seconds for test, (seconds, _) in recorded.items()}
        self._lines: dict[tuple[str, int], list[str]] = {}
        self._modules: dict[str, list[str]] = {}
        for test, (_, files) in recorded.items():
            for path, lines in files.items():
                self._modules.setdefault(path, []).append(test)
                for line in lines:
                    self._lines.setdefault((path, line), []).append(test)

    def seconds(self, tests: list[str]) -> float:
        """What they took when they were recorded."""
        return sum(self._seconds[test] for test in tests)

    def of(self, fault: Fault) -> list[str]:
        """Those of the module for what is executed when it is imported."""
        found = self._lines.get((fault.path, fault.line), [])
        if not found:  # executed at the import, as the body of a class is; or never
            found = self._modules.get(fault.path, [])
        own = "test_" + os.path.basename(fault.path)[:-3]
        cost: dict[str, float] = {}
        for test in found:
            cost[_module(test)] = cost.get(_module(test), 0.0) + self._seconds[test]

        def order(test: str) -> tuple[bool, float, str, float]:
            module = _module(test)
            return f".{own}." not in test, cost[module], module, self._seconds[test]

        return sorted(found, key=order)


def _module(test: str) -> str:
    return test.rsplit(".", 2)[0]


class Trial:
    """
    Tries faults, several at a time, each in a copy of the tree of its own.

    :param until: monotonic; no further fault is planted afterwards.
    """

    def __init__(self, sources: dict[str, bytes], tests: Tests, jobs: int, until: float) -> None:
        self._sources = sources
        self._tests = tests
        self._until = until
        self._copies: Queue[str] = Queue()
        self._jobs = jobs
        for number in range(jobs):
            self._copies.put(copy_tree(os.path.join(WORK, f"tree-{number}")))

    def outcomes(self, faults: list[Fault]) -> Iterator[tuple[Fault, str]]:
        """
        Each fault and whether it was noticed, as far as the time goes.

        :raises SystemExit: the tests fail without a fault, so they say nothing.
        """
        tests = next(filter(None, map(self._tests.of, faults)), [])
        failed = self._failed(os.path.join(WORK, "tree-0"), tests) if tests else None
        if failed is not None:
            raise SystemExit(f"mutants: a test fails without a fault: {failed}")
        with ThreadPoolExecutor(self._jobs) as pool:
            for fault, outcome in zip(faults, pool.map(self._try, faults), strict=True):
                if outcome is not None:
                    yield fault, outcome

    def _try(self, fault: Fault) -> str | None:
        if time.monotonic() > self._until:
            return None
        tests = self._tests.of(fault)
        if not tests:
            return SURVIVED
        copy = self._copies.get()
        path, source = os.path.join(copy, fault.path), self._sources[fault.path]
        try:
            _write(path, fault.apply(source))
            return SURVIVED if self._failed(copy, tests) is None else NOTICED
        finally:
            _write(path, source)
            self._copies.put(copy)

    def _failed(self, copy: str, tests: list[str]) -> str | None:
        """The test that failed, or what else tells of the fault; None if nothing does."""
        names = os.path.join(copy, "tests.txt")
        with open(names, "w", encoding="utf-8") as file:
            file.write("\n".join(tests))
        command = [sys.executable, "-bb", "-m", "tests.mutants.trying", names, f"{copy}/trial"]
        limit = MOST_SECONDS + SLOWER * self._tests.seconds(tests)
        try:
            done = subprocess.run(
                command, cwd=copy, capture_output=True, timeout=limit, check=False, text=True
            )
        except subprocess.TimeoutExpired:
            return f"no end within {limit:.0f} s"
        if not done.returncode:
            return None
        return (done.stdout.split() or done.stderr.splitlines() or ["no output"])[-1]


_versions = iter(range(10**9, 2 * 10**9, 10))


def _write(path: str, source: bytes) -> None:
    """With a time of its own: Python tells by it whether what it has compiled is still right."""
    with open(path, "wb") as file:
        file.write(source)
    version = next(_versions)
    os.utime(path, (version, version))


def known_equivalents() -> dict[str, str]:
    """Keys of faults that change nothing that can be seen -> the reason."""
    with open(EQUIVALENT, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return dict(line.split(" | ", 1) for line in lines)


def main() -> int:
    """Plant, try, report."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="+", help="packages or modules, like store or broker/filters"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="faults a package at most")
    parser.add_argument("--seconds", type=float, default=1200, help="no further one afterwards")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    copy_tree(TAKEN, ROOT)
    sources, equivalents = modules(options.names), known_equivalents()
    trial = Trial(sources, Tests(coverage()), options.jobs, time.monotonic() + options.seconds)
    missed = 0
    for name in options.names:
        faults = [
            each for path, source in modules([name]).items() for each in faults_of(path, source)
        ]
        chosen = random.Random(f"{options.seed} {name}").sample(
            faults, min(options.count, len(faults))
        )
        counts: Counter[str] = Counter()
        for fault, outcome in trial.outcomes(
            [each for each in chosen if each.key not in equivalents]
        ):
            counts[outcome] += 1
            if outcome == SURVIVED:
                print(f"{fault.path}:{fault.line} {fault.key.split(' ', 1)[1]}", flush=True)
        counts[EQUAL] = sum(each.key in equivalents for each in chosen)
        missed += counts[SURVIVED]
        tried = counts[NOTICED] + counts[SURVIVED]
        share = 100 * counts[NOTICED] / tried if tried else 100.0
        print(
            f"{name}: of {len(faults)} possible faults {tried} tried, {counts[NOTICED]} noticed"
            f" ({share:.1f} %), {counts[SURVIVED]} not; {counts[EQUAL]} known to change nothing",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
