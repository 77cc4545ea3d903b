"""A replicated broker under faults, and whether the checks detect every fault."""

from __future__ import annotations

import os
import struct
import zlib

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.kills import Acknowledged, Place, digest
from tests.faults.replication import FOLLOWER, MASTER, SLAVE, ReplicationRun
from tests.faults.replicationload import PARTITIONS, TOPICS

FAULTS = 30
SEED = 20260112


class ReplicationTests(SynchronousTestCase):
    """``make replication-faults`` does this with 500 faults."""

    timeout = 300

    def test_faults(self) -> None:
        """Kills, freezes, a faulty line, full disks and a ZooKeeper that stops: every acknowledged
        message is on all three members and was delivered to each group, and the logs are equal."""
        run = ReplicationRun(self.mktemp(), SEED, pace=0.4)
        self.addCleanup(run.end)
        run.start()
        for _ in range(FAULTS):
            run.fault()
        run.finish()
        self.assertGreater(run.acknowledged, FAULTS * 20)
        self.assertGreater(len(set(run.happened)), 10)


def record(message_id: int, body: bytes) -> bytes:
    """A stored message."""
    return struct.pack(">iiqi", len(body), zlib.crc32(body) & 0x7FFFFFFF, message_id, 0) + body


class JudgeTests(SynchronousTestCase):
    """Checks of logs that a test has written."""

    def setUp(self) -> None:
        self.run_ = ReplicationRun(self.mktemp(), 1)
        self.addCleanup(self.run_.end)
        self.one, self.two = record(5, b"p0-1 x"), record(6, b"p0-2 x")
        for name in (MASTER, SLAVE, FOLLOWER):
            self.write(name, self.one + self.two)
        promised = Acknowledged(Place("direct", 0, len(self.one)), 6, digest(b"p0-2 x"))
        self.run_.producers[0].acknowledged.append(promised)
        self.run_.producers[0].promised.add(b"p0-2")
        for ledger in self.run_.groups.ledgers:
            ledger.given[b"p0-2"] = 1

    def write(self, name: str, log: bytes) -> None:
        """The first partition of a member."""
        path = os.path.join(self.run_.cluster.members[name].data, "direct-0")
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, f"{0:020}.meta"), "wb") as file:
            file.write(log)

    def refused(self) -> str:
        """The text of the failed check."""
        return str(self.assertRaises(AssertionError, self.run_.judge))

    def test_good(self) -> None:
        """A correct state is accepted."""
        self.run_.judge()
        self.assertEqual(4, len(TOPICS) * PARTITIONS)

    def test_lost(self) -> None:
        """An acknowledged message is missing on any member."""
        for name in (MASTER, SLAVE, FOLLOWER):
            self.write(name, self.one)
            self.assertIn("lost", self.refused())
            self.write(name, self.one + self.two)

    def test_different(self) -> None:
        """One member has one more message."""
        self.write(SLAVE, self.one + self.two + record(7, b"p0-3 x"))
        self.assertIn("direct-0 differs", self.refused())

    def test_twice(self) -> None:
        """The same message at two places."""
        for name in (MASTER, SLAVE, FOLLOWER):
            self.write(name, self.one + self.two + record(9, b"p0-1 x"))
        self.assertIn("twice", self.refused())

    def test_refused(self) -> None:
        """A message is stored although its refusal said that it is not."""
        self.run_.producers[1].refused.add(b"p0-1")
        self.assertIn("what was refused", self.refused())

    def test_passed_over(self) -> None:
        """An acknowledged message was not delivered to a group."""
        self.run_.groups.ledgers[1].given.clear()
        self.assertIn("group alone never got 1: [b'p0-2']", self.refused())

    def test_made_up(self) -> None:
        """A delivered message that is in no log is a fault; a duplicate is not."""
        self.run_.groups.ledgers[0].given.update([b"p0-2", b"p0-1"])
        self.run_.judge()
        self.run_.groups.ledgers[0].given[b"p9-9"] = 1
        self.assertIn("group pair got what is not stored", self.refused())

    def test_seen(self) -> None:
        """A reader got a message that is not there now."""
        seen = self.run_.readers[1].seen["direct", 0]
        seen[0] = 5, digest(b"p0-1 x")
        self.run_.judge()
        seen[0] = 4, digest(b"p0-1 x")
        self.assertIn("showed another message", self.refused())
        del seen[0]
        seen[1000] = 7, b""
        self.assertIn("which ends at", self.refused())

    def test_alarms(self) -> None:
        """A member has logged an alarm."""
        member = self.run_.cluster.members[FOLLOWER]
        with open(member.log, "w", encoding="utf-8") as file:
            file.write("Replication diverged: t-0\n")
        self.assertIn("follower logged", self.refused())
