"""The file of a ``LocalFileOffsetStore`` and its lock; what it promises is in the contract."""

from __future__ import annotations

import builtins
import fcntl
import os
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.offsets.localfile import OffsetFile
from metamorphosis.errors import OffsetStoreError
from tests.contract.test_offset_stores import P0, stored


class OffsetFileTests(SynchronousTestCase):
    """One commit after the other."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.file = OffsetFile(self.path)

    def test_descriptors(self) -> None:
        """A commit leaves none open: a consumer commits every five seconds for months."""
        self.file.commit("g", [stored(1)])
        before = os.listdir("/proc/self/fd")
        for offset in range(3):
            self.file.commit("g", [stored(offset)])
        self.assertEqual(len(before), len(os.listdir("/proc/self/fd")))

    def test_lock_of_another_process(self) -> None:
        """A commit waits until it is released, without using the processor meanwhile."""
        lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                os.close(lock)

        self.patch(time, "sleep", pause)
        self.file.commit("g", [stored(7)])
        self.assertEqual((3, stored(7)), (len(pauses), self.file.load("test", "g", P0)))

    def test_lock_is_our_own(self) -> None:
        """Other users cannot hold it."""
        self.file.commit("g", [stored(1)])
        self.assertEqual(0, os.stat(f"{self.path}.lock").st_mode & 0o077)

    def test_directory_that_takes_no_file(self) -> None:
        """The error says so, although there is no new file that could be removed."""

        def refuse(path: Any, *options: Any) -> Any:
            raise PermissionError(13, "Permission denied", str(path))

        self.file.commit("g", [stored(1)])
        self.patch(builtins, "open", refuse)
        with self.assertRaisesRegex(OffsetStoreError, "Permission denied"):
            self.file.commit("g", [stored(2)])
        self.assertEqual(stored(1), self.file.load("test", "g", P0))
