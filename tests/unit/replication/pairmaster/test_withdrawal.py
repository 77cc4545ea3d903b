"""A pair master is in ZooKeeper while a put can succeed, and only then."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.replication.pairmaster.pairedlog import Standing
from metamorphosis.replication.pairmaster.role import REFUSING
from metamorphosis.replication.pairmaster.withdrawal import LOOKS, Visibility
from tests.support.pairing import DISCONNECTED, SLAVE_FAILED, Pair, put, result
from tests.support.partitions import BreakableDisk
from tests.support.scriptedlogs import PROBE
from tests.support.scriptedpeers import Fault

ALL = [
    "ids/0",
    "ids/0/master",
    "ids/0/master_config_checksum",
    "topics-pub/test/0-m",
    "topics-sub/test/0-m",
    "topics/test/0-m",
]


class VisibleCase(SynchronousTestCase):
    """A pair whose master withdraws after three failures."""

    def setUp(self) -> None:
        """Not connected yet."""
        self.pair = Pair(self.mktemp(), threshold=3)
        self.addCleanup(self.pair.gregor.verify)
        self.client = self.pair.client()

    @property
    def state(self) -> Visibility:
        """Of the master."""
        return self.pair.role.withdrawal.state

    def freeze_until_withdrawn(self) -> None:
        """The slave hangs, and three puts fail."""
        self.pair.connect()
        self.pair.send(self.client, put(b"first"))
        self.pair.gregor.freeze()
        self.pair.send(self.client, b"".join(put(b"%d" % n, n) for n in range(3)))
        self.pair.advance(2.2)
        self.assertEqual(
            self.client.received(), b"".join(result(500, SLAVE_FAILED % 0, n) for n in range(3))
        )


class StartTests(VisibleCase):
    """At the start."""

    def test_row_R38(self) -> None:
        """Without a slave: puts are refused at once, nothing is registered until it is joined."""
        self.pair.advance(5, 1)
        self.assertEqual(self.pair.nodes(), [])
        reply = self.pair.send(self.client, put(b"x", 4))
        self.assertEqual(reply, result(500, DISCONNECTED, 4))
        self.assertEqual(self.pair.nodes(), [])
        self.pair.connect()
        self.assertEqual(self.pair.nodes(), ALL)
        self.assertIn(b"result 200", self.pair.send(self.client, put(b"x")))

    def test_not_while_it_is_being_joined(self) -> None:
        """A connection alone is not enough."""
        self.pair.gregor.freeze()
        self.pair.connect()
        self.assertEqual(self.pair.nodes(), [])
        self.pair.gregor.thaw()
        self.pair.settle()
        self.assertEqual(self.pair.nodes(), ALL)

    def test_java_slave_deletes_topic_nodes(self) -> None:
        """After the joining, once and again: they are put back."""
        self.pair.connect()
        for _ in range(2):
            self.pair.gregor.delete_topic_nodes(
                lambda path: self.pair.tree.delete(path) if path in self.pair.tree.nodes else None
            )
            self.assertLess(len(self.pair.nodes()), len(ALL))
            self.pair.advance(8, 1)
            self.assertEqual(self.pair.nodes(), ALL)


class ThresholdTests(VisibleCase):
    """Too many failures in a row."""

    def test_row_R36(self) -> None:
        """The slave is frozen: withdrawn at the threshold, and probed."""
        self.freeze_until_withdrawn()
        self.assertEqual(self.pair.nodes(), [])
        self.assertEqual(self.state, Visibility.PROBING)
        self.assertGreaterEqual(self.pair.role.withdrawal.probes, 1)

    def test_row_R37(self) -> None:
        """The slave continues: all nodes come back, the next put is acknowledged, no failures."""
        self.freeze_until_withdrawn()
        self.pair.gregor.thaw()
        self.pair.advance(0.5)
        self.assertEqual(self.pair.nodes(), ALL)
        self.assertIn(b"result 200", self.pair.send(self.client, put(b"next")))
        self.assertEqual(self.pair.role.syncs.failures, 0)
        self.assertEqual(self.pair.own(), self.pair.slaves())
        self.assertIn((PROBE, 0), self.pair.gregor.logs)

    def test_probe_as_the_original_sends_it(self) -> None:
        """To the byte, but for id and opaque."""
        self.freeze_until_withdrawn()
        wire = self.pair.wire
        assert wire is not None
        waiting = bytes(wire.line._waiting)
        start = waiting.index(b"sync " + PROBE.encode())
        line, _, rest = waiting[start:].partition(b"\r\n")
        words = line.split(b" ")
        self.assertEqual(words[:5], [b"sync", PROBE.encode(), b"0", b"4", b"0"])
        self.assertEqual(words[6], b"1484750348")
        self.assertEqual((len(words), rest[:4]), (8, b"test"))

    def test_row_R60(self) -> None:
        """The line swallows everything, then breaks: time limits, withdrawal, return, identical."""
        self.freeze_until_withdrawn()
        self.pair.gregor.frozen = False
        self.pair.gregor.kill()
        assert self.pair.wire is not None
        self.pair.lose()
        self.assertEqual(self.state, Visibility.AWAY)
        self.pair.connect()
        self.pair.advance(0.5)
        self.assertEqual(self.pair.nodes(), ALL)
        self.assertEqual(self.pair.own(), self.pair.slaves())

    def test_disconnected_puts_count(self) -> None:
        """A slave that is down leads to the withdrawal."""
        self.pair.connect()
        self.pair.lose()
        self.assertEqual(self.pair.nodes(), ALL)
        for _ in range(3):
            self.pair.send(self.client, put(b"x"))
        self.assertEqual(self.pair.nodes(), [])
        self.assertEqual(self.state, Visibility.AWAY)
        self.pair.connect()
        self.assertEqual(self.pair.nodes(), ALL)

    def test_without_puts_and_connection(self) -> None:
        """Without puts a lost slave leads to the withdrawal after the time of the threshold; a
        short loss has no effect."""
        self.pair = Pair(self.mktemp(), threshold=20)
        self.pair.connect()
        self.pair.lose()
        self.pair.advance(1.4)
        self.pair.connect()
        self.pair.lose()
        self.pair.advance(1.4)
        self.assertEqual(self.pair.nodes(), ALL)
        self.pair.advance(1.2)
        self.assertEqual(self.pair.nodes(), [])
        self.assertEqual(self.state, Visibility.AWAY)
        self.pair.connect()
        self.assertEqual(self.pair.nodes(), ALL)
        self.pair.lose()
        self.pair.advance(3)
        self.assertEqual(self.pair.nodes(), [])

    def test_without_puts_and_joined_partitions(self) -> None:
        """A connection without a joined partition does the same, until an operator has repaired
        one."""
        self.pair.connect()
        self.pair.send(self.client, put(b"x"))
        self.pair.gregor.log("test", 0).data[30:] = b""
        self.pair.gregor.log("test", 0).data[-1:] = b"y"
        self.pair.lose()
        self.pair.connect()
        self.assertEqual(self.pair.log().standing, Standing.DIVERGED)
        self.assertEqual(self.pair.nodes(), ALL)
        self.pair.advance(2)
        self.assertEqual(self.pair.nodes(), [])
        self.pair.gregor.log("test", 0).data[-1:] = b"x"
        self.pair.advance(60, 1)
        self.assertEqual(self.pair.nodes(), ALL)

    def test_refusals_count(self) -> None:
        """So do refusals, in a row only; the probe that is accepted brings it back."""
        self.pair.connect()
        self.pair.advance(1.1)
        self.pair.gregor.faults = {1: Fault.REFUSE, 2: Fault.FAIL, 4: Fault.FAIL, 5: Fault.FAIL}
        for number in range(5):
            self.pair.send(self.client, put(b"%d" % number))
        self.assertEqual(self.state, Visibility.PRESENT)
        probes = self.pair.role.withdrawal.probes
        self.pair.gregor.faults = {6: Fault.FAIL}
        self.pair.send(self.client, put(b"x"))
        self.pair.advance(0.2)
        self.assertEqual(self.pair.role.withdrawal.probes, probes + 1)
        self.assertEqual(self.pair.nodes(), ALL)

    def test_full_disk(self) -> None:
        """
        While nothing can be written here no put can succeed, whatever the slave answers to probes;
        it comes back when the disk does.
        """
        disk = BreakableDisk()
        self.pair = Pair(self.mktemp(), threshold=3, disk=disk)
        client = self.pair.client()
        self.pair.connect()
        self.assertIn(b"result 200", self.pair.send(client, put(b"x")))
        disk.room = 0
        for _ in range(4):
            self.pair.send(client, put(b"x"))
        self.assertEqual(self.state, Visibility.PROBING)
        self.pair.advance(5)
        self.assertEqual(self.pair.nodes(), [])
        disk.room = None
        self.pair.advance(3)
        self.assertEqual(self.pair.nodes(), ALL)
        self.assertIn(b"result 200", self.pair.send(client, put(b"x")))

    def test_once_a_second(self) -> None:
        """A slave that takes probes and no puts does not make it come and go all the time."""
        self.pair.connect()
        self.pair.gregor.faults = dict.fromkeys(range(1, 1000), Fault.FAIL)
        seen = []
        for _ in range(60):
            for number in range(3):
                self.pair.send(self.client, put(b"%d" % number))
            seen.append(self.state)
            self.pair.advance(0.05)
            seen.append(self.state)
        changes = sum(one is not other for one, other in zip(seen, seen[1:]))
        self.assertTrue(3 <= changes <= 8, changes)

    def test_refused_probe(self) -> None:
        """The next one follows after the interval."""
        self.pair.connect()
        del self.pair.gregor.topics[PROBE]
        self.pair.gregor.faults = dict.fromkeys((1, 2, 3), Fault.FAIL)
        self.pair.send(self.client, b"".join(put(b"%d" % n, n) for n in range(3)))
        self.pair.advance(1.01, 0.01)
        self.assertIn(self.pair.role.withdrawal.probes, (10, 11))
        self.assertEqual(len(self.pair.role.withdrawal._timers), len(LOOKS))  # not one for each
        self.assertEqual(self.pair.nodes(), [])
        self.pair.gregor.topics[PROBE] = 1
        self.pair.advance(0.2, 0.01)
        self.assertEqual(self.pair.nodes(), ALL)

    def test_status_while_probing(self) -> None:
        """A partition is not well whose puts the slave refuses, although both logs are the same."""
        self.pair.connect()
        self.pair.send(self.client, put(b"x"))
        self.assertTrue(self.pair.role.figures().is_well)
        self.pair.gregor.faults = dict.fromkeys(range(2, 9), Fault.FAIL)
        del self.pair.gregor.topics[PROBE]
        self.pair.send(self.client, b"".join(put(b"%d" % n, n) for n in range(3)))
        figures = self.pair.role.figures()
        self.assertFalse(figures.is_well)
        self.assertEqual(figures.partitions[0].stands, REFUSING)
        self.pair.gregor.topics[PROBE] = 1
        self.pair.advance(1.2)
        self.assertTrue(self.pair.role.figures().is_well)

    def test_late_answers_do_not_end_the_count(self) -> None:
        """A slave that answers everything too late is withdrawn from."""
        self.pair.connect()
        for number in range(3):
            self.pair.gregor.freeze()
            self.pair.send(self.client, put(b"%d" % number))
            self.pair.advance(2.2)
            if number < 2:
                self.pair.gregor.thaw()
                self.pair.settle()
        self.assertEqual(self.pair.nodes(), [])


class SessionTests(VisibleCase):
    """ZooKeeper fails meanwhile."""

    def test_expired_session(self) -> None:
        """It does not register a master that may not be, and registers it when it may."""
        self.freeze_until_withdrawn()
        registry = self.pair.registry
        assert registry is not None
        registry.expire()
        self.pair.advance(1)
        self.assertEqual(self.pair.nodes(), [])
        self.pair.gregor.thaw()
        self.pair.advance(0.5)
        self.assertEqual(self.pair.nodes(), ALL)

    def test_registration_fails(self) -> None:
        """It is tried again."""
        self.freeze_until_withdrawn()
        registry = self.pair.registry
        assert registry is not None
        registry.lose()
        self.pair.gregor.thaw()
        self.pair.advance(0.5)
        self.assertEqual(self.state, Visibility.PRESENT)
        registry.resume()
        self.pair.advance(6, 1)
        self.assertEqual(self.pair.nodes(), ALL)


class RecoveryTests(SynchronousTestCase):
    """``recoverOffset``: positions are corrected before the first registration."""

    def pair(self, position: bytes) -> Pair:
        """With a log, and a group that has stored a position in it."""
        pair = Pair(self.mktemp(), recovers_offsets=True)
        pair.connect()
        self.assertEqual(pair.nodes(), ALL)
        pair.send(pair.client(), put(b"a") + put(b"bb"))
        pair.kill()
        first = pair.gregor.log("test", 0).ids()[0]
        stored = position.replace(b"ID", b"%d" % first)
        pair.tree.create("/meta/consumers/g/offsets/test/0-0", stored, 0)
        pair.start()
        pair.connect()
        self.assertEqual(pair.nodes(), ALL)
        return pair

    def test_corrected(self) -> None:
        """To the end of the message with the same id."""
        pair = self.pair(b"ID-17")
        data = pair.tree.find("/meta/consumers/g/offsets/test/0-0").data
        self.assertEqual(data, b"%d-21" % pair.gregor.log("test", 0).ids()[0])

    def test_never_in_the_way(self) -> None:
        """What cannot be understood is left, and the broker is registered."""
        pair = self.pair(b"garbage")
        data = pair.tree.find("/meta/consumers/g/offsets/test/0-0").data
        self.assertEqual(data, b"garbage")
