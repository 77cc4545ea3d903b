"""
Threads, open files and warnings of one test. A count of the whole process would include those of
earlier tests, whose threads end and whose garbage is collected at any time.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase


def descriptors() -> dict[int, str]:
    """The open descriptors of this process: number -> path, or a name such as ``socket:[5]``."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of the listing itself
            pass
    return found


def open_files(directory: str) -> list[str]:
    """The files under ``directory`` that this process has open, once for each descriptor."""
    top = os.path.realpath(directory) + os.sep
    return [path for path in descriptors().values() if path.startswith(top)]


def new_threads(before: Iterable[threading.Thread]) -> set[threading.Thread]:
    """The running threads that are not among ``before``, a list of ``threading.enumerate``."""
    return set(threading.enumerate()).difference(before)


def collect_garbage(test: SynchronousTestCase) -> None:
    """At the beginning of ``test``: the garbage of earlier tests goes now, and so do the warnings
    about it."""
    gc.collect()
    test.flushWarnings()


def unclosed_factories(test: SynchronousTestCase, broker: str = "") -> list[dict[str, Any]]:
    """The warnings since the last call about session factories (of ``broker``) that were not
    closed. Other warnings are dropped."""
    about = f"session factory of {broker}"
    return [each for each in test.flushWarnings() if about in str(each["message"])]


class LeftOpen:
    """
    The descriptors that tests leave open, for ``tests.stage``. Asked before and after each test.

    A store and a journal close their files when a broker stops, and most tests just drop them, as
    the end of a process does. Their descriptors are plain numbers, which nothing closes later: they
    are closed here. All others have an owner that a test must close.
    """

    STORED = re.compile(r"\d+\.meta|redo\.\d+")

    def __init__(self) -> None:
        self._first = self._before = descriptors()
        self._opened: dict[tuple[int, str], str] = {}  # descriptor and path -> test

    def started(self) -> None:
        """Note the begin of a test."""
        self._before = descriptors()

    def ended(self, test: str) -> None:
        """Close what ``test`` left of stores, and note the rest."""
        for number, path in descriptors().items():
            if self._before.get(number) == path:
                continue
            if self.STORED.fullmatch(os.path.basename(path).removesuffix(" (deleted)")):
                os.close(number)
            else:
                self._opened[number, path] = test

    def rest(self) -> list[str]:
        """The descriptors that were opened since the beginning: path and test."""
        gc.collect()
        return [
            f"{path}: {self._opened.get((number, path), 'no test')}"
            for number, path in descriptors().items()
            if self._first.get(number) != path
        ]
