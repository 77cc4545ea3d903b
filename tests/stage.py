"""
One stage of a test run: ``python -m tests.stage JOURNAL DIRECTORY TEST...`` runs the named tests
under trial and appends every event to the journal, one JSON object a line. ``tests.run`` starts it
and counts.

A test may take ``timeout`` seconds (trial's attribute, 120 by default). Trial enforces that only
while a test waits in the reactor; a test that blocks is interrupted here, a little later, by a
signal.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import shutil
import signal
import sys
import time
import warnings
from typing import Any, TextIO

from twisted.trial import reporter, runner, util

from tests.support.leftovers import LeftOpen

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GRACE_SECONDS = 30.0  # what trial's own time limit gets to work before the signal
SLOW_SECONDS = 10.0  # such tests are named in the output
DESCRIPTORS = 64  # the reactor's, those that are shared, and those of a few tests that failed


class BlockedTest(Exception):
    """Raised inside a test that neither returned nor let the reactor run for too long."""


class JournalReporter(reporter.Reporter):  # type: ignore[misc]
    """Writes the journal instead of printing. ``tests.run`` makes one result of a test's events."""

    journal: TextIO
    left_open: LeftOpen

    def event(self, what: str, test: Any, text: str = "") -> None:
        """Append one line; flushed, because the process may die in the next test."""
        name = test if isinstance(test, str) else test.id()
        self.journal.write(json.dumps({"what": what, "test": name, "text": text}) + "\n")
        self.journal.flush()

    def startTest(self, test: Any) -> None:
        """Note which test runs, and limit its time."""
        super().startTest(test)
        self.case = case_of(test)
        self.own = set(vars(self.case))
        self.left_open.started()
        self.began = time.monotonic()
        self.event("start", test)
        limit = time_limit(test) + GRACE_SECONDS
        signal.setitimer(signal.ITIMER_REAL, limit)
        faulthandler.dump_traceback_later(limit + GRACE_SECONDS, exit=True)

    def stopTest(self, test: Any) -> None:
        """
        The time limit ends with the test, and so do the objects that it has made. The suite keeps
        the test itself until the end of the stage: with its attributes, the unit tests would need
        2.7 GB. The garbage is collected here, and errors that it logs are dropped, because they
        would fail a later test.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)
        for name in vars(self.case).keys() - self.own - {"_observer"}:
            delattr(self.case, name)
        while gc.collect():  # again: a finaliser may have left further garbage
            pass
        if hasattr(self.case, "_observer"):  # not of a skipped test
            self.case.flushLoggedErrors()
        self.left_open.ended(test.id())
        seconds = time.monotonic() - self.began
        self.event("end", test, f"{seconds:.2f}")
        if seconds > SLOW_SECONDS:
            print(f"{seconds:6.1f} s  {test.id()}", flush=True)

    def addSuccess(self, test: Any) -> None:
        """The test passed, unless its clean-up still fails."""
        super().addSuccess(test)
        self.event("pass", test)

    def addFailure(self, test: Any, fail: Any) -> None:
        """An assertion did not hold."""
        super().addFailure(test, fail)
        self.event("fail", test, report(self.failures[-1][1]))

    def addError(self, test: Any, error: Any) -> None:
        """Anything else went wrong, in the test, around it, or while its module was imported."""
        super().addError(test, error)
        self.event("fail", test, report(self.errors[-1][1]))

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        """A test that is marked as failing does not fail."""
        super().addUnexpectedSuccess(test, todo)
        self.event("fail", test, f"passes, but is marked todo: {todo}\n")

    def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
        """A failure that is known proves nothing, so it counts as skipped."""
        super().addExpectedFailure(test, error, todo)
        self.event("skip", test, f"todo: {getattr(todo, 'reason', todo)}")

    def addSkip(self, test: Any, reason: Any) -> None:
        """The test cannot run here."""
        super().addSkip(test, reason)
        self.event("skip", test, str(reason))

    def done(self) -> None:
        """Every test has been run; few descriptors may be open that were not before."""
        if len(rest := self.left_open.rest()) > DESCRIPTORS:
            self.event("fail", "descriptors left open", "\n".join(rest) + "\n")
        self.event("done", "")


def case_of(test: Any) -> Any:
    """The test case itself; trial wraps those that know no reactor."""
    return getattr(test, "_originalTest", test)


def report(failure: Any) -> str:
    """The traceback without Twisted's own frames."""
    return str(failure.getTraceback(elideFrameworkCode=True)) + "\n"


def time_limit(test: Any) -> float:
    """Seconds this test may take; trial's ``getTimeout`` also looks at its class and module."""
    test = case_of(test)
    own = test.getTimeout() if hasattr(test, "getTimeout") else getattr(test, "timeout", None)
    return float(own or util.DEFAULT_TIMEOUT_DURATION)


def interrupt(signum: int, frame: object) -> None:
    """SIGALRM: the running test blocks."""
    raise BlockedTest("the test blocked the process beyond its time limit")


def main(journal: str, directory: str, tests: list[str]) -> None:
    """Load and run ``tests``; results go to ``journal``."""
    faulthandler.enable()
    signal.signal(signal.SIGALRM, interrupt)
    # A shell starts what runs in the background with SIGINT ignored, and processes of tests would
    # inherit that: no Ctrl-C would end them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Trial gives the file's path for the module when it passes on the warnings of a test.
    ours = rf"({re.escape(ROOT)}/)?(metamorphosis|tests|compat)[/.]"
    warnings.filterwarnings("error", category=DeprecationWarning, module=ours)
    shutil.rmtree(directory, ignore_errors=True)
    with open(journal, "a", encoding="utf-8") as file:
        JournalReporter.journal = file
        JournalReporter.left_open = LeftOpen()
        suite = runner.TestLoader().loadByNames(tests, recurse=True)
        gc.collect()
        gc.freeze()  # the modules and tests, so that each later collection is quick
        started = time.monotonic()
        runner.TrialRunner(
            JournalReporter, stream=sys.stdout, workingDirectory=directory, logfile="trial.log"
        ).run(suite)
        print(f"{time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
