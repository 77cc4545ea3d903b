"""
The crash matrix: the process dies at each call of the disk, one after the other; the machine loses
its power there; the call fails; the disk is full from there on. After every start each transaction
is there once and whole, or not at all, or prepared and listed; plain puts stand where they were
acknowledged.

``CRASH_STRIDE=1`` tries every call in every flush mode (``make crash-matrix``).
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import MetaQError
from metamorphosis.transactions import recording, redolog
from tests.support.crashdisk import Killed
from tests.support.lives import Lives

XA = [f"XID:{number}:aa:bb:app" for number in range(10)]
LOCAL = [f"TX:s:{number}" for number in range(10)]


def mixed(lives: Lives) -> None:
    """Every step, over both partitions, and over several redo files and segments."""
    lives.put(None, 0)
    for key in (LOCAL[0], XA[0], XA[1], XA[2], LOCAL[1]):
        lives.begin(key)
        lives.put(key, 0)
        lives.put(key, 1, 30)
    lives.prepare(XA[0])
    lives.put(LOCAL[0], 0)
    lives.commit(LOCAL[0])
    lives.put(None, 0)
    lives.prepare(XA[1])
    lives.pause()
    lives.commit(XA[0])
    lives.roll_back(LOCAL[1])
    lives.put(None, 1, 200)
    lives.begin(XA[3])
    lives.put(XA[3], 0, 100)
    lives.prepare(XA[3])
    lives.roll_back(XA[3])
    lives.commit(XA[2])
    lives.begin(LOCAL[2])
    lives.put(LOCAL[2], 1)
    lives.commit(LOCAL[2])
    lives.checkpoint()


def quiet(lives: Lives) -> None:
    """Everything is finished: a new redo file takes the place of the old one."""
    for number in (0, 1):
        lives.begin(LOCAL[number])
        lives.put(LOCAL[number], number)
        if number:
            lives.put(LOCAL[number], 0)
        lives.commit(LOCAL[number])
        lives.pause()
        lives.checkpoint()


def stopped(lives: Lives) -> None:
    """An orderly stop with prepared and open transactions, and compaction."""
    for key in (LOCAL[0], XA[0], XA[1], XA[2]):
        lives.begin(key)
        lives.put(key, 0)
        lives.put(key, 1)
    lives.prepare(XA[0])
    lives.commit(LOCAL[0])
    lives.prepare(XA[1])
    lives.stop()


STRIDE = int(os.environ.get("CRASH_STRIDE", "4"))
"""
Of the calls of a recovery, and of those from which on a disk is full, every so many-th is tried,
another one in each scene; in the flush modes 0 and 2 half as many. 1: all.
"""

SPARSE = 2 * STRIDE if STRIDE > 1 else 1

SCENES = (mixed, quiet, stopped)


class CrashMatrixTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        self.patch(redolog, "FILE_LIMIT", 200)
        self.patch(recording, "HELD_BYTES", 1300)  # the second message of a transaction is too much
        self.directory = os.path.abspath(self.mktemp())

    def fresh(self, seed: int, threshold: int, mode: int = 1) -> Lives:
        """An empty disk."""
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        lives = Lives(self.directory, seed, threshold, mode)
        lives.platters.directory_synced(os.path.dirname(self.directory))
        return lives

    def afterwards(self, lives: Lives) -> None:
        """What is left is right, is usable, and stays right."""
        self.assertTrue(lives.start())
        lives.judge()
        lives.resolve()
        lives.judge()
        lives.end()
        self.assertTrue(lives.start())
        lives.judge()
        lives.end()

    def matrix(
        self, scene: Callable[[Lives], None], threshold: int, power: bool, mode: int = 1
    ) -> None:
        """The scene dies at each of its calls."""
        lives = self.fresh(0, threshold, mode)
        self.assertTrue(lives.start())
        scene(lives)
        calls = lives.disk.calls
        lives.end()
        self.assertGreater(len(calls), 10)
        stride = 1 if mode == 1 else SPARSE
        for number, call in list(enumerate(calls, 1))[SCENES.index(scene) % stride :: stride]:
            for torn in (False, True) if call.startswith("write") else (False,):
                lives = self.fresh(number, threshold, mode)
                try:
                    if lives.start(number, torn):
                        scene(lives)
                    lives.end(power)
                    self.afterwards(lives)
                except Exception as error:
                    where = f"{scene.__name__} dies at call {number}, {call}, torn {torn}"
                    raise AssertionError(f"{where}: {error!r}") from error
                finally:
                    lives.end()
        gc.collect()
        self.flushLoggedErrors(Killed)

    def test_process_dies(self) -> None:
        """Nothing that was written is lost."""
        for scene in SCENES:
            self.matrix(scene, 0, power=False)

    def test_process_dies_default_mode(self) -> None:
        """The same for a store that flushes later."""
        for scene in SCENES:
            self.matrix(scene, 1000, power=False)

    def test_power_cut(self) -> None:
        """Nothing that was acknowledged is lost."""
        for scene in SCENES:
            self.matrix(scene, 0, power=True)

    def test_power_cut_default_mode(self) -> None:
        """Plain puts may be lost, committed transactions are not."""
        for scene in SCENES:
            self.matrix(scene, 1000, power=True)

    def test_process_dies_without_a_force(self) -> None:
        """Flush modes 0 and 2: nothing that was acknowledged is lost."""
        for mode, threshold in ((0, 0), (2, 1000)):
            for scene in SCENES:
                self.matrix(scene, threshold, power=False, mode=mode)

    def test_power_cut_every_second(self) -> None:
        """Flush mode 2: what was acknowledged a second ago is not lost."""
        for scene in SCENES:
            self.matrix(scene, 0, power=True, mode=2)

    def test_power_cut_without_a_force(self) -> None:
        """Flush mode 0: the next start serves, and what it found is not lost with the next cut."""
        for scene in SCENES:
            self.matrix(scene, 0, power=True, mode=0)

    def recovery_matrix(self, threshold: int, power: bool, power_again: bool) -> None:
        """Wherever the recovery has blocks to look for, it dies at each of its calls, and after."""
        lives = self.fresh(0, threshold)
        self.assertTrue(lives.start())
        mixed(lives)
        calls = len(lives.disk.calls)
        lives.end()
        tried = 0
        seen: list[list[str]] = []
        for number in range(1, calls + 1):
            recovery = self.recovering(number, threshold, (power, False), 0)
            if recovery in seen or not any("test-" in call for call in recovery):
                continue
            seen.append(recovery)
            for at in range(1 + number % STRIDE, len(recovery) + 2, STRIDE):
                try:
                    self.recovering(number, threshold, (power, power_again), at)
                except Exception as error:
                    where = f"dies at call {number}, recovery at {at} of {recovery}"
                    raise AssertionError(f"{where}: {error!r}") from error
                tried += 1
        self.assertGreater(tried, 10)
        gc.collect()
        self.flushLoggedErrors(Killed)

    def recovering(
        self, number: int, threshold: int, power: tuple[bool, bool], at: int
    ) -> list[str]:
        """The scene dies at a call, and the recovery at another; the calls of the recovery."""
        lives = self.fresh(number, threshold)
        try:
            if lives.start(number, torn=True):
                mixed(lives)
            lives.end(power[0])
            lives.start(at, torn=True)
            calls = lives.disk.calls
            lives.end(power[1])
            if at:
                self.afterwards(lives)
            return calls
        finally:
            lives.end()

    def test_recovery_dies(self) -> None:
        """A second recovery finds what the first one has not done."""
        self.recovery_matrix(0, False, False)

    def test_power_goes_after_the_process(self) -> None:
        """What the recovery found in the kernel's memory is lost, and still in the journal."""
        self.recovery_matrix(1000, False, True)

    def test_recovery_dies_with_the_power(self) -> None:
        """The part of a block that has reached the disk is not a message."""
        self.recovery_matrix(0, True, True)

    def test_call_fails(self) -> None:
        """
        An input/output error at each call: what was refused is as it was, what was not answered is
        decided by the next start, and what was answered holds.
        """
        for scene, threshold in ((mixed, 0), (mixed, 1000), (stopped, 0)):
            lives = self.fresh(0, threshold)
            self.assertTrue(lives.start())
            scene(lives)
            calls = list(lives.disk.calls)
            lives.end()
            for number, call in enumerate(calls, 1):
                lives = self.fresh(number, threshold)
                try:
                    if self.starts(lives, fail_at=number):
                        scene(lives)
                    lives.end()
                    self.afterwards(lives)
                except Exception as error:
                    where = f"{scene.__name__}, call {number}, {call}, fails"
                    raise AssertionError(f"{where}: {error!r}") from error
                finally:
                    lives.end()

    def starts(self, lives: Lives, **fault: int) -> bool:
        """Whether a broker starts on a disk that fails; a start may be refused."""
        try:
            return lives.start(torn=True, **fault)
        except MetaQError:
            return False

    def test_disk_is_full(self) -> None:
        """
        From each call on: steps are refused, never acknowledged and then gone. When there is room
        again everything that was not ended can be committed, without a new start.
        """
        served = stopped_short = 0
        for mode, threshold, scene in ((1, 0, mixed), (2, 1000, mixed), (1, 0, quiet)):
            lives = self.fresh(0, threshold, mode)
            self.assertTrue(lives.start())
            scene(lives)
            calls = list(lives.disk.calls)
            lives.end()
            for number, call in list(enumerate(calls, 1))[:: STRIDE if mode == 1 else SPARSE]:
                lives = self.fresh(number, threshold, mode)
                try:
                    if self.starts(lives, fill_at=number, honest=number % 2):
                        scene(lives)
                        lives.disk.full = False
                        served += 1
                        stopped_short += lives.silent
                        self.assertEqual(lives.silent, bool(lives.broker.broken))
                        if not lives.silent:
                            lives.commit_all()
                            lives.judge()
                    lives.end()
                    self.afterwards(lives)
                except Exception as error:
                    where = f"{scene.__name__}, full from call {number}, {call}, mode {mode}"
                    raise AssertionError(f"{where}: {error!r}") from error
                finally:
                    lives.end()
        self.assertGreater(served, 100 / STRIDE)
        self.assertLess(stopped_short, served / 3, "only when a block has no room after its record")
