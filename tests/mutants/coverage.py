"""
Which unit test executes which lines of the package: ``record`` for all test modules, each kept in
a file until the package, what tests share, or the module itself changes.

``python -m tests.mutants.coverage`` in a copy of the tree records the test modules that the
standard input names, a module and a file a line; ``{test: [seconds, {path: [line, ...]}]}`` goes to
the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import CodeType
from typing import IO, Any

from twisted.trial import reporter, runner

DIRECTORIES = ("tests/unit", "tests/contract", "tests/conformance")
TREE = os.getcwd()  # trial goes elsewhere
PACKAGE = os.path.join(TREE, "metamorphosis") + os.sep

Coverage = dict[str, tuple[float, dict[str, list[int]]]]


class Lines:
    """The lines of the package that are executed while a test runs, in whatever thread."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def start(self) -> None:
        """From now on, in this thread and those that begin."""
        if sys.version_info >= (3, 12):
            watch = sys.monitoring
            watch.use_tool_id(watch.COVERAGE_ID, "mutants")
            watch.register_callback(watch.COVERAGE_ID, watch.events.PY_START, self._function)
            watch.register_callback(watch.COVERAGE_ID, watch.events.LINE, self._line)
            watch.set_events(watch.COVERAGE_ID, watch.events.PY_START)

    def begin(self) -> None:
        """Forget what was seen."""
        self.seen = set()
        if sys.version_info >= (3, 12):
            sys.monitoring.restart_events()
        else:  # each time: it ends at an error in it, like too deep a recursion
            threading.settrace(self._call)
            sys.settrace(self._call)

    def _function(self, code: CodeType, offset: int) -> object:
        watch = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        if code.co_filename.startswith(PACKAGE):
            watch.set_local_events(watch.COVERAGE_ID, code, watch.events.LINE)
        return watch.DISABLE

    def _line(self, code: CodeType, line: int) -> object:
        self.seen.add((code.co_filename, line))
        return sys.monitoring.DISABLE  # type: ignore[attr-defined,unused-ignore]

    def _call(self, frame: Any, event: str, argument: object) -> Any:
        return self._trace if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _trace(self, frame: Any, event: str, argument: object) -> Any:
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace


class Recorder(reporter.Reporter):  # type: ignore[misc]
    """Keeps the lines of each test that passes."""

    lines = Lines()
    found: Coverage = {}

    def startTest(self, test: Any) -> None:
        """From here on."""
        super().startTest(test)
        self.lines.begin()
        self.began = time.process_time()

    def addSuccess(self, test: Any) -> None:
        """To here."""
        super().addSuccess(test)
        files: dict[str, list[int]] = {}
        for path, line in sorted(self.lines.seen):
            files.setdefault(os.path.relpath(path, TREE), []).append(line)
        self.found[test.id()] = time.process_time() - self.began, files


def _digests(tree: str) -> tuple[str, dict[str, str]]:
    """Of the package and what tests share; and of each test module."""
    shared, modules = hashlib.sha256(), {}
    for top in ("metamorphosis", "tests"):
        for directory, _, files in sorted(os.walk(os.path.join(tree, top))):
            for file in sorted(each for each in files if each.endswith(".py")):
                path = os.path.relpath(os.path.join(directory, file), tree)
                with open(os.path.join(tree, path), "rb") as source:
                    text = source.read()
                if not path.startswith(("tests/mutants", "tests/integration", "tests/faults")):
                    if path.startswith(DIRECTORIES) and file.startswith("test_"):
                        modules[path[:-3].replace(os.sep, ".")] = hashlib.sha256(text).hexdigest()
                    else:
                        shared.update(text)
    return shared.hexdigest(), modules


def record(tree: str, work: str, python: str, jobs: int) -> Iterator[Coverage]:
    """
    Of each test module.

    :param tree: a copy of the tree, whose ``dropin.cache`` and byte code may change.
    :param work: the directory that keeps what was recorded.
    :param python: one from 3.12 on records at a tenth of the cost.
    """
    shared, modules = _digests(tree)
    kept = {
        module: os.path.join(work, f"lines-{shared[:12]}", f"{module}-{digest[:12]}.json")
        for module, digest in modules.items()
    }
    os.makedirs(os.path.join(work, f"lines-{shared[:12]}"), exist_ok=True)
    missing: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for each in kept.items():
        if not os.path.exists(each[1]):
            missing.put(each)
    if not missing.empty():
        began, count = time.monotonic(), missing.qsize()
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(lambda job: _records(tree, work, python, job, missing), range(jobs)):
                pass
        print(f"recorded {count} test modules, {time.monotonic() - began:.0f} s", flush=True)
    for path in kept.values():
        with open(path, encoding="utf-8") as file:
            yield json.load(file)


def _records(
    tree: str, work: str, python: str, job: int, missing: SimpleQueue[tuple[str, str]]
) -> None:
    command = [python, "-m", "tests.mutants.coverage", os.path.join(work, f"recording-{job}")]
    with (
        open(os.path.join(work, f"recording-{job}.out"), "wb") as output,
        subprocess.Popen(
            command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        while True:
            try:
                module, path = missing.get_nowait()
            except Empty:
                return
            process.stdin.write(f"{module} {path}\n".encode())
            process.stdin.flush()
            if not process.stdout.readline():
                raise SystemExit(f"mutants: {module} ended the process that ran it")


def _run(module: str, path: str, directory: str, output: IO[str]) -> None:
    Recorder.found = {}
    suite = runner.TestLoader().loadByNames([module])
    runner.TrialRunner(Recorder, stream=output, workingDirectory=directory).run(suite)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(Recorder.found, file)
    os.replace(f"{path}.new", path)


def main(directory: str) -> None:
    """See the module."""
    Recorder.lines.start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        module, path = line.split()
        _run(module, path, directory, sys.stderr)
        print(module, file=answers, flush=True)
    os._exit(0)  # threads of tests do not matter


if __name__ == "__main__":
    main(sys.argv[1])
