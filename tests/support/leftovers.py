"""
Threads, open files and warnings of one test. A count of the whole process would include those of
earlier tests, whose threads end and whose garbage is collected at any time.
"""

from __future__ import annotations

import gc
import os
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
