"""Gets that wait for messages: the time and content of their replies."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker import longpoll
from metamorphosis.broker.longpoll import TICK
from metamorphosis.config.model import Settings
from metamorphosis.message import encode_jump
from metamorphosis.store.flushrounds import JOBS, SHARE
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put
from tests.unit.broker.test_responders import OddFilter

LATE = TICK + 0.001
FLUSHED_WITH_GROUP_COMMIT, FLUSHED_IN_THE_BACKGROUND = 0, 1000
NOTHING_AT_25 = b"result 404 37 7\r\nCould not find message at position 25"
NO_STORE = b"result 404 47 7\r\nThe topic `test` in partition `0` is not exists"


def get(offset: int = 25, wait: bytes = b" 5000", partition: int = 0, opaque: int = 7) -> bytes:
    """A get with this after its opaque."""
    return b"get test g %d %d 1000 %d%b\r\n" % (partition, offset, opaque, wait)


class LongPollTestCase(SynchronousTestCase):
    """A broker with one message of 25 bytes in partition 0 of two."""

    def broker(self, threshold: int = FLUSHED_IN_THE_BACKGROUND, **values: Any) -> Broker:
        """A broker, and a client that put the message."""
        broker = Broker(self.mktemp(), unflush_threshold=threshold, **values)
        self.producer = broker.client()
        self.producer.send(put(b"hello"))
        broker.clock.advance(1)
        self.assertEqual(broker.stores.get("test", 0).max_offset, 25)  # type: ignore[union-attr]
        return broker

    def put(self, broker: Broker, body: bytes = b"world", partition: bytes = b"0") -> None:
        """Put one more message, and run the turns until it is flushed."""
        self.producer.send(put(body, partition=partition))
        self.wait(broker, 0)

    def wait(self, broker: Broker, seconds: float) -> None:
        """Let this time pass, and the turns that follow."""
        broker.clock.pump([seconds, 0, 0, 0])


class WakingTests(LongPollTestCase):
    """The events that end a wait."""

    def test_next_message(self) -> None:
        """A message is delivered when it is flushed, without a delay, in both modes."""
        for threshold in (FLUSHED_WITH_GROUP_COMMIT, FLUSHED_IN_THE_BACKGROUND):
            broker = self.broker(threshold)
            client = broker.client()
            self.assertEqual(client.send(get()), b"")
            self.put(broker)
            reply = client.received()
            self.assertTrue(reply.startswith(b"value 25 7\r\n"), reply)
            self.assertTrue(reply.endswith(b"world"))
            self.assertEqual(len(broker.responders.long_polls), 0)

    def test_nothing_before_the_flush(self) -> None:
        """A written message that is not flushed is not delivered."""
        for threshold in (FLUSHED_WITH_GROUP_COMMIT, FLUSHED_IN_THE_BACKGROUND):
            broker = self.broker(threshold)
            client = broker.client()
            client.send(get())
            broker.threads.hold()
            self.put(broker)
            self.assertEqual(client.received(), b"")
            broker.threads.release()
            broker.clock.advance(0)
            self.assertTrue(client.received().startswith(b"value 25 7\r\n"))

    def test_what_was_written_before_the_get_came(self) -> None:
        """A get between a write and its flush causes the flush."""
        broker = self.broker()
        client = broker.client()
        self.producer.send(put(b"world"))
        reply = client.send(get())
        self.wait(broker, 0)
        self.assertTrue((reply + client.received()).startswith(b"value 25 7\r\n"))

    def test_partition_that_was_never_written(self) -> None:
        """The first message of a partition reaches gets that were held before it."""
        for threshold in (FLUSHED_WITH_GROUP_COMMIT, FLUSHED_IN_THE_BACKGROUND):
            broker = self.broker(threshold)
            client = broker.client()
            self.assertEqual(client.send(get(0, partition=1)), b"")
            self.put(broker, b"first", b"1")
            self.assertTrue(client.received().endswith(b"first"))

    def test_time_over(self) -> None:
        """After its time a get is answered as usual."""
        broker = self.broker()
        client = broker.client()
        client.send(get())
        broker.clock.advance(4.9)
        self.assertEqual(client.received(), b"")
        self.wait(broker, 0.1 + LATE)
        self.assertEqual(client.received(), NOTHING_AT_25)

    def test_time_over_without_a_store(self) -> None:
        """After its time a get of a missing partition has its own reply."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(get(0))
        self.wait(broker, 5 + LATE)
        self.assertEqual(client.received(), NO_STORE)

    def test_longest_wait(self) -> None:
        """No get is held longer than the broker allows."""
        broker = self.broker(settings=Settings(max_long_poll_ms=1000))
        client = broker.client()
        client.send(get(wait=b" 999999999"))
        self.wait(broker, 1 + LATE)
        self.assertEqual(client.received(), NOTHING_AT_25)

    def test_only_those_whose_offset_was_reached(self) -> None:
        """A get further after the end still waits."""
        broker = self.broker()
        near, far = broker.client(), broker.client()
        near.send(get())
        far.send(get(50))
        self.put(broker)
        self.assertTrue(near.received().startswith(b"value 25 "))
        self.assertEqual(far.received(), b"")
        self.put(broker)
        self.assertTrue(far.received().startswith(b"value 25 "))

    def test_other_partitions_do_not_wake(self) -> None:
        """A message releases the gets that wait for its partition."""
        broker = self.broker()
        client = broker.client()
        client.send(get() + get(0, partition=1, opaque=8))
        self.put(broker, partition=b"1")
        self.assertTrue(client.received().startswith(b"value 25 8\r\n"))

    def test_failed_flush_does_not_wake(self) -> None:
        """A message that could not be flushed with group commit is refused and never seen."""
        broker = self.broker(FLUSHED_WITH_GROUP_COMMIT)
        client = broker.client()
        client.send(get())
        broker.threads.hold()
        self.producer.send(put(b"world"))
        store = broker.stores.get("test", 0)
        store.policy._synced(None, OSError("bad device"))  # type: ignore[union-attr]
        broker.clock.advance(0)
        self.assertIn(b"result 500", self.producer.received())
        self.assertEqual(client.received(), b"")

    def test_filter(self) -> None:
        """A group with a filter is woken by an accepted message, and moved past rejected ones."""
        name = f"{OddFilter.__module__}:{OddFilter.__name__}"
        broker = self.broker(topics={"test": {"filters": {"g": name}}})
        client = broker.client()
        client.send(get())
        self.put(broker, b"2")
        self.assertEqual(client.received(), b"value 20 7\r\n" + encode_jump(46))
        client.send(get(46))
        self.put(broker, b"3")
        self.assertTrue(client.received().startswith(b"value 21 7\r\n"))


class NotHeldTests(LongPollTestCase):
    """Gets that are answered at once, as without waiting."""

    def test_other_forms(self) -> None:
        """Other tokens after the opaque are ignored."""
        client = self.broker().client()
        others = (b"", b" ", b" 0", b" 5000 x", b" x 5000", b" -5", b" +5", b" 5s", b" 1.5")
        for wait in (*others, b" 1234567890", b" \xd9\xa5"):
            self.assertEqual(client.send(get(wait=wait)), NOTHING_AT_25, wait)

    def test_something_to_read(self) -> None:
        """With a message the token has no effect, on the hot path and off it."""
        for slow in (False, True):
            client = self.broker(slow=slow).client()
            for _ in range(2):
                self.assertTrue(client.send(get(0)).startswith(b"value 25 7\r\n"))

    def test_other_refusals(self) -> None:
        """301, 400 and 403 do not wait."""
        broker = self.broker()
        client = broker.client()
        self.assertIn(b"result 301 ", client.send(get(-1)))
        self.assertIn(b"result 301 ", client.send(get((1 << 63) - 1)))
        self.assertIn(b"result 400 ", client.send(b"get test g 0 25 0 7 5000\r\n"))
        broker.close_partitions("test", (0, 0))
        self.assertIn(b"result 403 ", client.send(get()))

    def test_question_for_the_end(self) -> None:
        """A get at the end-of-log offset does not wait, even in a missing partition."""
        self.assertEqual(Broker(self.mktemp()).client().send(get((1 << 63) - 1)), NO_STORE)

    def test_switched_off(self) -> None:
        """With ``max-long-poll-ms=0`` no get waits."""
        client = self.broker(settings=Settings(max_long_poll_ms=0)).client()
        self.assertEqual(client.send(get()), NOTHING_AT_25)

    def test_too_many_of_a_connection(self) -> None:
        """Beyond the limit they are answered at once; other connections may still wait."""
        self.patch(longpoll, "MOST_PER_CONNECTION", 3)
        broker = self.broker()
        client, other = broker.client(), broker.client()
        self.assertEqual(client.send(get() * 4), NOTHING_AT_25)
        self.assertEqual(other.send(get()), b"")

    def test_too_many_in_all(self) -> None:
        """The memory for held gets is bounded, and free again when they are answered."""
        self.patch(longpoll, "MOST", 3)
        broker = self.broker()
        clients = [broker.client() for _ in range(4)]
        self.assertEqual([c.send(get()) for c in clients], [b"", b"", b"", NOTHING_AT_25])
        clients[0].connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clients[3].send(get()), b"")


class ConnectionTests(LongPollTestCase):
    """A held get and its connection."""

    def test_other_replies_pass(self) -> None:
        """Requests after a held get are answered before it; the get is answered at its own time."""
        broker = self.broker()
        client = broker.client()
        replies = client.send(get() + get(0, opaque=8) + b"version 9\r\n")
        self.assertTrue(replies.startswith(b"value 25 8\r\n"))
        self.assertTrue(replies.endswith(b"result 200 7 9\r\n1.4.6.2"))
        self.put(broker)
        self.assertTrue(client.received().startswith(b"value 25 7\r\n"))

    def test_it_passes_a_put_that_waits(self) -> None:
        """A held get's reply does not wait for a flush that later requests wait for."""
        broker = self.broker(FLUSHED_WITH_GROUP_COMMIT)
        client = broker.client()
        client.send(get(wait=b" 100"))
        broker.threads.hold()
        client.send(put(b"other", partition=b"1", opaque=b"8"))
        self.wait(broker, 0.1 + LATE)
        self.assertEqual(client.received(), NOTHING_AT_25)
        broker.threads.release()
        broker.clock.advance(0)
        self.assertRegex(client.received(), rb"^result 200 \d+ 8\r\n")

    def test_it_passes_no_earlier_put(self) -> None:
        """A held get's reply leaves after those to earlier requests, of its own chunk, too, and
        before those to later ones."""
        broker = self.broker(FLUSHED_WITH_GROUP_COMMIT)
        client = broker.client()
        self.producer.send(put(b"first", partition=b"1"))
        broker.threads.hold()
        client.send(put(b"other", partition=b"1", opaque=b"5"))
        client.send(put(b"other", partition=b"1", opaque=b"6") + get(wait=b" 100"))
        client.send(put(b"other", partition=b"1", opaque=b"8"))
        self.wait(broker, 0.1 + LATE)
        self.assertEqual(client.received(), b"")
        broker.threads.release()
        broker.clock.pump([0, 0, 0])
        self.assertEqual([opaque for opaque, _ in read_replies(client.received())], [5, 6, 7, 8])

    def test_own_put(self) -> None:
        """A client may wait for a message and send it in the same chunk."""
        for threshold in (FLUSHED_WITH_GROUP_COMMIT, FLUSHED_IN_THE_BACKGROUND):
            broker = self.broker(threshold)
            client = broker.client()
            replies = client.send(get() + put(b"world", opaque=b"8"))
            broker.clock.advance(0)
            broker.clock.advance(0)
            replies += client.received()
            self.assertIn(b"value 25 7\r\n", replies)
            self.assertIn(b"result 200 ", replies)

    def test_connection_lost(self) -> None:
        """Its gets are not answered, and no timer is left."""
        broker = self.broker()
        client = broker.client()
        client.send(get() * 3)
        client.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(broker.responders.long_polls), 0)
        self.put(broker)
        broker.clock.advance(6)
        self.assertEqual(client.received(), b"")

    def test_closing_connection_is_answered_first(self) -> None:
        """``quit``, the end of the peer's half and a broken frame answer held gets, then close."""
        endings: list[tuple[str, Any]] = [
            ("quit", lambda client: client.send(b"quit\r\n")),
            ("half", lambda client: client.connection.readConnectionLost()),
            ("garbage", lambda client: client.send(b"garbage\r\n")),
        ]
        for name, end in endings:
            broker = self.broker()
            client = broker.client()
            client.send(get())
            received = end(client) or b""
            broker.clock.advance(0)
            self.assertEqual(received + client.received(), NOTHING_AT_25, name)
            self.assertTrue(client.closed, name)

    def test_waiting_is_not_idle(self) -> None:
        """The idle sweep does not close a connection that waits, or that was answered just now."""
        broker = self.broker(settings=Settings(idle_seconds=1, max_long_poll_ms=5000))
        client, idle = broker.client(), broker.client()
        client.send(get())
        sweep = broker.factory._close_idle
        for _ in range(3):
            sweep()
        self.assertFalse(client.transport.disconnected)
        self.assertTrue(idle.transport.disconnected)
        self.wait(broker, 5 + LATE)
        sweep()
        self.assertFalse(client.transport.disconnected)
        sweep()
        self.assertTrue(client.transport.disconnected)


class ChangeTests(LongPollTestCase):
    """Other events that end a wait."""

    def test_partition_closed(self) -> None:
        """Gets of a partition that the operator closes are answered."""
        broker = self.broker()
        client = broker.client()
        client.send(get())
        broker.close_partitions("test", (0, 0))
        broker.clock.advance(0)
        self.assertTrue(client.received().startswith(b"result 403 "))

    def test_reload(self) -> None:
        """All gets are answered by the new rules, because topics and filters may have changed."""
        broker = self.broker()
        client = broker.client()
        client.send(get() + get(0, partition=1, opaque=8))
        config = dataclasses.replace(broker.config, topics={})
        broker.responders.reconfigure(config, Settings())
        broker.clock.advance(0)
        self.assertEqual(client.received().count(b"result 404 "), 2)

    def test_broker_stops(self) -> None:
        """Held gets are answered 404 at once, and later ones refused without a wait."""
        broker = self.broker()
        client = broker.client()
        client.send(get())
        broker.responders.refuse_work()
        broker.clock.advance(0)
        self.assertEqual(client.received(), NOTHING_AT_25)
        self.assertTrue(client.send(get()).startswith(b"result 503 "))
        self.assertEqual(broker.clock.getDelayedCalls(), [])

    def test_a_fault_is_one_gets_own(self) -> None:
        """A connection that cannot be answered does not delay the others."""
        broker = self.broker()
        broken, client = broker.client(), broker.client()
        broken.send(get())
        client.send(get())
        broken.connection.session.replies = None  # type: ignore[assignment]
        self.put(broker)
        self.assertTrue(client.received().startswith(b"value 25 7\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class CostTests(LongPollTestCase):
    """The costs of waiting for the broker."""

    def counted(self, broker: Broker) -> list[int]:
        """The number of flush calls, which is counted from now on."""
        calls: list[int] = []
        submit = broker.threads.submit

        def count(work: Any, done: Any) -> None:
            calls.append(1)
            submit(work, done)

        broker.threads.submit = count  # type: ignore[method-assign]
        return calls

    def test_one_timer_for_many(self) -> None:
        """Gets that arrive together share a timer."""
        broker = self.broker()
        clients = [broker.client() for _ in range(20)]
        for client in clients:
            client.send(get() * 20)
        self.assertEqual(len(broker.clock.getDelayedCalls()), 1)
        self.wait(broker, 5 + LATE)
        self.assertEqual(sum(c.received().count(b"result 404") for c in clients), 400)
        self.assertEqual(broker.clock.getDelayedCalls(), [])

    def test_store_is_told_when_nobody_waits_any_more(self) -> None:
        """Without waiting gets the store flushes at its usual times, without a call of
        ``on_readable``."""
        broker = self.broker()
        store = broker.stores.get("test", 0)
        assert store is not None
        broker.client().send(get())
        self.assertIsNotNone(store.on_readable)
        self.put(broker)
        self.assertIsNone(store.on_readable)
        flushes = self.counted(broker)
        self.put(broker)
        self.assertEqual(flushes, [])

    def test_busy_partition_keeps_to_its_rounds(self) -> None:
        """With much traffic a get that waits does not cost a flush for every few messages."""
        broker = self.broker()
        client = broker.client()
        flushes = self.counted(broker)
        for _ in range(100):
            client.send(get(1 << 40))
            self.producer.send(put(b"world") * 50)
            broker.clock.advance(0.0005)
        self.assertLess(len(flushes), 10)

    def test_replies_of_a_flush_leave_together(self) -> None:
        """Held gets of one connection that end at the same time are one write."""
        broker = self.broker()
        client = broker.client()
        client.send(get() * 10)
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        self.wait(broker, 5 + LATE)
        self.assertEqual(writes, [NOTHING_AT_25 * 10])


class RandomTests(LongPollTestCase):
    """All events together, in random order."""

    def test_each_get_is_answered_once(self) -> None:
        """Random requests, cuts, disconnects, in both modes, on the hot path and off it: each
        request of an open connection gets one reply, and no state is left."""
        for seed in range(12):
            rng = random.Random(seed)
            threshold = rng.choice((0, 3, 1000))
            self.patch(longpoll, "MOST_PER_CONNECTION", rng.choice((2, 1000)))
            self.run_random(self.broker(threshold, slow=rng.random() < 0.3), rng)

    def run_random(self, broker: Broker, rng: random.Random) -> None:
        """One seed."""
        clients = [broker.client() for _ in range(4)]
        replies = dict.fromkeys(clients, b"")
        asked = {client: itertools.count(1) for client in clients}
        gone = set()
        for _ in range(120):
            client = rng.choice(clients)
            if rng.random() < 0.01 and client not in gone:
                gone.add(client)
                client.connection.connectionLost(Failure(ConnectionDone()))
            if client not in gone:
                data = b"".join(
                    self.request(rng, next(asked[client])) for _ in range(rng.randrange(1, 5))
                )
                cut = rng.randrange(len(data))
                replies[client] += client.send(data[:cut]) + client.send(data[cut:])
            if rng.random() < 0.2:
                broker.clock.advance(rng.choice((0.001, 0.03, 0.5)))
            if rng.random() < 0.1:
                broker.responders.reconfigure(broker.config, Settings())
        broker.clock.pump([6, 0, 0, 0, 1])
        for client in set(clients) - gone:
            opaques = [opaque for opaque, _ in read_replies(replies[client] + client.received())]
            self.assertEqual(sorted(opaques), list(range(1, next(asked[client]))))
        self.assertEqual(len(broker.responders.long_polls), 0)
        self.assertTrue(all(not client.connection.session.held for client in clients))
        for partition in (b"0", b"1"):  # a store notices with its next flush
            self.put(broker, partition=partition)
        broker.clock.advance(1)
        self.assertEqual([store.on_readable for store in broker.stores], [None, None])

    def request(self, rng: random.Random, opaque: int) -> bytes:
        """A put, a get that may wait, or something else."""
        partition = rng.randrange(2)
        kind = rng.random()
        if kind < 0.3:
            body = b"x" * rng.randrange(1, 50)
            return put(body, partition=b"%d" % partition, opaque=b"%d" % opaque)
        if kind < 0.9:
            wait = rng.choice((b"", b" 20", b" 400", b" 5000"))
            return get(rng.choice((0, 25, 100, 300, 1 << 40)), wait, partition, opaque)
        return b"version %d\r\n" % opaque


def read_replies(data: bytes) -> list[tuple[int, bytes]]:
    """Opaque and body of each."""
    found = []
    while data:
        head, data = data.split(b"\r\n", 1)
        tokens = head.split(b" ")
        length = int(tokens[1] if tokens[0] == b"value" else tokens[2])
        found.append((int(tokens[-1]), data[:length]))
        data = data[length:]
    return found


class CountingTests(LongPollTestCase):
    """Statistics."""

    def test_a_get_counts_once(self) -> None:
        """A get counts once, however long it waited, and as a miss only if it found no message in
        the end."""
        broker = self.broker()
        statistics = broker.responders.statistics
        client = broker.client()
        before = statistics.cmd_get
        client.send(get())
        self.put(broker)
        self.assertEqual((statistics.cmd_get - before, statistics.get_miss), (1, 0))
        client.send(get(50))
        self.wait(broker, 5 + LATE)
        self.assertEqual((statistics.cmd_get - before, statistics.get_miss), (2, 1))


class RoundsTests(LongPollTestCase):
    """Hurried flushes and the pauses of the disk."""

    def test_many_partitions_in_a_hurry_leave_the_disk_its_pause(self) -> None:
        """A round of few stores may be followed at once; one of many is not."""
        count = JOBS + 1
        broker = self.broker(topics={"test": {"num_partitions": count}})
        client = broker.client()
        offsets = [25, *[0] * (count - 1)]
        for n, at in enumerate(offsets):
            client.send(get(at, partition=n) + get(at + 25, partition=n))
        puts = b"".join(put(b"world", partition=b"%d" % n) for n in range(count))
        broker.threads.hold()
        self.producer.send(puts)
        self.wait(broker, 0.004)  # so long takes the round
        broker.threads.release()
        self.wait(broker, 0)
        self.assertEqual(client.received().count(b"value "), count)
        self.producer.send(puts)
        self.wait(broker, 0.004 * (SHARE - 1) - 0.001)
        self.assertEqual(client.received(), b"")
        self.wait(broker, 0.002)
        self.assertEqual(client.received().count(b"value "), count)
