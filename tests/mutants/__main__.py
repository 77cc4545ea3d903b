"""
Plants seeded faults and lists those that no unit test notices: ``python -m tests.mutants store
broker/filters``. The status is 0 only when each was noticed or stands in ``equivalent.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.coverage import record
from tests.mutants.host import NO_END, NOTICED, SURVIVED
from tests.mutants.planting import Fault, sample
from tests.mutants.trying import Outcome, Tests, Trial
from tests.run import further_pythons
from tests.stageprocess import ROOT

WORK = os.path.join(ROOT, ".cache", "mutants")
EQUIVALENT = os.path.join(ROOT, "tests", "mutants", "equivalent.txt")
COPIED = ("metamorphosis", "tests", "compat", "benchmarks", "twisted", "docs", "contrib", "tools")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md")
EQUAL = "equivalent"

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


def recording_python() -> str:
    """One from 3.12 on, which records at a tenth of the cost, if there is one."""
    others = [python for python in further_pythons().values() if python]
    return sys.executable if sys.version_info >= (3, 12) or not others else others[0]


def known_equivalents() -> dict[str, str]:
    """Keys of faults that change nothing that can be seen -> the reason."""
    with open(EQUIVALENT, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return dict(line.rsplit(" | ", 1) for line in lines)


def seen_before(path: str) -> dict[str, str]:
    """Key of a fault -> the test that noticed it."""
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, str] = json.load(file)
    except FileNotFoundError:
        return {}
    return found


def try_package(name: str, chosen: list[Fault], trial: Trial, options: argparse.Namespace) -> int:
    """Try the faults of a package and say what came of them; how many were not noticed."""
    equivalents = known_equivalents()
    path = os.path.join(WORK, f"noticed-{name.replace('/', '-')}.json")
    noticed = seen_before(path)
    counts: Counter[str] = Counter()
    stuck = 0

    def outcome(fault: Fault) -> Outcome | None:
        late = time.monotonic() > options.until
        return None if late else trial.outcome(fault)

    wanted = [each for each in chosen if each.key not in equivalents]
    with ThreadPoolExecutor(options.jobs) as pool:
        for fault, found in zip(wanted, pool.map(outcome, wanted), strict=True):
            if found is None:
                continue
            counts[found.what] += 1
            stuck += found.test.endswith(NO_END)
            if found.what == NOTICED:
                noticed[fault.key] = found.test.partition(",")[0]
            else:
                text = fault.key.split(" ", 1)[1]
                print(f"{fault.path}:{fault.line} {text} ({found.tried} tests)", flush=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(noticed, file)
    counts[EQUAL] = len(chosen) - len(wanted)
    tried = counts[NOTICED] + counts[SURVIVED]
    share = 100 * counts[NOTICED] / tried if tried else 100.0
    print(
        f"{name}: {tried} faults tried, {counts[NOTICED]} noticed ({share:.1f} %), {stuck} of them"
        f" by a test that did not end, {counts[SURVIVED]} not noticed;"
        f" {counts[EQUAL]} known to change nothing",
        flush=True,
    )
    return counts[SURVIVED]


def main() -> int:
    """Plant, try, report."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="+", help="packages or modules, like store or broker/filters"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="faults a package at most")
    parser.add_argument("--seconds", type=float, default=3600, help="no further one afterwards")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    options.until = time.monotonic() + options.seconds
    os.makedirs(WORK, exist_ok=True)
    copy_tree(TAKEN, ROOT)
    faults: dict[str, list[Fault]] = {}
    sources = modules(options.names)
    for name in options.names:
        faults[name], possible = sample(modules([name]), options.count, f"{options.seed} {name}")
        print(f"{name}: {len(faults[name])} of {possible} faults", flush=True)
    noticed: dict[str, str] = {}
    for name in options.names:
        noticed |= seen_before(os.path.join(WORK, f"noticed-{name.replace('/', '-')}.json"))
    recording = copy_tree(os.path.join(WORK, "recording"))
    tests = Tests(record(recording, WORK, recording_python(), options.jobs), noticed)
    copies = [copy_tree(os.path.join(WORK, f"tree-{job}")) for job in range(options.jobs)]
    trial = Trial(sources, tests, copies)
    try:
        missed = sum(try_package(name, faults[name], trial, options) for name in options.names)
    finally:
        trial.close()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
