"""``metaq consume``: its output, the acknowledgements, its beginning and end."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.cli import consume
from metamorphosis.cli.consume import StartingAt
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.model import Partition, Position, ReceivedMessage, StoredOffset
from metamorphosis.client.offsets.memory import MemoryOffsetStore
from metamorphosis.errors import MetaQError, NotBalanced
from metamorphosis.interfaces import IOffsetStore
from metamorphosis.message import encode_body
from tests.unit.cli.fakes import FakeConsumer, Run


def message(body: bytes, offset: int = 0, attribute: str | None = None) -> ReceivedMessage:
    """A message of partition 0-1."""
    flag = int(attribute is not None)
    stored = encode_body(body, attribute)
    return ReceivedMessage("t", Partition(0, 1), offset, 77, flag, stored)


class ConsumeTestCase(SynchronousTestCase):
    """A run and its consumer."""

    def run_metaq(self, arguments: str = "", **options: Any) -> Run:
        """``metaq consume t --group g`` with these options."""
        run = Run(f"consume t --group g {arguments}", **options)
        if run.session.registry is not None:
            run.session.master(0, t=2)
        return run.start()

    def consumer(self, run: Run) -> FakeConsumer:
        """The consumer of the command."""
        (consumer,) = run.session.consumers
        return consumer

    def deliver(self, run: Run, messages: Sequence[ReceivedMessage]) -> int:
        """Deliver a batch; the number of processed messages."""
        taken = self.begin(run, messages)
        try:
            run.runtime.result(taken)
        except Rollback as error:
            assert error.message is not None
            return list(messages).index(error.message)
        return len(messages)

    def begin(self, run: Run, messages: Sequence[ReceivedMessage]) -> Deferred[None]:
        """Deliver without waiting."""
        taken: Deferred[None] = run.runtime.start(self.consumer(run).listener(list(messages)))
        return taken


class OutputTests(ConsumeTestCase):
    """The output."""

    def test_bodies(self) -> None:
        """The sent bodies, a line each, without attributes, with any bytes."""
        run = self.run_metaq()
        batch = [message(b"one", attribute="a"), message(b""), message(b"\xff\x00")]
        self.assertEqual(self.deliver(run, batch), 3)
        self.assertEqual(run.output, b"one\n\n\xff\x00\n")

    def test_json(self) -> None:
        """One object a line, with all fields."""
        run = self.run_metaq("--json")
        self.deliver(run, [message("ä\n".encode(), 21, "x"), message(b"\xff", 50)])
        first, second = map(json.loads, run.text.splitlines())
        place = {"topic": "t", "partition": "0-1", "id": 77}
        self.assertEqual(first, {**place, "offset": 21, "attribute": "x", "body": "ä\n"})
        self.assertEqual(
            second,
            {**place, "offset": 50, "attribute": None, "body": None, "body_base64": "/w=="},
        )

    def test_raw(self) -> None:
        """Exact bodies without separators."""
        run = self.run_metaq("--raw")
        self.deliver(run, [message(b"a\n"), message(b""), message(b"\xff\x00")])
        self.assertEqual(run.output, b"a\n\xff\x00")

    def test_format(self) -> None:
        """The user's format."""
        run = self.run_metaq(r"--format {offset}:{attribute}={body}\n")
        self.deliver(run, [message(b"1", 31, "x"), message(b"2", 60)])
        self.assertEqual(run.output, b"31:x=1\n60:=2\n")

    def test_not_consumed_before_it_is_written(self) -> None:
        """The listener returns when the output has taken everything."""
        run = self.run_metaq()
        self.deliver(run, [message(b"first")])
        (writer,) = run.runtime.pools
        writer.hold()
        taken = self.begin(run, [message(b"second")])
        run.runtime.turn()
        self.assertNoResult(taken)
        writer.release()
        run.runtime.result(taken)
        self.assertEqual(run.text, "first\nsecond\n")

    def test_nobody_reads(self) -> None:
        """A closed pipe ends the command without a message; unwritten messages are not consumed."""
        run = self.run_metaq()
        run.output_error = OSError(errno.EPIPE, "Broken pipe")
        self.assertEqual(self.deliver(run, [message(b"one"), message(b"two")]), 0)
        self.assertEqual((run.status, run.said), (141, ""))
        self.assertTrue(self.consumer(run).closed)

    def test_full_disk(self) -> None:
        """Any other fault of the output is an error."""
        run = self.run_metaq()
        run.output_error = OSError(errno.ENOSPC, "No space left on device")
        self.assertEqual(self.deliver(run, [message(b"one")]), 0)
        self.assertEqual((run.status, run.said), (1, "metaq: output: No space left on device\n"))

    def test_nothing_is_given_up(self) -> None:
        """A message that could not be written never counts as processed."""
        consumer = self.consumer(self.run_metaq())
        self.assertRaises(MetaQError, consumer.reject, message(b"x"))


class PassedOverTests(ConsumeTestCase):
    """Messages that could not be read."""

    def test_status(self) -> None:
        """The status is not 0, and the error has their number and the reason."""
        for damaged, too_long, reason in (
            (2, 0, "2 passed over because they are damaged"),
            (0, 1, "1 passed over because they are too long: --max-body-bytes takes longer ones"),
        ):
            run = self.run_metaq("--max 1")
            passed_over = self.consumer(run).passed_over
            passed_over.damaged, passed_over.too_long = damaged, too_long
            self.deliver(run, [message(b"1")])
            self.assertEqual((run.status, run.said), (1, f"metaq: 1 consumed, {reason}\n"))


class EndTests(ConsumeTestCase):
    """``--max``, ``--idle``, Ctrl-C."""

    def test_max(self) -> None:
        """Exactly this number of messages is written and consumed, wherever a batch ends."""
        run = self.run_metaq("--max 3")
        self.assertEqual(self.deliver(run, [message(b"1"), message(b"2")]), 2)
        batch = [message(b"3"), message(b"4", 21), message(b"5", 42)]
        self.assertEqual(self.deliver(run, batch), 1)
        self.assertEqual((run.status, run.text), (0, "1\n2\n3\n"))

    def test_max_with_batches_at_the_same_time(self) -> None:
        """Partitions that deliver at the same time do not exceed it together."""
        run = self.run_metaq("--max 3")
        self.deliver(run, [message(b"1")])
        (writer,) = run.runtime.pools
        writer.hold()
        first = self.begin(run, [message(b"2"), message(b"3")])
        self.assertEqual(self.deliver(run, [message(b"4")]), 0)
        self.assertFalse(run.session.closed)
        writer.release()
        run.runtime.result(first)
        self.assertEqual((run.status, run.text), (0, "1\n2\n3\n"))

    def test_idle(self) -> None:
        """The command ends when no message has arrived for this time, counted from the last one."""
        run = self.run_metaq("--idle 2")
        run.runtime.advance(1.5)
        self.deliver(run, [message(b"1")])
        run.runtime.advance(1.9)
        self.assertFalse(run.session.closed)
        run.runtime.advance(0.2)
        self.assertEqual((run.status, run.said), (0, ""))

    def test_idle_because_a_broker_is_away(self) -> None:
        """A pause because a broker does not answer is not a success."""
        run = self.run_metaq("--idle 2")
        self.consumer(run).assignment = {("t", Partition(0, 1)): None}
        run.session.brokers["meta://b:1"].away = True
        run.runtime.advance(2.1)
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: nothing came; no broker answers for 0-1 of topic t\n")

    def test_interrupted(self) -> None:
        """The consumer leaves its group in order, and the status shows the interruption."""
        run = self.run_metaq()
        self.deliver(run, [message(b"1")])
        run.console.stop()
        self.assertEqual((run.status, run.said), (130, "metaq: interrupted; 1 consumed\n"))
        self.assertTrue(self.consumer(run).closed)

    def test_positions_that_cannot_be_stored(self) -> None:
        """Positions that cannot be stored are not a success: messages will be repeated."""
        run = self.run_metaq("--max 1")
        position = Position("t", Partition(0, 1), 21, 77, True)
        self.consumer(run).assignment = {("t", Partition(0, 1)): position}
        self.deliver(run, [message(b"1")])
        self.assertEqual(run.status, 1)
        self.assertEqual(
            run.said,
            "metaq: 1 consumed, but the position in 0-1 could not be stored: some will come"
            " again\n",
        )

    def test_progress(self) -> None:
        """Progress is written to standard error."""
        run = self.run_metaq("--max 1", interactive=True)
        run.runtime.advance(0.6)
        self.deliver(run, [message(b"1")])
        self.assertEqual(run.status, 0)
        self.assertIn("1 message, ", run.said.splitlines()[-1])


class JoiningTests(ConsumeTestCase):
    """Joining the group."""

    def test_not_yet(self) -> None:
        """A slow join is reported, and waited for."""
        run = Run("consume t --group g --idle 5")
        run.session.master(0, t=1)
        run.session.join_error = NotBalanced("0-0 is somebody else's")
        run.start()
        self.assertEqual(run.said, "metaq: 0-0 is somebody else's\n")
        run.runtime.advance(6)
        self.assertEqual(run.status, 0)

    def test_interrupted_meanwhile(self) -> None:
        """Ctrl-C ends the wait for the group."""
        run = Run("consume t --group g")
        run.session.master(0, t=2)
        run.session.joining = Deferred()
        run.start()
        run.console.stop()
        self.assertEqual((run.status, run.said), (130, "metaq: interrupted; 0 consumed\n"))
        self.assertTrue(self.consumer(run).closed)

    def test_refused(self) -> None:
        """An error that cannot pass ends the command."""
        run = Run("consume t --group g")
        run.session.master(0, t=2)
        run.session.join_error = MetaQError("no such root")
        run.start()
        self.assertEqual((run.status, run.said), (1, "metaq: no such root\n"))

    def test_no_such_topic(self) -> None:
        """A topic that no broker has or accepts is an error."""
        for direct in (False, True):
            run = Run("consume t --group g --idle 5", direct=direct)
            if not direct:
                run.session.master(0, u=2)
            run.start()
            self.assertEqual((run.status, run.session.consumers), (1, []))
            self.assertIn("no such topic: t; topics of ", run.said)
            self.assertIn("empty", run.said)

    def test_no_broker(self) -> None:
        """Without a registered broker the error does not blame the topic's name."""
        run = Run("consume t --group g").start()
        self.assertEqual(run.status, 1)
        self.assertIn("no topic is registered below root /meta: its brokers are away", run.said)

    def test_topic_to_come(self) -> None:
        """A topic that a section with a star accepts is waited for, with a message."""
        for direct in (False, True):
            run = Run("consume wilderness --group g --idle 5", direct=direct)
            if not direct:
                run.session.master(0, u=2)
            run.start()
            self.assertEqual(
                run.said, "metaq: no broker has topic wilderness yet; waiting for its messages\n"
            )

    def test_topic_of_a_broker_that_is_silent(self) -> None:
        """A broker that does not answer may have the topic: it is waited for."""
        run = Run("consume t --group g --idle 5")
        run.session.master(0, u=2).away = True
        run.session.master(1, u=2)
        run.start()
        self.assertIn("no broker has topic t yet", run.said)

    def test_brokers_that_cannot_be_reached(self) -> None:
        """If no broker can be reached the error comes at once; with a slave, or one that answers,
        the command waits."""
        for topic in ("t", "wilderness"):
            run = Run(f"consume {topic} --group g")
            run.session.master(0, t=2).away = True
            run.session.master(1, t=2).away = True
            run.start()
            self.assertEqual((run.status, run.session.consumers), (1, []))
            refused = "no connection: Connection refused"
            said = f"metaq: broker meta://b:1: {refused}; broker meta://b:2: {refused}\n"
            self.assertEqual(run.said, said)
        for node in ("0-s1", "1-m"):
            run = Run("consume t --group g")
            run.session.master(0, t=2).away = True
            run.session.master(1)
            run.session.node(f"brokers/topics-sub/t/{node}")
            self.assertEqual(len(run.start().session.consumers), 1)


class StartTests(ConsumeTestCase):
    """``--from``."""

    def load(self, run: Run, number: int = 0) -> StoredOffset | None:
        """The start of the consumer."""
        store = self.consumer(run).store
        loaded: StoredOffset | None = run.runtime.run(store.load("t", "g", Partition(0, number)))
        return loaded

    def begun(self, arguments: str) -> Run:
        """The group is at 50 of 100 in partition 0 of 2, the other of which is empty."""
        run = Run(f"consume t --group g {arguments}")
        run.session.master(0, t=2).ranges["t", 0] = (10, 100)
        run.session.node("consumers/g/offsets/t/0-0", "7-50")
        return run.start()

    def test_stored(self) -> None:
        """By default the group continues where it was."""
        run = self.begun("")
        self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 50, 7))
        self.assertIsNone(self.load(run, 1))

    def test_earliest(self) -> None:
        """With the oldest message, whatever is stored."""
        run = self.begun("--from earliest")
        self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 0))
        self.assertEqual(run.session.data("consumers/g/offsets/t/0-0"), "-1-0")

    def test_latest(self) -> None:
        """With later messages only; in a partition without messages all are later."""
        run = self.begun("--from latest")
        run.session.brokers["meta://b:1"].ranges.update({("t", 0): (10, 200), ("t", 1): (0, 30)})
        self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 100))
        self.assertEqual(self.load(run, 1), StoredOffset("t", Partition(0, 1), 0))

    def test_time(self) -> None:
        """With the first message of that time; in a partition without messages at 0."""
        run = self.begun("--from 2025-11-30T08:00Z")
        consumer = self.consumer(run)
        consumer.times[Partition(0, 0)] = 70
        self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 70))
        self.assertEqual(self.load(run, 1), StoredOffset("t", Partition(0, 1), 0))
        self.assertEqual(consumer.asked_at, [1764489600000] * 2)

    def test_age(self) -> None:
        """Counted back from now."""
        self.patch(consume, "time", SimpleNamespace(time=lambda: 1000.0))
        run = self.begun("--from 90s")
        self.load(run)
        self.assertEqual(self.consumer(run).asked_at, [910_000])

    def test_offset_without_a_partition(self) -> None:
        """An offset needs a partition."""
        run = self.begun("--from 31")
        self.assertEqual((run.status, run.session.consumers), (2, []))
        self.assertIn("name that with --partition instead of --group", run.said)

    def test_only_the_first_time(self) -> None:
        """A partition that was given away and returns continues at its position."""
        run = self.begun("--from latest")
        self.load(run)
        there = StoredOffset("t", Partition(0, 0), 120, 9)
        run.runtime.run(self.consumer(run).store.commit("g", [there]))
        self.assertEqual(self.load(run), there)

    def test_partition_of_another_member(self) -> None:
        """A partition that another member has read since the start continues at that member's
        position."""
        for start in ("earliest", "latest"):
            run = self.begun(f"--from {start}")
            there = StoredOffset("t", Partition(0, 0), 90, 9)
            run.session.write("consumers/g/offsets/t/0-0", "9-90")
            self.assertEqual(self.load(run), there)
            run.session.write("consumers/g/offsets/t/0-0", "9-95")
            self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 95, 9))

    def test_latest_of_a_broker_that_was_away(self) -> None:
        """The end is asked for when the partition is claimed."""
        run = Run("consume t --group g --from latest")
        broker = run.session.master(0, t=1)
        broker.away = True
        run.session.master(1, t=1)
        run.start()
        broker.away = False
        broker.ranges["t", 0] = (0, 70)
        self.assertEqual(self.load(run), StoredOffset("t", Partition(0, 0), 70))

    def test_provider(self) -> None:
        """The wrapper of the store provides the interface of a store."""

        async def ask(topic: str, partition: Partition) -> int:
            return 0

        self.assertTrue(verifyObject(IOffsetStore, StartingAt(MemoryOffsetStore(), {}, ask)))
