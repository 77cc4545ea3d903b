"""Rollbacks and seeks while the fetch loop is busy."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from metamorphosis.client.delivery.delivery import PartitionDelivery
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.settings import MAX_OFFSET
from metamorphosis.message import HEADER
from tests.support.fetchstage import Asked, FetchCase, records
from tests.support.memorybroker import Log, MemoryBroker
from tests.unit.client.delivery.test_delivery import DeliveryCase, messages


class LoopTests(FetchCase):
    """The position is moved between two steps of the loop."""

    def present(self) -> PartitionDelivery:
        """The delivery of the one partition."""
        delivery = self.fetching.delivery_of("t", Partition(0, 1))
        assert delivery is not None
        return delivery

    def begin_damaged(self) -> None:
        """Two messages that wait for their ack, and damage after them; the offset request for its
        end is pending."""
        self.begin(subscription={"auto_ack": False})
        damaged = HEADER.pack(-1, 0, 0, 0) + b"x" * 30
        log = Log()
        log.data = records(b"one", b"two") + damaged + records(b"six", first_id=6)
        self.broker = MemoryBroker(self.runtime)
        self.broker.logs["t", 1] = log
        self.value(self.request(), records(b"one", b"two") + damaged)
        _, self.search = self.requests()

    def found(self) -> None:
        """The broker names the place after the damage."""
        search: Asked | None = self.search
        while search is not None:
            self.link.receive(getattr(self.broker, f"_{search.words[0]}")(search))
            search = next(iter(self.requests()), None)

    def test_rollback_while_damage_is_passed(self) -> None:
        """Rolled back messages are delivered again, although the end of the damage is being looked
        for."""
        self.begin_damaged()
        self.present().rollback(self.kept[0])
        self.found()
        self.assertEqual(0, self.position.offset)
        _, asked = self.pause()
        self.assertEqual(0, asked.offset)

    def test_seek_while_damage_is_passed(self) -> None:
        """A seek takes precedence over the end of the damage."""
        self.begin_damaged()
        self.present().seek(23)
        self.found()
        _, asked = self.pause()
        self.assertEqual((23, 23), (asked.offset, self.position.offset))

    def test_before_a_large_batch_is_delivered(self) -> None:
        """A received batch is not delivered after the position was moved: its messages and their
        acks would be wrong."""
        for go in (lambda: self.present().seek(23), lambda: self.present().rollback(self.kept[0])):
            self.got, self.kept = [], []
            self.begin(max_size=1 << 20, max_body=1 << 20, subscription={"auto_ack": False})
            self.value(self.request(), records(b"one", b"two"))
            large = self.request()
            data = records(b"x" * 70000, first_id=3)
            self.link.receive(b"value %d %d\r\n%b" % (len(data), large.opaque, data))
            go()
            wanted = self.present().progress.resume_offset
            self.runtime.advance(0)
            self.assertEqual([1, 2], self.got)
            _, asked = self.pause_behind(46 + len(data))
            self.assertEqual(wanted, asked)

    def pause_behind(self, ahead: int) -> tuple[float, int]:
        """The offset of the next request, apart from the one that was sent ahead."""
        for step in range(640):
            for found in self.requests():
                if found.offset != ahead:
                    return step / 64, found.offset
            self.runtime.advance(1 / 64)
        raise AssertionError("nothing is asked for 10 s")

    def test_while_a_message_is_put_together(self) -> None:
        """The first part of a long message is dropped when the position is moved."""
        self.begin(max_size=5000)
        log = records(b"one", b"x" * 2000, b"six")
        self.value(self.request(), log[:500])
        asked = self.request()
        self.assertEqual(23, asked.offset)
        self.value(asked, log[23:523])
        while (asked := self.pause()[1]).offset == 23:
            self.value(asked, log[23:523])
        self.assertEqual(523, asked.offset)
        self.present().seek(2043)
        self.assertEqual(2043, self.request().offset)

    def test_late_rollback_pauses(self) -> None:
        """A rollback without a running delivery is followed by a pause, too; a seek is not."""
        self.begin(subscription={"auto_ack": False})
        self.value(self.request(), records(b"one", b"two"))
        self.request()
        self.present().seek(23)
        self.assertEqual(23, self.request().offset)
        self.present().seek(0)
        self.value(self.request(), records(b"one", b"two"))
        self.request()
        self.present().rollback(self.kept[-1])
        seconds, asked = self.pause()
        self.assertEqual((0.5, 0), (seconds, asked.offset))

    def test_end_is_stored_when_it_is_known(self) -> None:
        """A seek to the end is not stored before the broker has named the offset: the next reader
        would miss messages."""
        self.begin()
        self.request()
        self.present().seek(MAX_OFFSET)
        self.assertFalse(self.position.modified)
        self.result(self.request(), 200, b"500")
        self.assertEqual((500, True), (self.position.offset, self.position.modified))


class SlotTests(DeliveryCase):
    """The position is moved while a delivery waits for its slot."""

    def test_nothing_is_handed_over(self) -> None:
        """Messages that were rolled back while they waited for a slot are not delivered: an ack of
        one would acknowledge all earlier ones."""
        self.rules.slots = Slots(self.runtime, 1)
        kept: list[ReceivedMessage] = []
        delivery = self.delivery(kept.append, auto_ack=False)
        self.deliver(delivery, 0, 1)
        waiting: Deferred[None] = Deferred()
        self.runtime.start(self.delivery(lambda _: waiting).deliver(messages(0)))
        done = self.runtime.start(delivery.deliver(messages(2)))
        delivery.rollback(kept[0])
        waiting.callback(None)
        self.assertFalse(self.runtime.result(done))
        self.assertEqual([0, 1], [each.id for each in kept])
        self.assertEqual((1, 0), (self.rules.slots.free, delivery.progress.resume_offset))
