"""
Runs tests with and without faults: ``python -m tests.mutants.host DIRECTORY`` in a copy of the
tree. For each request, a JSON array a line of the standard input, it makes a child of itself that
plants the fault, runs the tests in their order and ends at the first that fails. The answer is a
line of the standard output.

All unit tests are imported once, so a child costs milliseconds where a process of its own would
import for seconds. A fault that cannot be planted in what is imported already stands in the file
when a child of ``host DIRECTORY --anew`` imports what it needs.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final, NamedTuple

from twisted.trial import reporter, runner, unittest

from tests.mutants import swapping

TESTS: Final = ("tests.unit", "tests.contract", "tests.conformance")
MOST_BYTES: Final = 4 << 30
"""Of a child's memory: a fault may fill it."""
CPU_SECONDS: Final = 10.0
"""That a test may use, besides ``SLOWER`` times what it took when it was recorded."""
WAITING_SECONDS: Final = 60.0
"""That a test may take without using the processor at all. However busy the machine is, a child
that could go on gets a little of it in this time."""
SLOWER: Final = 4.0

NOTICED, SURVIVED, UNPLANTED = "noticed", "survived", "unplanted"
NO_END: Final = ", which did not end"
_FAILED: Final = 1
_UNPLANTED: Final = 3


class Request(NamedTuple):
    """
    What a child has to do.

    :ivar path: of the module with the fault, from the top of the tree; empty: it has none, or
        stands in the file.
    :ivar before: its source.
    :ivar after: its source with the fault.
    :ivar tests: their names, and the seconds that each took when it was recorded.
    """

    path: str
    before: str
    after: str
    tests: list[tuple[str, float]]


class FirstFailure(reporter.Reporter):  # type: ignore[misc]
    """Ends the process at the first test that fails, or that does not end."""

    answers: int
    seconds: dict[str, float]

    def startTest(self, test: Any) -> None:
        """From here on its time counts."""
        super().startTest(test)
        name = test.id()
        os.write(self.answers, f"{name}\n".encode())
        limit = CPU_SECONDS + SLOWER * self.seconds.get(name, 0.0)
        signal.setitimer(signal.ITIMER_PROF, limit)

    def addFailure(self, test: Any, fail: Any) -> None:
        """Noticed."""
        os._exit(_FAILED)

    def addError(self, test: Any, error: Any) -> None:
        """Noticed."""
        os._exit(_FAILED)


def all_tests() -> dict[str, Any]:
    """The unit tests by name, imported."""
    found: dict[str, Any] = {}

    def walk(suite: Any) -> None:
        for each in suite:
            if hasattr(each, "__iter__"):
                walk(each)
            else:
                found[each.id()] = each

    walk(runner.TestLoader().loadByNames(list(TESTS), recurse=True))
    return found


def suites(request: Request, tests: dict[str, Any]) -> Iterator[Any]:
    """The tests to run; what is not imported is so a module at a time, when its turn comes."""
    names = [name for name, _ in request.tests]
    if tests:
        yield unittest.TestSuite([tests[name] for name in names if name in tests])
        return
    for _, group in groupby(names, key=lambda name: name.rsplit(".", 2)[0]):
        yield runner.TestLoader().loadByNames(list(group))


def child(request: Request, tests: dict[str, Any], directory: str, answers: int) -> None:
    """Plant the fault, run the tests, end."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    try:
        if request.path:
            path = os.path.join(os.getcwd(), request.path)
            swapping.plant(path, request.before.encode(), request.after.encode())
    except ValueError:
        os._exit(_UNPLANTED)
    FirstFailure.answers = answers
    FirstFailure.seconds = dict(request.tests)
    with open(os.devnull, "w", encoding="utf-8") as stream:
        for suite in suites(request, tests):
            runner.TrialRunner(FirstFailure, stream=stream, workingDirectory=directory).run(suite)
    os._exit(0)


def cpu_seconds(pid: int) -> float:
    """What the process and its ended children have used."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def attend(pid: int, answers: int) -> tuple[str, str]:
    """The outcome, and the test that made it: wait for a child to end, or for it to stand still."""
    descriptor = os.pidfd_open(pid)
    used, since, text, stood = -1.0, time.monotonic(), b"", False
    while not stood:
        ready, _, _ = select.select([descriptor, answers], [], [], 1.0)
        more = os.read(answers, 65536) if answers in ready else b""
        if more:
            text, since = (text + more)[-4096:], time.monotonic()
        elif descriptor in ready:
            break
        elif (now := cpu_seconds(pid)) > used:
            used, since = now, time.monotonic()
        stood = time.monotonic() - since > WAITING_SECONDS
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(pid, 0)
    os.close(descriptor)
    last = (text.decode().split() or ["none"])[-1]
    if os.WIFSIGNALED(status):
        return NOTICED, last + NO_END
    code = os.WEXITSTATUS(status)
    return {0: SURVIVED, _UNPLANTED: UNPLANTED}.get(code, NOTICED), last


def serve(directory: str, anew: bool) -> None:
    """Answer requests until the input ends."""
    tests = {} if anew else all_tests()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        request = Request(*json.loads(line))
        answers, told = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                gc.unfreeze()
                child(request, tests, directory, told)
            finally:
                os._exit(_FAILED)
        os.close(told)
        outcome = attend(pid, answers)
        os.close(answers)
        print(json.dumps(outcome), flush=True)


def main() -> None:
    """See the module."""
    warnings.filterwarnings(
        "error", category=DeprecationWarning, module="(metamorphosis|tests)[/.]"
    )
    serve(sys.argv[1], "--anew" in sys.argv)


if __name__ == "__main__":
    main()
