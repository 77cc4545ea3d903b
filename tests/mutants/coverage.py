"""
Which unit test executes which lines: ``python -m tests.mutants.coverage FILE`` in a copy of the
tree writes ``{test: [seconds, {path: [line, ...]}]}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from twisted.trial import reporter, runner

TESTS = ("tests.unit", "tests.contract", "tests.conformance")
TREE = os.getcwd()  # trial goes elsewhere
PACKAGE = os.path.join(TREE, "metamorphosis") + os.sep


class Lines:
    """The lines of the package that are executed while a test runs, in whatever thread."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def start(self) -> None:
        """From now on, in this thread and those that begin."""
        if sys.version_info >= (3, 12):
            watch = sys.monitoring
            watch.use_tool_id(watch.COVERAGE_ID, "mutants")
            watch.register_callback(watch.COVERAGE_ID, watch.events.LINE, self._line)
            watch.set_events(watch.COVERAGE_ID, watch.events.LINE)

    def begin(self) -> None:
        """Forget what was seen."""
        self.seen = set()
        if sys.version_info >= (3, 12):
            sys.monitoring.restart_events()
        else:  # each time: it ends at an error in it, like too deep a recursion
            threading.settrace(self._call)
            sys.settrace(self._call)

    def _line(self, code: Any, line: int) -> object:
        if code.co_filename.startswith(PACKAGE):
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
    found: dict[str, tuple[float, dict[str, list[int]]]] = {}

    def startTest(self, test: Any) -> None:
        """From here on."""
        super().startTest(test)
        self.lines.begin()
        self.began = time.monotonic()

    def addSuccess(self, test: Any) -> None:
        """To here."""
        super().addSuccess(test)
        files: dict[str, list[int]] = {}
        for path, line in sorted(self.lines.seen):
            files.setdefault(os.path.relpath(path, TREE), []).append(line)
        self.found[test.id()] = time.monotonic() - self.began, files


def main(path: str) -> None:
    """Run all unit tests."""
    suite = runner.TestLoader().loadByNames(list(TESTS), recurse=True)
    Recorder.lines.start()
    runner.TrialRunner(Recorder, stream=sys.stdout, workingDirectory=f"{path}.trial").run(suite)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(Recorder.found, file)
    os._exit(0)  # threads of tests do not matter


if __name__ == "__main__":
    main(sys.argv[1])
