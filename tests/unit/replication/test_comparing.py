"""All partitions of two sides, and what a promotion makes of them."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import BrokerConfig, TopicConfig, ZooKeeperConfig
from metamorphosis.errors import LogChanged, OffsetTooSmall, PeerUnreachable, StoreError
from metamorphosis.message import encode_record
from metamorphosis.replication.comparing import (
    BrokerSide,
    DirectorySide,
    Row,
    Side,
    compare_sides,
    side_of,
)
from metamorphosis.replication.logs import LogEnds, LogReader, Verdict
from metamorphosis.replication.promotion import Promoting, Promotion, StillRegistered
from metamorphosis.store.layout import segment_name
from metamorphosis.testing.registry import MemoryRegistry
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.scriptedpeers import ScriptedGregor
from tests.support.scriptedwire import Frame, Line, LinkWire

T = TypeVar("T")

ONE, TWO, THREE = (encode_record(number, 0, bytes(30)) for number in (-3, -2, -1))
"""Records of 50 bytes."""


def write(path: str, first: int = 0, **partitions: bytes) -> str:
    """A data directory; ``t_0=data`` is partition ``t-0``."""
    os.makedirs(path, exist_ok=True)
    for name, data in partitions.items():
        directory = os.path.join(path, name.replace("_", "-"))
        os.mkdir(directory)
        with open(os.path.join(directory, segment_name(first)), "wb") as file:
            file.write(data)
    return path


class ComparingCase(SynchronousTestCase):
    """Runs coroutines that never wait."""

    def now(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
        """The result."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    async def rows(self, a: Side, b: Side) -> list[Row]:
        """All."""
        await a.open()
        await b.open()
        return [row async for row in compare_sides(a, b)]


class Unsteady(DirectorySide):
    """A directory whose logs change while they are read."""

    def __init__(self, path: str, *errors: Exception) -> None:
        super().__init__(path)
        self.errors = list(errors)

    def log(self, topic: str, number: int) -> LogReader:
        """See ``Side``."""
        if self.errors:
            raise self.errors.pop(0)
        return super().log(topic, number)


class DirectoryTests(ComparingCase):
    """Two data directories."""

    def verdicts(self, a: str, b: str) -> dict[str, str]:
        """Partition -> verdict."""
        found = self.now(self.rows(DirectorySide(a), DirectorySide(b)))
        return {f"{row.topic}-{row.number}": row.verdict() for row in found}

    def test_verdicts(self) -> None:
        """Each outcome in words."""
        a = write(self.mktemp(), t_0=ONE, t_1=ONE + TWO, t_2=ONE, t_3=ONE + TWO, t_4=ONE, t_5=b"")
        b = write(self.mktemp(), t_0=ONE, t_1=ONE, t_2=ONE + TWO, t_3=ONE + THREE, t_6=ONE)
        write(b, 900, t_5=ONE)
        self.assertEqual(
            {
                "t-0": "equal",
                "t-1": "A is ahead of B by 50 bytes",
                "t-2": "B is ahead of A by 50 bytes",
                "t-3": "differ from offset 50",
                "t-4": "A is ahead of B by 50 bytes",
                "t-5": "apart: one ends below the beginning of the other",
                "t-6": "B is ahead of A by 50 bytes",
            },
            self.verdicts(a, b),
        )

    def test_other_directories(self) -> None:
        """The journal, probes of a Java slave, and what is not a partition, are passed over."""
        a, b = write(self.mktemp(), t_0=ONE), write(self.mktemp(), t_0=ONE)
        for name in ("transactions", "_metaq_slave_status_test-0", "t-x", "nothing", "t-1.old"):
            os.mkdir(os.path.join(a, name))
        with open(os.path.join(a, "t-7"), "wb"):
            pass
        self.assertEqual({"t-0": "equal"}, self.verdicts(a, b))

    def test_several_data_paths(self) -> None:
        """Those of a broker together."""
        one, two = write(self.mktemp(), t_0=ONE), write(self.mktemp(), u_0=ONE)
        both = write(self.mktemp(), t_0=ONE, u_0=ONE)
        found = self.now(self.rows(DirectorySide(one, two), DirectorySide(both)))
        self.assertEqual(["equal", "equal"], [row.verdict() for row in found])

    def test_unreadable_partition(self) -> None:
        """It is named, the others are compared."""
        a, b = write(self.mktemp(), t_0=ONE, t_1=ONE), write(self.mktemp(), t_0=ONE, t_1=ONE)
        with open(os.path.join(a, "t-0", segment_name(77)), "wb"):
            pass
        verdicts = self.verdicts(a, b)
        self.assertIn("not compared: The following segments don't validate", verdicts["t-0"])
        self.assertEqual("equal", verdicts["t-1"])

    def test_log_that_changes(self) -> None:
        """It is compared again, three times at most."""
        path = write(self.mktemp(), t_0=ONE)
        for errors, verdict in (
            ([LogChanged("cut"), OffsetTooSmall(5)], "equal"),
            ([LogChanged("cut")] * 3, "not compared, it changes meanwhile: cut"),
        ):
            (row,) = self.now(self.rows(Unsteady(path, *errors), DirectorySide(path)))
            self.assertEqual(verdict, row.verdict())
            self.assertEqual(verdict == "equal", row.is_prefix)

    def test_no_directory(self) -> None:
        """It is named."""
        failure = self.failureResultOf(
            Deferred.fromCoroutine(DirectorySide("/nowhere").open()), StoreError
        )
        self.assertEqual("/nowhere is not a directory", str(failure.value))


class Telling(ScriptedGregor):
    """A broker that lists its partitions, and may be one of ours."""

    ours = False

    def _stats(self, line: Line, words: list[str], body: bytes) -> None:
        lines = []
        if words[1] == "offsets":
            lines = [
                f"{topic} part {number} min_offset {log.first} max_offset {log.end}"
                for (topic, number), log in self.logs.items()
                if not log.hidden
            ]
        elif self.ours:
            lines = ["role master"]
        text = "\r\n".join(["STATS", *lines, "END", ""])
        line.write(f"result 200 {len(text)} {words[2]}\r\n{text}".encode())

    def frame(self, line: Line, frame: Frame) -> None:
        """See ``ScriptedPeer``."""
        super().frame(line, frame)


class BrokerTests(ComparingCase):
    """A broker and a directory."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = Telling({"t": 2})

    def compare(self, path: str) -> list[Row]:
        """The broker is A."""
        side = BrokerSide(self.runtime, "b:1", 5)
        done = Deferred.fromCoroutine(self.rows(side, DirectorySide(path)))
        self.runtime.turn()
        wire = LinkWire(self.broker, self.runtime.accept("b:1"))
        wire.pump()
        rows = self.successResultOf(done)
        self.broker.verify()
        closed = Deferred.fromCoroutine(side.close())
        self.runtime.advance(5)
        self.successResultOf(closed)
        return rows

    def test_compared(self) -> None:
        """What the broker lists, and what only the directory has."""
        self.broker.log("t", 0).data += ONE + TWO
        path = write(self.mktemp(), t_0=ONE, t_1=ONE)
        rows = self.compare(path)
        self.assertEqual(
            [
                "A is ahead of B by 50 bytes",
                "A does not show it, which does not prove that it has none",
            ],
            [row.verdict() for row in rows],
        )
        self.assertEqual([True, False], [row.is_prefix for row in rows])

    def test_one_of_ours(self) -> None:
        """It opens all its partitions at its start, so what it does not show is not there."""
        self.broker.ours = True
        (row,) = self.compare(write(self.mktemp(), t_1=ONE))
        self.assertEqual("B is ahead of A by 50 bytes", row.verdict())
        assert row.comparison is not None
        self.assertEqual((None, LogEnds(0, 50)), (row.comparison.a, row.comparison.b))

    def test_hidden_partition(self) -> None:
        """What the original hides after a restart is not taken for absent."""
        log = self.broker.log("t", 0)
        log.data += ONE
        log.hidden = True
        (row,) = self.compare(write(self.mktemp(), t_0=ONE))
        assert row.comparison is not None
        self.assertEqual(Verdict.ABSENT_A, row.comparison.verdict)

    def test_refused(self) -> None:
        """The address and the reason are told."""
        side = BrokerSide(self.runtime, "b:1", 5)
        done = Deferred.fromCoroutine(side.open())
        for _ in range(30):
            self.runtime.turn()
            while self.runtime.attempts:
                self.runtime.refuse("b:1")
            self.runtime.advance(0.2)
        failure = self.failureResultOf(done, PeerUnreachable)
        self.assertTrue(str(failure.value).startswith("b:1: "), failure.value)

    def test_side_of(self) -> None:
        """A directory, a broker, or an error."""
        path = write(self.mktemp())
        self.assertIsInstance(side_of(self.runtime, path, 1), DirectorySide)
        self.assertIsInstance(side_of(self.runtime, "./no", 1), DirectorySide)
        self.assertIsInstance(side_of(self.runtime, "h:1", 1), BrokerSide)
        for text in ("h", "h:x", ":1", ""):
            self.assertRaises(StoreError, side_of, self.runtime, text, 1)


class PromotionTests(ComparingCase):
    """A slave's data directory, its old master's, and ZooKeeper."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.registry = MemoryRegistry(self.runtime.tree)
        self.now_deferred(self.registry.start())
        self.here = write(self.mktemp(), t_0=ONE, t_1=ONE)
        self.config = BrokerConfig(
            broker_id=0,
            data_path=self.here,
            zookeeper=ZooKeeperConfig(root="/meta"),
            topics={"t": TopicConfig("t", data_path=self.here)},
        )
        self.node("/meta/consumers/g/offsets/t/0-0", b"-3-777")

    def now_deferred(self, done: Deferred[T]) -> T:
        """The result."""
        return self.successResultOf(done)

    def node(self, path: str, data: bytes) -> None:
        """A node in ZooKeeper."""
        self.runtime.tree.create(path, data, 0)

    def stored(self) -> bytes | None:
        """The group's position."""
        return self.runtime.tree.find("/meta/consumers/g/offsets/t/0-0").data

    def promote(self, old: str | None, change: bool = True) -> Promotion:
        """A whole run."""
        promoting = Promoting(self.runtime, self.registry, self.config, old, 5)
        return self.now(promoting.run(change))

    def test_missing(self) -> None:
        """What the old master has beyond, a line for each partition."""
        old = write(self.mktemp(), t_0=ONE + TWO, t_1=TWO, t_2=ONE, u_0=ONE)
        self.assertEqual(
            [
                "t-0: 50 bytes of the old master from offset 50 on are missing",
                "t-1: the old master has something else from offset 0 on",
                "t-2: 50 bytes of the old master from offset 0 on are missing",
                "u-0: 50 bytes of the old master from offset 0 on are missing",
            ],
            self.promote(old).missing(),
        )

    def test_nothing_missing(self) -> None:
        """This broker may have more."""
        promotion = self.promote(write(self.mktemp(), t_0=ONE))
        self.assertEqual([], promotion.missing())
        self.assertEqual(b"-3-50", self.stored())

    def test_check(self) -> None:
        """Nothing is changed."""
        promotion = self.promote(write(self.mktemp(), t_0=ONE), change=False)
        self.assertEqual((1, b"-3-777"), (len(promotion.recovered.changes), self.stored()))

    def test_refused_while_registered(self) -> None:
        """The text names the node and the address."""
        self.node("/meta/brokers/ids/0/master", b"meta://old:8123")
        promoting = Promoting(self.runtime, self.registry, self.config, None, 5)
        failure = self.failureResultOf(Deferred.fromCoroutine(promoting.run()), StillRegistered)
        self.assertIn("meta://old:8123 is registered as broker 0", str(failure.value))
        self.assertEqual(b"-3-777", self.stored())

    def test_old_master_comes_back(self) -> None:
        """While the logs were compared: no position is changed."""
        old = write(self.mktemp(), t_0=ONE)
        promoting = Promoting(self.runtime, self.registry, self.config, old, 5)
        running = promoting.run(
            progress=lambda row: self.node(
                f"/meta/brokers/ids/0/{'master' if not row.number else 'x'}", b"meta://old:1"
            )
        )
        self.failureResultOf(Deferred.fromCoroutine(running), StillRegistered)
        self.assertEqual(b"-3-777", self.stored())

    def test_old_master_unknown(self) -> None:
        """It is said that something may be missing, and the positions are corrected."""
        promotion = self.promote(None)
        (line,) = promotion.missing()
        self.assertIn("ZooKeeper does not say where it was", line)
        self.assertEqual(b"-3-50", self.stored())

    def test_old_master_that_was_named(self) -> None:
        """It must be there."""
        promoting = Promoting(self.runtime, self.registry, self.config, "/nowhere", 5)
        self.failureResultOf(Deferred.fromCoroutine(promoting.run()), StoreError)
        self.assertEqual(b"-3-777", self.stored())
