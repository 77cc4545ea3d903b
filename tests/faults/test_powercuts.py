"""The power fails, and the disk of the journal is full, on a real file system of its own."""

from __future__ import annotations

import contextlib
import os

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.loopdisk import LoopDisk
from tests.faults.peer import Peer
from tests.faults.powercuts import PowerCutRun
from tests.support.broker import BrokerProcess

CUTS = 4
SEED = 20261130
TRANSACTIONS = 150
"""Prepared while the disk is full: their records need more than the rest of a block of 4 KiB."""


class PowerCutTests(SynchronousTestCase):
    """``make power-cuts`` makes many."""

    timeout = 240

    def test_cuts_under_load(self) -> None:
        """Every acknowledged commit and prepare is stored, once."""
        run = PowerCutRun(self.mktemp(), SEED)
        self.addCleanup(run.disk.remove)
        self.addCleanup(run.broker.kill)
        run.broker.start()
        for _ in range(CUTS):
            run.kill_once()
        self.assertGreater(run.committed, CUTS)

    def test_what_is_lost(self) -> None:
        """The disk keeps only forced bytes: a check of the test above."""
        directory = self.mktemp()
        disk = LoopDisk(directory, "64M")
        self.addCleanup(disk.remove)
        for name in ("forced", "written"):
            with open(os.path.join(disk.path, name), "wb") as file:
                file.write(b"x" * 100_000)
                file.flush()
                if name == "forced":
                    os.fsync(file.fileno())
        disk.cut_power()
        disk.unmount()
        disk.mount()
        with open(os.path.join(disk.path, "forced"), "rb") as file:
            self.assertEqual(b"x" * 100_000, file.read())
        with contextlib.suppress(FileNotFoundError):
            self.assertEqual(0, os.path.getsize(os.path.join(disk.path, "written")))


class FullJournalTests(SynchronousTestCase):
    """The file system of the journal is full."""

    timeout = 120

    def setUp(self) -> None:
        """A broker whose journal is on a small disk, and many open transactions."""
        directory = self.mktemp()
        disk = LoopDisk(directory, "16M")
        self.addCleanup(disk.remove)
        self.ballast = os.path.join(disk.path, "ballast")
        self.broker = BrokerProcess(
            directory, system={"dataLogPath": os.path.join(disk.path, "journal")}
        )
        self.addCleanup(self.broker.kill)
        self.broker.start()
        self.keys = [f"XID:{number}:aa:bb:q" for number in range(TRANSACTIONS)]
        with Peer(self.broker.port) as peer:
            for key in self.keys:
                self.assertEqual(200, self.step(peer, key, "BEGIN"))
                put = f"put test 0 1 0 -1 {key} 7\r\nx".encode()
                self.assertEqual(200, peer.ask(put).status)

    def step(self, peer: Peer, key: str, kind: str) -> int:
        """The status of the reply."""
        return peer.ask(f"transaction {key} s {kind} 7\r\n".encode()).status

    def all_steps(self, kind: str) -> list[str]:
        """The keys of those for which a step was granted, out of all."""
        with Peer(self.broker.port) as peer:
            return [key for key in self.keys if self.step(peer, key, kind) == 200]

    def listed(self) -> list[str]:
        """The reply to RECOVER."""
        with Peer(self.broker.port) as peer:
            reply = peer.ask(b"transaction null s RECOVER 7\r\n")
        return reply.body.decode().split("\r\n") if reply.body else []

    def fill(self) -> None:
        """Fill the disk to the last block."""
        with open(self.ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass

    def test_full(self) -> None:
        """Granted steps survive a kill, refused ones do not; when there is room again everything
        continues without a new start."""
        self.fill()
        prepared = self.all_steps("PREPARE")
        self.assertLess(len(prepared), TRANSACTIONS, "the disk was not full")
        self.assertEqual(prepared, self.listed())
        os.unlink(self.ballast)
        self.assertEqual(TRANSACTIONS - len(prepared), len(self.all_steps("PREPARE")))
        self.fill()
        committed = self.all_steps("COMMIT_TWO_PHASE")
        left = [key for key in self.keys if key not in committed]
        self.assertTrue(left, "the disk was not full")
        self.assertEqual(left, self.listed())
        self.broker.kill()
        self.broker.start()
        self.assertEqual(sorted(left), sorted(self.listed()))
        os.unlink(self.ballast)
        self.assertEqual(len(left), len(self.all_steps("COMMIT_TWO_PHASE")))
        self.assertEqual([], self.listed())
        with Peer(self.broker.port) as peer:
            log = peer.ask(b"get test g 0 0 1000000 7\r\n").body
        self.assertEqual(TRANSACTIONS * 21, len(log))
