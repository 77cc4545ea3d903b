"""The turn in C with stores that cannot be written at once: their records collect, replies wait."""

from __future__ import annotations

import os
import re
import resource
import socket
from errno import EIO
from typing import Any

from metamorphosis.broker.connection import TURN_COMMANDS
from metamorphosis.broker.lanes import LaneSet
from metamorphosis.config.model import Settings
from metamorphosis.message import HEADER_BYTES
from metamorphosis.readgate import Reason
from metamorphosis.store.states import Worker
from tests.support.lanes import Peer, Served
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_lanes import LaneCase


def opaques(came: bytes) -> list[int]:
    """Those of the replies, in order."""
    return [int(opaque) for opaque in re.findall(rb"result \d+ \d+ (-?\d+)\r\n", came)]


class CollectingCase(LaneCase):
    """Group commit, with flushes that end when the test says so."""

    def group(self, **options: Any) -> Served:
        """A broker whose two partitions have a message each."""
        served = Served(self.mktemp(), True, unflush_threshold=0, **options)
        self.addCleanup(served.close)
        first = served.connect()
        first.send(put(b"first") + put(b"first", partition=b"1"))
        served.turn()
        self.assertEqual(first.received().count(b"result 200"), 2)
        first.send(b"get test g 1 0 25 1\r\n")
        served.turn()
        self.assertIn(b"value 25 1", first.received())
        return served

    def only_in_c(self, served: Served) -> Peer:
        """A plain connection that fails if a byte of it is left to Python."""
        peer = self.plain(served)
        peer.connection.received = None  # type: ignore[assignment,method-assign]
        return peer

    def lanes(self, served: Served) -> Any:
        """The object in C."""
        assert isinstance(served.sockets, LaneSet)
        return served.sockets._lanes

    def assert_nothing_waits(self, served: Served) -> None:
        """No request counts as unanswered."""
        self.assertEqual(self.lanes(served).held(), 0)
        self.assertEqual(served.broker.factory.shared.waiting, 0)


class TakenTests(CollectingCase):
    """What stays in C from the first byte to the reply."""

    def test_group_commit(self) -> None:
        """Replies leave after the flush, one flush answers all that wait; nothing becomes slow."""
        served = self.group()
        peers = [self.only_in_c(served) for _ in range(3)]
        store = self.store(served)
        before = store.put_count, store.put_bytes, store.next_offset, store.message_count
        served.broker.threads.hold()
        peers[0].send(put(b"alone"))
        served.turn()
        for number, peer in enumerate(peers):
            peer.send(put(b"x" * number, opaque=b"%d" % number) * 2)
        served.turn()
        self.assertEqual([peer.received() for peer in peers], [b"", b"", b""])
        self.assertEqual(self.lanes(served).held(), served.broker.factory.shared.waiting)
        served.broker.threads.release_one()
        self.assertEqual([opaques(peer.received()) for peer in peers], [[1], [], []])
        served.turn()
        self.assertEqual(served.broker.threads.held, 1, "one flush for all")
        served.broker.threads.release()
        found = [opaques(peer.received()) for peer in peers]
        self.assertEqual(found, [[0, 0], [1, 1], [2, 2]])
        after = store.put_count, store.put_bytes, store.next_offset, store.message_count
        size = 7 * HEADER_BYTES + 5 + 2 * (0 + 1 + 2)
        grown = (before[0] + 7, before[1] + 11, before[2] + size, before[3] + 7)
        self.assertEqual(after, grown)
        self.assertTrue(all(self.is_plain(served, peer) for peer in peers))
        self.assert_nothing_waits(served)

    def test_worker_that_must_not_be_disturbed(self) -> None:
        """The default mode while its last segment is being flushed at a roll: the same."""
        served = self.serve()
        peer = self.only_in_c(served)
        store = self.store(served)
        store.worker = Worker.HOLDING
        other = put(b"other", partition=b"1", opaque=b"1")
        peer.send(other + put(b"waits", opaque=b"2") + other.replace(b" 1\r\n", b" 3\r\n"))
        served.turn()
        self.assertEqual(opaques(peer.received()), [1], "no later reply leaves before an earlier")
        peer.send(other.replace(b" 1\r\n", b" 4\r\n"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        store.worker = Worker.IDLE
        store.proceed()
        self.assertEqual(opaques(peer.received()), [2, 3, 4])
        self.assertTrue(self.is_plain(served, peer))
        self.assert_nothing_waits(served)

    def test_batches_of_two_partitions(self) -> None:
        """Whichever is flushed first, the replies leave in request order."""
        for first in (0, 1):
            served = self.group()
            peer = self.only_in_c(served)
            served.broker.threads.hold()
            peer.send(
                put(b"a", partition=b"%d" % first, opaque=b"1")
                + put(b"b", partition=b"%d" % (1 - first), opaque=b"2")
                + put(b"c", partition=b"%d" % first, opaque=b"3")
            )
            served.turn()
            served.broker.threads.release_one()
            early = opaques(peer.received())
            served.broker.threads.release()
            self.assertEqual(early + opaques(peer.received()), [1, 2, 3])
            self.assert_nothing_waits(served)

    def test_puts_of_python_and_c_share_a_batch(self) -> None:
        """A connection that Python serves and a plain one put to the same partition."""
        served = self.group()
        plain, slow = self.only_in_c(served), served.connect()
        served.broker.threads.hold()
        plain.send(put(b"busy", opaque=b"1"))
        served.turn()
        slow.send(b"version 2\r\n" + put(b"slow", opaque=b"3"))
        served.turn()
        plain.send(put(b"plain", opaque=b"4"))
        served.turn()
        batch = self.store(served).batch
        assert batch is not None
        self.assertEqual(batch.count, 2)
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(plain.received()), [1, 4])
        self.assertEqual(opaques(slow.received()), [2, 3])
        data = served.files()["test-0/0"]
        self.assertIn(b"slow" + data[-25:-5] + b"plain", data)

    def test_no_reference_is_kept(self) -> None:
        """Thousands of rounds leave as many blocks as there were."""
        served = self.group(max_segment_size=1 << 30)
        peers = [self.only_in_c(served) for _ in range(2)]
        self.patch(os, "fdatasync", lambda descriptor: None)

        def work() -> None:
            for _ in range(50):
                for peer in peers:
                    peer.send(put(b"x" * 50) * 3 + put(b"z", partition=b"1"))
                served.turn()
                for peer in peers:
                    self.assertEqual(len(opaques(peer.received())), 4)

        self.assert_no_growth(work)


class RefusedTests(CollectingCase):
    """Disks that fail."""

    def test_flush_fails(self) -> None:
        """Every put of the batch is refused, in request order, and the connections continue."""
        served = self.group()
        one, two = self.plain(served), self.plain(served)
        store = self.store(served)
        end = store.next_offset
        failing = [OSError(EIO, "Input/output error")]

        def fdatasync(descriptor: int) -> None:
            if failing:
                raise failing.pop()

        served.broker.threads.hold()
        one.send(put(b"a", opaque=b"1") + put(b"kept", partition=b"1", opaque=b"2"))
        two.send(put(b"b", opaque=b"3") * 2)
        served.turn()
        self.patch(os, "fdatasync", fdatasync)
        served.broker.threads.release_one()
        served.broker.threads.release()
        served.turn()
        first, second = one.received(), two.received()
        self.assertEqual((opaques(first), opaques(second)), ([1, 2], [3, 3]))
        self.assertEqual((first.count(b"result 500"), second.count(b"result 500")), (1, 2))
        self.assertEqual((store.next_offset, len(served.files()["test-0/0"])), (end, end))
        self.assert_nothing_waits(served)
        for _ in range(3):
            one.send(put(b"again"))
            served.turn()
        self.assertEqual(one.received().count(b"result 200"), 3)
        self.assertTrue(self.is_plain(served, one))

    def test_part_of_a_run_is_written(self) -> None:
        """Exactly the puts whose records are not in the file are refused."""
        served = self.serve()
        one, two = self.plain(served), self.plain(served)
        store = self.store(served)
        before = self.fill(served)
        store.worker = Worker.HOLDING
        puts = [put(b"%04d" % number, opaque=b"%d" % number) for number in range(6)]
        one.send(b"".join(puts[:3]))
        served.turn()
        two.send(b"".join(puts[3:]))
        served.turn()
        self.limit(before + 4 * 24 + 10)
        store.worker = Worker.IDLE
        store.proceed()
        served.turn()
        self.limit(resource.RLIM_INFINITY)
        first, second = one.received(), two.received()
        self.assertEqual((opaques(first), opaques(second)), ([0, 1, 2], [3, 4, 5]))
        self.assertEqual((first.count(b"result 200"), second.count(b"result 200")), (3, 1))
        data = served.files()["test-0/0"]
        self.assertEqual((len(data), store.next_offset), (before + 4 * 24, before + 4 * 24))
        self.assertEqual(store.message_count, 7 + 4 + 0)
        self.assert_nothing_waits(served)

    def test_part_of_a_mixed_batch_is_written(self) -> None:
        """Runs from C and single records from Python are numbered together."""
        served = self.serve()
        plain, slow = self.plain(served), served.connect()
        store = self.store(served)
        before = self.fill(served)
        store.worker = Worker.HOLDING
        puts = [put(b"%04d" % number, opaque=b"%d" % number) for number in range(7)]
        plain.send(b"".join(puts[:3]))
        served.turn()
        slow.send(b"version 9\r\n" + b"".join(puts[3:5]))
        served.turn()
        plain.send(b"".join(puts[5:]))
        served.turn()
        self.limit(before + 4 * 24 + 10)
        store.worker = Worker.IDLE
        store.proceed()
        served.turn()
        self.limit(resource.RLIM_INFINITY)
        statuses = {
            int(opaque): int(status)
            for came in (plain.received(), slow.received())
            for status, opaque in re.findall(rb"result (\d+) \d+ (\d+)\r\n", came)
        }
        refused = dict.fromkeys((4, 5, 6), 500)
        self.assertEqual(statuses, dict.fromkeys((0, 1, 2, 3, 9), 200) | refused)
        self.assertEqual(len(served.files()["test-0/0"]), before + 4 * 24)

    def test_store_that_is_closed(self) -> None:
        """Its puts are left to Python, which knows the text of the refusal."""
        served = self.group()
        peer = self.plain(served)
        served.broker.stores.close()
        peer.send(put(b"late"))
        served.turn()
        self.assertIn(b"result 500", peer.received())


class EndTests(CollectingCase):
    """Connections that end, pause or ask for something else while their replies wait."""

    def test_get_behind_waiting_puts(self) -> None:
        """It is answered after them."""
        served = self.group()
        peer = self.plain(served)
        served.broker.threads.hold()
        peer.send(put(b"a", opaque=b"1") + b"get test g 1 0 25 2\r\n" + put(b"b", opaque=b"3"))
        served.turn()
        self.assertEqual(peer.received(), b"")
        served.broker.threads.release()
        served.turn()
        came = peer.received()
        at = [came.index(each) for each in (b"result 200", b"value 25 2\r\n")]
        self.assertEqual((at, opaques(came)), (sorted(at), [1, 3]))
        self.assert_nothing_waits(served)

    def test_put_behind_get(self) -> None:
        """The range is sent at once, the reply after the flush."""
        served = self.group()
        peer = self.plain(served)
        served.broker.threads.hold()
        peer.send(b"get test g 1 0 25 2\r\n" + put(b"b", opaque=b"3"))
        served.turn()
        self.assertTrue(peer.received().startswith(b"value 25 2\r\n"))
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(peer.received()), [3])

    def test_connection_that_is_reset(self) -> None:
        """Its replies are dropped, its message is stored, others are answered."""
        served = self.group()
        one, two = self.plain(served), self.plain(served)
        served.broker.threads.hold()
        one.send(put(b"gone"))
        two.send(put(b"stays", opaque=b"5"))
        served.turn()
        one.transport.abortConnection()
        served.turn()
        self.assertFalse(one.transport.connected)
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(two.received()), [5])
        self.assertIn(b"gone", served.files()["test-0/0"])
        self.assert_nothing_waits(served)

    def test_half_closed_peer(self) -> None:
        """It gets its replies, then the connection ends."""
        served = self.group()
        peer = self.plain(served)
        served.broker.threads.hold()
        peer.send(put(b"x", opaque=b"1") * 2)
        served.turn()
        peer.socket.shutdown(1)
        served.turn()
        self.assertTrue(peer.transport.connected)
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(peer.received()), [1, 1])
        self.assertFalse(peer.transport.connected)

    def test_broker_stops(self) -> None:
        """What was taken is answered before the connection closes."""
        served = self.group()
        peer = self.plain(served)
        served.broker.threads.hold()
        peer.send(put(b"x", opaque=b"1"))
        served.turn()
        done = served.broker.factory.close_connections()
        served.turn()
        self.assertNoResult(done)
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(peer.received()), [1])
        served.advance(5)
        self.successResultOf(done)
        self.assert_nothing_waits(served)

    def test_too_much_of_one_connection_waits(self) -> None:
        """It pauses until the replies leave; every request is answered, once."""
        served = self.group(settings=Settings(max_connection_bytes=2000))
        peer = self.plain(served)
        served.broker.threads.hold()
        for number in range(30):
            peer.send(put(bytes(200), opaque=b"%d" % number))
            served.turn()
        self.assertIn(Reason.REPLIES, peer.connection._gate)
        self.assertLess(served.broker.factory.shared.waiting, 5000)
        served.broker.threads.release()
        served.turn()
        self.assertEqual(opaques(peer.received()), list(range(30)))
        self.assert_nothing_waits(served)

    def test_too_much_of_all_connections_waits(self) -> None:
        """Those that add to it pause; one without requests does not."""
        served = self.group(settings=Settings(max_total_bytes=3000))
        peers = [self.plain(served) for _ in range(4)]
        idle = self.plain(served)
        served.broker.threads.hold()
        for number in range(10):
            for peer in peers:
                peer.send(put(bytes(200), opaque=b"%d" % number))
            served.turn()
        gates = [Reason.SERVER in peer.connection._gate for peer in (*peers, idle)]
        self.assertEqual(gates, [True, True, True, True, False])
        self.assertLess(served.broker.factory.shared.waiting, 6000)
        served.broker.threads.release()
        served.turn()
        for peer in peers:
            self.assertEqual(opaques(peer.received()), list(range(10)))
        self.assert_nothing_waits(served)

    def test_late_reply_behind_a_part_of_another(self) -> None:
        """The flush of another client's put, which is the lone one of earlier turns, answers a held
        get: the reply follows the rest of the one of which C has sent a part."""
        served = self.group()
        lone, reader = served.connect(), served.connect()
        reader.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        lone.send(put(bytes(100_000), partition=b"1") + b"version 1\r\n" * 2 * TURN_COMMANDS)
        served.turn()
        self.assertIs(served.broker.turn._lone, lone.connection)
        reader.send(b"get test g 0 %d 100 1 5000\r\n" % self.store(served).max_offset)
        served.turn()
        for _ in range(5):
            reader.send(b"get test g 1 0 25 2\r\n")
            lone.send(put(b"x", partition=b"1"))
            served.turn()
            reader.received()
        self.assertTrue(self.is_plain(served, lone) and self.is_plain(served, reader))
        lone.send(put(b"late") + b"version 3\r\n")
        reader.send(b"get test g 1 0 100000 4\r\n")
        came = bytearray()
        served.turn()
        while piece := reader.received() or reader.transport.queued_bytes:
            came += piece if isinstance(piece, bytes) else b""
            served.turn()
        self.assertEqual(came.index(b"value 24 1\r\n"), len(b"value 100000 4\r\n") + 100_000)
