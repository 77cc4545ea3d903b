"""
kazoo's own tests against our embedded ZooKeeper: ``python -m tests.integration.kazoosuite``.

kazoo brings its tests along. They run in an environment of their own under ``.cache``, which is
made at the first run, with the version of kazoo that this project uses here. The last line counts
as that of ``tests.run`` does; what is left out is listed with its reason.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.broker import CHECKOUT
from tests.support.embedded import EmbeddedZooKeeper

ENVIRONMENT = os.path.join(CHECKOUT, ".cache", "kazoo")
PYTHON = os.path.join(ENVIRONMENT, "bin", "python")
# A newer one breaks kazoo's harness, which pins it itself on its main branch.
REQUIREMENTS = ("kazoo[test]=={version}", "pyOpenSSL==24.2.1")
TEST_SECONDS = 90
TICK_TIME = 500
VERSION = "3.4.6"  # what the tests take it for; those of later versions skip themselves

LEFT_OUT = {
    "update_host_list": "needs an ensemble",
    "TestSSLClient": "needs TLS, which MetaQ's clients do not have",
    "TestReadOnlyMode": "needs an ensemble, one server of which loses the others",
}
"""Parts of names, and why these tests prove nothing here."""


class Result(NamedTuple):
    """One test of kazoo's; ``report`` is the failure or the reason of a skip."""

    name: str
    outcome: str
    report: str


def prepare() -> None:
    """The environment with kazoo, its tests and what they need."""
    version = importlib.metadata.version("kazoo")
    wanted = [requirement.format(version=version) for requirement in REQUIREMENTS]
    mark = os.path.join(ENVIRONMENT, "installed")
    if os.path.exists(mark):
        with open(mark, encoding="utf-8") as file:
            if file.read().split() == wanted:
                return
    print(f"installing {' '.join(wanted)} into {ENVIRONMENT}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([PYTHON, "-m", "pip", "install", *quiet, *wanted], check=True)
    with open(mark, "w", encoding="utf-8") as file:
        file.write("\n".join(wanted))


def run_suite(directory: str, words: list[str]) -> tuple[int, list[Result]]:
    """Pytest's exit status, and what became of each test."""
    server = EmbeddedZooKeeper(os.path.join(directory, "zookeeper"), TICK_TIME)
    os.makedirs(server.directory)
    environment = {
        **server.environment(),
        "METAQ_ZOOKEEPER": json.dumps(server.command()),
        "METAQ_ZOOKEEPER_PORT": str(server.port),
        "ZOOKEEPER_VERSION": VERSION,
    }
    report = os.path.join(directory, "report.xml")
    wanted = " and ".join(f"not {name}" for name in LEFT_OUT)
    if words:
        wanted += f" and ({' or '.join(words)})"
    pytest = [PYTHON, "-m", "pytest", "-q", f"--timeout={TEST_SECONDS}", "-W", "ignore"]
    plugin = ["-p", "tests.integration.kazooplugin", "-p", "no:cacheprovider"]
    tests = ["-k", wanted, f"--junitxml={report}", "--pyargs", "kazoo.tests"]
    with open(os.path.join(directory, "output"), "wb") as output:
        done = subprocess.run(
            [*pytest, *plugin, *tests],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode, list(results(report)) if os.path.exists(report) else []


def results(path: str) -> Iterator[Result]:
    """What the report says of each test."""
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        outcome, report = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome, report = "failed", child.get("message", "")
            elif child.tag == "skipped" and outcome == "passed":
                outcome, report = "skipped", child.get("message", "")
        yield Result(name, outcome, report)


def main() -> int:
    """0 when every test that ran has passed. Arguments choose tests, as words of ``pytest -k``."""
    prepare()
    directory = tempfile.mkdtemp(prefix="metamorphosis-kazoo-")
    status, found = run_suite(directory, sys.argv[1:])
    for name, reason in LEFT_OUT.items():
        print(f"left out: {name}: {reason}")
    for kind in ("skipped", "failed"):
        for result in found:
            if result.outcome == kind:
                print(f"{kind}: {result.name}: {result.report}")
    passed, failed, skipped = (
        sum(result.outcome == kind for result in found) for kind in ("passed", "failed", "skipped")
    )
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    if status or not passed:
        print(f"what pytest said is in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
