"""
The parts of the responders beside the hot path: first puts, failures, filters, counters, shutdown.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.responders.gets import END_OF_LOG
from metamorphosis.config.model import Settings
from metamorphosis.message import Message, encode_jump
from metamorphosis.store.disk import Disk
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class BrokenDisk(Disk):
    """A disk with limited room, whose syncs can fail."""

    def __init__(self) -> None:
        self.room = 1 << 40
        self.sync_error: OSError | None = None

    def _left(self, size: int) -> int:
        left = min(self.room, size)
        if size and not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= left
        return left

    def write(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """Write as much as there is room for."""
        return super().write(fd, memoryview(data)[: self._left(len(data))], position)

    def sync(self, fd: int) -> None:
        """Fail if the test says so."""
        if self.sync_error is not None:
            raise self.sync_error


class OddFilter:
    """Accepts messages whose body starts with an odd digit."""

    def accept(self, group: str, message: Message) -> bool:
        """Whether the first digit is odd."""
        return message.data[:1] in b"13579"


class FirstPutTests(SynchronousTestCase):
    """The put that makes a partition."""

    def test_topic_is_announced_for_registration(self) -> None:
        """The first put of a topic registers it, also if only a pattern covers it."""
        broker = Broker(self.mktemp(), {"test": {}, "wild*": {"num_partitions": 7}})
        client = broker.client()
        client.send(put(b"hello", topic=b"wildfoo"))
        self.assertEqual([topic.name for topic in broker.used_topics], ["wildfoo"])
        self.assertEqual(broker.used_topics[0].num_partitions, 1)

    def test_directory_cannot_be_made(self) -> None:
        """A partition that cannot be created answers 500 and the connection stays."""
        directory = self.mktemp()
        broker = Broker(directory)
        with open(directory, "w"):
            pass
        client = broker.client()
        reply = client.send(put(b"hello") + b"version 1\r\n")
        self.assertTrue(reply.startswith(b"result 500 "), reply)
        self.assertIn(b"test-0", reply)
        self.assertTrue(reply.endswith(b"1.4.6.2"))
        self.flushLoggedErrors()


class CreationTests(SynchronousTestCase):
    """First puts where a worker makes the partition."""

    def broker(self, disk: Disk = Disk()) -> Broker:
        """A broker whose disk does not answer while the threads are held."""
        broker = Broker(self.mktemp(), {"test": {}, "wild*": {}}, disk=disk)
        broker.stores._environment = replace(broker.stores._environment, apart=True)
        return broker

    def release(self, broker: Broker) -> None:
        """Let the disk answer, and run the turns that follow."""
        broker.threads.release()
        broker.clock.pump([0, 0, 0])

    def test_waits_alone(self) -> None:
        """Later requests of the same connection wait as well, other clients are served."""
        broker = self.broker()
        client, other = broker.client(), broker.client()
        broker.threads.hold()
        self.assertEqual(
            b"", client.send(put(b"hello") + put(b"world", opaque=b"2") + b"version 3\r\n")
        )
        self.assertIn(b"1.4.6.2", other.send(b"version 1\r\n"))
        self.assertIn(b"result 404", other.send(b"get test g 0 0 100 1\r\n"))
        self.release(broker)
        replies = client.received()
        found = re.fullmatch(rb"(?s)result 200 .* 0 0result 200 .* 0 25result 200 .*2", replies)
        self.assertIsNotNone(found, repr(replies))
        log = other.send(b"get test g 0 0 100 1\r\n")
        self.assertIsNotNone(re.search(b"(?s)hello.*world", log))

    def test_registration(self) -> None:
        """The reply also waits for the registration of the topic."""
        broker = self.broker()
        registered: Deferred[None] = Deferred()
        broker.responders.topic_used = lambda topic: registered
        client = broker.client()
        broker.threads.hold()
        client.send(put(b"hello", topic=b"wild"))
        self.release(broker)
        self.assertEqual(b"", client.received())
        registered.callback(None)
        broker.clock.pump([0, 0, 0])
        self.assertIn(b"result 200", client.received())

    def test_refused(self) -> None:
        """A partition that cannot be made, and one that cannot be written: 500 each, and a later
        put works."""
        disk = BrokenDisk()
        broker = self.broker(disk)
        client = broker.client()
        path = os.path.join(broker.config.data_path, "test-0")
        os.makedirs(broker.config.data_path)
        with open(path, "w"):
            pass
        broker.threads.hold()
        client.send(put(b"hello"))
        self.release(broker)
        reply = client.received()
        self.assertIn(b"result 500", reply)
        self.assertIn(b"test-0", reply)
        os.remove(path)
        disk.room = 0
        broker.threads.hold()
        client.send(put(b"hello"))
        self.release(broker)
        self.assertIn(b"result 500", client.received())
        self.assertEqual(2, broker.responders.statistics.put_failed)
        disk.room = 1 << 20
        self.assertIn(b"result 200", client.send(put(b"hello")))

    def test_lines_of_a_partition_that_cannot_be_made(self) -> None:
        """One for all puts of ten seconds; the next one says how many were left out."""
        broker = self.broker()
        client = broker.client()
        with open(broker.config.data_path, "w"):
            pass
        lines: list[str] = []
        globalLogPublisher.addObserver(observer := lambda event: lines.append(str(event)))
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        def refused() -> None:
            broker.threads.hold()
            client.send(put(b"hello"))
            self.release(broker)
            self.assertIn(b"result 500", client.received())

        for _ in range(20):
            refused()
        self.assertEqual(1, sum("Opening {topic}" in line for line in lines))
        broker.clock.advance(10)
        refused()
        openings = [line for line in lines if "Opening {topic}" in line]
        self.assertEqual(2, len(openings))
        self.assertIn("'left_out': 19", openings[1])

    def test_defect_while_a_partition_is_made(self) -> None:
        """An unexpected error is logged with its traceback, and the put is refused."""
        broker = self.broker()
        client = broker.client()
        creation: Deferred[None] = Deferred()
        self.patch(broker.stores, "create", lambda *_: creation)
        client.send(put(b"hello"))
        creation.errback(ZeroDivisionError("bug"))
        broker.clock.pump([0, 0])
        self.assertEqual(b"result 500 3 1\r\nbug", client.received())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_descriptors_run_out_while_a_partition_is_made(self) -> None:
        """The put is refused as the original does for an I/O error, and the log has the reason."""
        broker = self.broker()
        client = broker.client()
        creation: Deferred[None] = Deferred()
        self.patch(broker.stores, "create", lambda *_: creation)
        client.send(put(b"hello"))
        with capturedLogs() as events:
            creation.errback(OSError(errno.EMFILE, "too many open files"))
            broker.clock.pump([0, 0])
        self.assertIn(b"Put message to [broker", client.received())
        self.assertEqual(
            [errno.EMFILE], [each["error"].errno for each in events if "topic" in each]
        )

    def test_peer_is_gone(self) -> None:
        """The put of a disconnected client is stored."""
        broker = self.broker()
        client = broker.client()
        broker.threads.hold()
        client.send(put(b"hello"))
        client.connection.connectionLost()
        self.release(broker)
        self.assertIn(b"hello", broker.client().send(b"get test g 0 0 100 1\r\n"))


class RegistrationTests(SynchronousTestCase):
    """The first put of a topic that ZooKeeper does not know yet."""

    def setUp(self) -> None:
        """A broker with a wildcard section, whose registrations the test ends."""
        self.broker = Broker(self.mktemp(), {"wild*": {}})
        self.registered: Deferred[None] = Deferred()
        self.broker.responders.topic_used = lambda topic: self.registered
        self.client = self.broker.client()

    def test_answered_when_registered(self) -> None:
        """The reply, and later ones of its connection, wait for it; other connections do not."""
        self.assertEqual(self.client.send(put(b"hello", topic=b"wild") + b"version 8\r\n"), b"")
        self.assertEqual(self.client.send(put(b"world", topic=b"wild", opaque=b"9")), b"")
        other = self.broker.client()
        self.assertIn(b"result 200", other.send(put(b"again", topic=b"wild")))
        self.broker.clock.advance(0.9)
        self.assertEqual(self.client.received(), b"")
        self.registered.callback(None)
        self.broker.clock.advance(0)
        replies = self.client.received()
        opaques = re.findall(rb"result 200 \d+ (\d+)\r\n", replies)
        self.assertEqual(opaques[1:], [b"8", b"9"])

    def test_bounded(self) -> None:
        """The reply waits for a second at most; the registration may end later."""
        self.assertEqual(self.client.send(put(b"hello", topic=b"wild")), b"")
        self.broker.clock.advance(1)
        self.broker.clock.advance(0)
        self.assertIn(b"result 200", self.client.received())
        self.registered.callback(None)

    def test_registered_before_it_is_stored(self) -> None:
        """The reply waits for both."""
        self.broker.threads.hold()
        self.client.send(put(b"hello", topic=b"wild"))
        self.registered.callback(None)
        self.broker.clock.advance(0)
        self.assertEqual(self.client.received(), b"")
        self.broker.threads.release()
        self.broker.clock.advance(0)
        self.assertIn(b"result 200", self.client.received())

    def test_failed(self) -> None:
        """A put that cannot be stored is refused at once, with 500 and its own opaque."""
        disk = BrokenDisk()
        broker = Broker(self.mktemp(), {"wild*": {}}, disk=disk)
        broker.responders.topic_used = lambda topic: self.registered
        disk.sync_error = OSError(errno.EIO, os.strerror(errno.EIO))
        reply = broker.client().send(put(b"hello", topic=b"wild", opaque=b"7"))
        self.assertTrue(reply.startswith(b"result 500 "), reply)
        self.assertEqual(reply.split(b"\r\n")[0].split()[3], b"7")


class TransactionTests(SynchronousTestCase):
    """Puts with a transaction key in a role that has no transactions."""

    def test_put_in_a_transaction_is_refused(self) -> None:
        """The refusal is that of a BEGIN; no message is stored, no partition is made, no put is
        counted, before and after a first plain put."""
        for first in (b"", put(b"plain")):
            broker = Broker(self.mktemp())
            client = broker.client()
            client.send(first)
            for key in (b"TX:nobody:1", b"XID:1:0A:0b:u", b"null"):
                for checksum in (b"", b"-1 ", b"215750275 "):
                    reply = client.send(b"put test 0 1 0 %s%s 1\r\n1" % (checksum, key))
                    self.assertEqual(reply, b"result 500 28 1\r\nUnsupported beginTransaction")
            counts = [(store.partition, store.size_bytes) for store in broker.stores]
            self.assertEqual(counts, [(0, 25)] if first else [])
            broker.responders.figures.tally()
            self.assertEqual(broker.responders.statistics.cmd_put, 1 if first else 0)


class FailureTests(SynchronousTestCase):
    """500 for exactly the records that are not stored."""

    def statuses(self, replies: bytes) -> list[int]:
        """The status of each reply."""
        found = []
        while replies:
            head, replies = replies.split(b"\r\n", 1)
            words = head.split(b" ")
            found.append(int(words[1]))
            replies = replies[int(words[2]) :]
        return found

    def test_full_disk_in_the_middle_of_a_batch(self) -> None:
        """Of five puts written together the two with room are stored, readable and answered 200."""
        for threshold in (0, 1000):
            disk = BrokenDisk()
            broker = Broker(self.mktemp(), disk=disk, unflush_threshold=threshold)
            client = broker.client()
            client.send(put(b"first"))
            disk.room = 60
            replies = client.send(b"".join(put(b"hello", opaque=b"%d" % i) for i in range(1, 6)))
            self.assertEqual(self.statuses(replies), [200, 200, 500, 500, 500])
            self.assertIn(b"result 500 76 5\r\nPut message to [broker", replies)
            disk.room = 1 << 20
            self.assertEqual(self.statuses(client.send(put(b"again"))), [200])
            broker.clock.advance(1)
            store = broker.stores.get("test", 0)
            assert store is not None
            self.assertEqual(store.max_offset, 100)
            counted = broker.responders.figures.take().statistics
            self.assertEqual((7, 3), (counted.cmd_put, counted.put_failed), "each once")

    def test_full_disk_in_the_middle_of_another_clients_puts(self) -> None:
        """Stored records are counted from the first one of the batch, for all senders."""
        disk = BrokenDisk()
        broker = Broker(self.mktemp(), disk=disk)
        client, other = broker.client(), broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"hello"))  # is being flushed while the others collect
        client.send(put(b"hello"))
        other.send(b"".join(put(b"hello", opaque=b"%d" % i) for i in range(1, 4)))
        disk.room = 60
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(self.statuses(client.received()), [200, 200])
        self.assertEqual(self.statuses(other.received()), [200, 500, 500])

    def test_failing_flush_refuses_the_batch_and_what_collected_behind_it(self) -> None:
        """With group commit no unflushed put is acknowledged; afterwards puts work again."""
        disk = BrokenDisk()
        broker = Broker(self.mktemp(), disk=disk)
        client = broker.client()
        client.send(put(b"first"))
        broker.threads.hold()
        client.send(put(b"one"))
        client.send(put(b"two"))
        disk.sync_error = OSError(errno.EIO, "bad device")
        broker.threads.release()
        broker.clock.advance(0)
        self.assertEqual(self.statuses(client.received()), [500, 500])
        disk.sync_error = None
        self.assertEqual(self.statuses(client.send(put(b"three"))), [200])
        self.assertEqual(client.send(b"get test g 0 45 5 1\r\n"), b"value 5 1\r\nthree")
        counted = broker.responders.figures.take().statistics
        self.assertEqual((4, 2), (counted.cmd_put, counted.put_failed), "each once")


class FilterTests(SynchronousTestCase):
    """Consumer filters on the serving path."""

    def setUp(self) -> None:
        name = f"{OddFilter.__module__}:{OddFilter.__name__}"
        self.broker = Broker(self.mktemp(), {"test": {"filters": {"odd": name}}})
        self.client = self.broker.client()
        for body in (b"1", b"3", b"2", b"4", b"5"):
            self.client.send(put(body))

    def test_only_the_filtered_group_is_filtered(self) -> None:
        """A group with a filter gets the leading accepted run and a jump past rejected records;
        others get all."""
        client = self.client
        everything = client.send(b"get test other 0 0 1000 1\r\n")
        head, _, log = everything.partition(b"\r\n")
        self.assertEqual(head, b"value 105 1")
        reply = client.send(b"get test odd 0 0 1000 1\r\n")
        self.assertEqual(reply, b"value 62 1\r\n" + log[:42] + encode_jump(84))
        reply = client.send(b"get test odd 0 42 1000 1\r\n")
        self.assertEqual(reply, b"value 20 1\r\n" + encode_jump(84))
        self.assertEqual(client.send(b"get test odd 0 42 1000 0\r\n"), b"result 301 2 0\r\n84")
        self.assertEqual(client.send(b"get test odd 0 84 1000 1\r\n"), b"value 21 1\r\n" + log[84:])
        self.assertEqual(client.send(b"get test other 0 0 1000 1\r\n"), everything)

    def test_offset_behind_a_filtered_reply(self) -> None:
        """A Java client asks for an offset at a jump: for the offset at which its reply began it
        gets the target of the jump, and without a remembered reply that offset again."""
        client = self.client
        self.assertEqual(client.send(b"offset test odd 0 21 1\r\n"), b"result 200 2 1\r\n21")
        client.send(b"get test odd 0 0 1000 1\r\n")
        for offset, answer in ((0, 84), (21, 21), (42, 42), (43, 63), (105, 105), (-1, 0)):
            reply = client.send(b"offset test odd 0 %d 1\r\n" % offset)
            self.assertEqual(reply.partition(b"\r\n")[2], b"%d" % answer)
        for group in (b"other", b""):
            reply = client.send(b"offset test %b 0 42 1\r\n" % group)
            self.assertEqual(reply, b"result 200 1 1\r\n0")

    def test_a_reload_forgets_nothing(self) -> None:
        """A jump is still known after a reload."""
        self.client.send(b"get test odd 0 42 1000 1\r\n")
        self.broker.responders.reconfigure(self.broker.config, Settings())
        reply = self.client.send(b"offset test odd 0 42 1\r\n")
        self.assertEqual(reply, b"result 200 2 1\r\n84")

    def test_missing_class_is_500(self) -> None:
        """A filter that cannot be made never passes unfiltered data."""
        broker = Broker(self.mktemp(), {"test": {"filters": {"odd": "no.such:Thing"}}})
        client = broker.client()
        client.send(put(b"1"))
        reply = client.send(b"get test odd 0 0 1000 1\r\n")
        self.assertTrue(reply.startswith(b"result 500 "))
        self.assertTrue(reply.endswith(b"failed.Detail:Not unchecked"))
        self.flushLoggedErrors(ModuleNotFoundError)


class CounterTests(SynchronousTestCase):
    """The hot path counts as the slow path does."""

    def test_general_counters(self) -> None:
        """``stats`` counts hot and slow requests alike."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"hello") * 5 + put(b"hello", checksum=b"5"))
        client.send(b"get test g 0 0 10 1\r\n" * 3 + b"get test g 0 999 10 1\r\n")
        lines = client.send(b"stats\r\n").split(b"\r\n")
        for line in (
            b"cmd_put 6",
            b"put_failed 1",
            b"cmd_get 4",
            b"get_miss 1",
            b"total_messages 5",
        ):
            self.assertIn(line, lines)

    def test_realtime_counters_only_of_topics_that_want_them(self) -> None:
        """A topic with ``stat=true`` shows its puts, bytes and gets; others show none."""
        broker = Broker(self.mktemp(), {"test": {"stat": True}, "quiet": {}})
        client = broker.client()
        client.send(put(b"hello") * 5 + put(b"hello", topic=b"quiet"))
        client.send(b"get test g 0 0 10 1\r\n" * 2)
        broker.clock.advance(2)
        text = client.send(b"stats test\r\n")
        self.assertIn(b"topic_realtime_put Count=5,Value=5,", text)
        self.assertIn(b"topic_realtime_message_size Count=5,Value=25,", text)
        self.assertIn(b"topic_realtime_get Count=2,Value=2,", text)
        self.assertIn(b"topic_realtime_put Invalid keyTwo:quiet", client.send(b"stats quiet\r\n"))

    def test_every_counter(self) -> None:
        """Requests, refusals, misses and ranges: since the start, and by topic."""
        broker = Broker(self.mktemp(), {"test": {"stat": True}}, update_consumer_offsets=True)
        client = broker.client()
        client.send(put(b"hello") * 3)
        client.send(put(b"hello", partition=b"7") + put(b"hi", topic=b"unknown"))
        client.send(put(b"hello", checksum=b"5"))
        for offset in (0, 75, 100, -5):  # there, at the end, behind it, before the log
            client.send(b"get test g 0 %d 10 1\r\n" % offset)
        client.send(b"get test g 5 0 10 1\r\n" + b"get test g 0 0 0 1\r\n")
        client.send(b"offset test g 0 0 1\r\n" + b"offset test g 5 0 1\r\n")
        client.send(b"get test g 0 %d 10 1\r\n" % END_OF_LOG)
        text = client.send(b"stats test\r\n")
        counted = broker.responders.statistics
        self.assertEqual(
            (counted.cmd_put, counted.put_failed, counted.cmd_get, counted.get_miss),
            (6, 3, 7, 5),
        )
        self.assertEqual((counted.get_failed, counted.cmd_offset), (4, 5))
        for line in (
            b"topic_realtime_put Count=5,Value=5,",
            b"topic_realtime_put_failed Count=2,Value=2,",
            b"topic_realtime_get Count=7,Value=7,",
            b"topic_realtime_get_miss Count=5,Value=5,",
            b"topic_realtime_offset Count=5,Value=5,",
            b"topic_realtime_message_size Count=5,Value=25,",
        ):
            self.assertIn(line, text)


class ReloadTests(SynchronousTestCase):
    """Changes of a reload apply at once, also to connected clients."""

    def setUp(self) -> None:
        self.broker = Broker(self.mktemp(), {"test": {}})
        self.client = self.broker.client()
        self.client.send(put(b"1") + put(b"2") + b"get test g 0 0 1000 1\r\n")

    def reload(self, section: dict[str, Any] | None = None, **system: Any) -> None:
        """Reload with another section of the topic and other system-wide values."""
        topic = replace(self.broker.config.topics["test"], **(section or {}))
        config = replace(self.broker.config, topics={"test": topic}, **system)
        self.broker.responders.reconfigure(config, self.closed)

    closed = Settings()

    def test_filters(self) -> None:
        """A group gets a filter, and the hot path drops the topic."""
        self.reload({"filters": {"g": f"{OddFilter.__module__}:{OddFilter.__name__}"}})
        reply = self.client.send(b"get test g 0 0 1000 1\r\n")
        self.assertEqual(reply[-20:], encode_jump(42))

    def test_stat(self) -> None:
        """The topic is counted from now on."""
        self.assertIn(b"topic_realtime_put null", self.client.send(b"stats test\r\n"))
        self.reload({"stat": True})
        self.client.send(put(b"3"))
        self.assertIn(b"topic_realtime_put Count=1,Value=1,", self.client.send(b"stats test\r\n"))

    def test_max_transfer_size(self) -> None:
        """Replies are shorter, also for routes of the hot path."""
        self.reload(max_transfer_size=30)
        for _ in range(2):
            reply = self.client.send(b"get test g 0 0 1000 1\r\n")
            self.assertTrue(reply.startswith(b"value 30 1\r\n"), reply)

    def test_update_consumer_offsets(self) -> None:
        """A reader beyond the end gets the offset of the end."""
        behind = b"get test g 0 1000 10 1\r\n"
        self.assertTrue(self.client.send(behind).startswith(b"result 404 "))
        self.reload(update_consumer_offsets=True)
        self.assertEqual(self.client.send(behind), b"result 301 2 1\r\n42")

    def test_closed_partitions(self) -> None:
        """Puts and gets with routes of the hot path are refused."""
        self.closed = Settings(closed_partitions={"test": ((0, 0),)})
        self.reload()
        self.assertTrue(self.client.send(put(b"3")).startswith(b"result 403 "))
        self.assertTrue(self.client.send(b"get test g 0 0 1000 1\r\n").startswith(b"result 403 "))

    def test_new_topic(self) -> None:
        """It is accepted."""
        self.assertTrue(self.client.send(put(b"x", topic=b"new")).startswith(b"result 500 "))
        config = self.broker.config
        new = replace(config.topics["test"], name="new")
        self.broker.responders.reconfigure(
            replace(config, topics={**config.topics, "new": new}), Settings()
        )
        self.assertTrue(self.client.send(put(b"x", topic=b"new")).startswith(b"result 200 "))

    def test_gets_that_find_nothing(self) -> None:
        """All count as misses; those of an existing partition also as out of range."""
        broker = Broker(self.mktemp())
        client = broker.client()
        counted = broker.responders.statistics
        self.assertIn(b"result 404", client.send(b"get test g 0 0 100 1\r\n"))
        self.assertEqual((1, 0), (counted.get_miss, counted.get_failed))
        self.assertIn(b"result 200", client.send(put(b"hello")))
        broker.clock.advance(1)
        self.assertIn(b"result 404", client.send(b"get test g 0 25 100 1\r\n"))
        self.assertEqual((2, 1), (counted.get_miss, counted.get_failed))


class StoppingTests(SynchronousTestCase):
    """While the broker shuts down."""

    def test_new_work_is_refused(self) -> None:
        """Puts, gets and offsets get 503 with the original's text; heartbeats are still
        answered."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"hello"))
        broker.responders.refuse_work()
        busy = "线程池繁忙".encode()
        for request in (put(b"x"), b"get test g 0 0 9 1\r\n", b"offset test g 0 0 1\r\n"):
            self.assertEqual(client.send(request), b"result 503 15 1\r\n" + busy)
        self.assertEqual(client.send(b"version 1\r\n"), b"result 200 7 1\r\n1.4.6.2")
