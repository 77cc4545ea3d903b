"""The fetch loops, and their stop."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.model import (
    FetchTarget,
    Partition,
    PassedOver,
    Position,
    ReceivedMessage,
)
from metamorphosis.client.network.flow import Slots
from metamorphosis.client.settings import AT_TIME, MAX_OFFSET
from metamorphosis.ids import EPOCH_MS
from metamorphosis.message import HEADER, encode_jump, encode_record
from tests.support.fetchstage import URL, Asked, FetchCase, records
from tests.support.memorybroker import Log, MemoryBroker


class AnswerTests(FetchCase):
    """The effect of each reply."""

    def test_asks(self) -> None:
        """The request has topic, group, partition, position, size and time to wait."""
        self.begin()
        asked = self.request()
        self.assertEqual(["get", "t", "g", "1", "0", "1000"], asked.words[:6])
        self.assertEqual(5000, asked.wait_ms)

    def test_row_29_delivers_and_asks_on(self) -> None:
        """Row 29: a message is delivered, the position moves, the next request leaves at once."""
        self.begin()
        self.value(self.request(), records(b"one", b"two"))
        self.assertEqual([1, 2], self.got)
        self.assertEqual((46, 2, True), (self.position.offset, self.position.message_id, True))
        self.assertEqual(46, self.request().offset)

    def test_next_batch_travels_meanwhile(self) -> None:
        """While the listener is busy the next batch is requested, but not the one after it."""
        waiting: list[Deferred[None]] = []

        def listener(batch: list[ReceivedMessage]) -> Deferred[None]:
            self.got.append([each.id for each in batch])
            waiting.append(Deferred())
            return waiting[-1]

        self.begin(listener=listener, subscription={"batch": True})
        self.value(self.request(), records(b"one"))
        ahead = self.request()
        self.assertEqual((23, 0), (ahead.offset, self.position.offset))
        self.value(ahead, records(b"two", first_id=2))
        self.assertEqual([[1]], self.got)
        self.assertEqual([], self.requests())
        waiting[0].callback(None)
        self.assertEqual([[1], [2]], self.got)
        self.assertEqual(46, self.request().offset)

    def test_large_batches_let_the_request_leave_first(self) -> None:
        """The request for the next batch is written before a large one is delivered."""
        written: list[int] = []

        def listener(message: ReceivedMessage) -> None:
            written.append(self.link.writes)

        self.begin(listener=listener, max_size=1 << 20, max_body=1 << 20)
        asked = self.request()
        writes = self.link.writes
        self.value(asked, records(b"x" * 70000))
        self.assertEqual([writes + 1], written)

    def test_long_pieces_let_others_in(self) -> None:
        """A piece of very many messages is delivered in several turns of the loop."""
        self.begin(max_size=1 << 20, max_body=1 << 20)
        asked = self.request()
        data = records(*[b""] * 10000)
        self.link.receive(b"value %d %d\r\n%b" % (len(data), asked.opaque, data))
        turns = []

        def other() -> None:
            turns.append(len(self.got))
            if len(self.got) < 10000:
                self.runtime.call_later(0, other)

        other()
        self.runtime.advance(0)
        self.assertEqual({0, 4096, 8192, 10000}, set(turns))
        self.assertEqual(list(range(1, 10001)), self.got)

    def test_row_33_nothing_found(self) -> None:
        """Row 33: a broker that does not wait is asked again after 0.5 s, 1 s, ... 5 s."""
        self.begin()
        asked = self.request()
        pauses = []
        for _ in range(12):
            self.result(asked, 404, b"nothing")
            seconds, asked = self.pause()
            pauses.append(seconds)
        self.assertEqual([n / 2 for n in range(1, 11)] + [5.0, 5.0], pauses)
        self.value(asked, records(b"one"))
        asked = self.request()
        self.result(asked, 404)
        self.assertEqual(0.5, self.pause()[0])
        self.assertNotLogged("warn", "error", "failure")

    def test_long_poll(self) -> None:
        """A broker that has waited is asked again at once."""
        self.begin()
        for _ in range(3):
            asked = self.request()
            self.runtime.advance(5)
            self.result(asked, 404, b"nothing")
        self.assertEqual(0, self.request().offset)

    def test_broker_that_waits_too_short(self) -> None:
        """It has not waited if it took less than half of the time."""
        self.begin()
        asked = self.request()
        self.runtime.advance(2.4)
        self.result(asked, 404, b"nothing")
        self.assertEqual(0.5, self.pause()[0])

    def test_error_of_our_own(self) -> None:
        """It is logged with its place, and the same is fetched again after a pause."""
        self.begin()
        fresh = self.rules.duplicates.fresh

        def broken(messages: list[ReceivedMessage]) -> list[ReceivedMessage]:
            self.rules.duplicates.fresh = fresh  # type: ignore[method-assign]
            raise ZeroDivisionError("no such number")

        self.rules.duplicates.fresh = broken  # type: ignore[method-assign]
        self.value(self.request(), records(b"one"))
        self.assertLogged(
            "failure", "^Fetching t 0-1 at offset 0 failed: ZeroDivisionError no such"
        )
        self.requests()  # the one that was sent ahead
        seconds, asked = self.pause()
        self.assertEqual((0.5, 0), (seconds, asked.offset))
        self.value(asked, records(b"one"))
        self.assertEqual([1], self.got)

    def test_long_poll_after_refusals(self) -> None:
        """A reply after a wait ends the longer pauses that refusals have caused."""
        self.begin()
        for _ in range(3):
            self.result(self.pause()[1], 500, b"no")
        asked = self.pause()[1]
        self.runtime.advance(5)
        self.result(asked, 404, b"nothing")
        self.assertEqual(0, self.request().offset)

    def test_long_poll_is_at_most_half_of_the_timeout(self) -> None:
        """The broker's answer has to come before the request's own time is over."""
        self.begin(fetch_timeout_ms=3000, long_poll_ms=5000)
        self.assertEqual(1500, self.request().wait_ms)

    def test_no_long_poll(self) -> None:
        """0 leaves the token out, and every empty reply makes the pause longer."""
        self.begin(long_poll_ms=0)
        asked = self.request()
        self.assertIsNone(asked.wait_ms)
        self.runtime.advance(4)
        self.result(asked, 404)
        self.assertEqual(0.5, self.pause()[0])

    def test_stop_during_a_search(self) -> None:
        """No listener is busy: what the search has asked the broker is not waited for."""
        self.begin()
        self.value(self.request(), records(b"one") + b"\xff" * 100)
        self.assertEqual([1], self.got)
        self.assertTrue(self.requests())
        stopping = self.runtime.start(self.fetching.stop())
        self.runtime.turn()
        self.runtime.result(stopping)

    def test_seek_in_front_of_a_jump(self) -> None:
        """The user goes elsewhere while a long piece is delivered: its end counts no more."""
        self.begin(max_size=1 << 20, max_body=1 << 20)
        data = records(bytes(70_000)) + encode_jump(200_000)
        asked = self.request()
        self.link.receive(b"value %d %d\r\n%b" % (len(data), asked.opaque, data))
        self.requests()
        delivery = self.fetching.delivery_of("t", Partition(0, 1))
        assert delivery is not None
        delivery.seek(5000)
        self.runtime.advance(0)
        self.assertEqual(([], 5000), (self.got, self.request().offset))

    def test_answers(self) -> None:
        """A broker is there as long as it is read from and connected."""
        self.begin()
        self.assertIs(True, self.fetching.answers(URL))
        self.assertIs(False, self.fetching.answers("meta://other:1"))
        self.link.lose()
        self.assertIs(False, self.fetching.answers(URL))

    def test_broker_that_is_not_read_any_more(self) -> None:
        """The end and the beginning of its connection are told to the group, until only a producer
        uses it."""
        self.begin()
        self.connections.acquire(URL, "a producer")
        changes: list[str] = []
        self.fetching.connection_changed = lambda: changes.append("changed")
        self.link.lose()
        self.runtime.advance(1)
        self.link = self.runtime.accept("b:1")
        self.assertEqual(2, len(changes))
        changes.clear()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.fetching.start([])
        self.link.lose()
        self.assertEqual([], changes)

    def test_stop_while_others_wait_for_the_listener(self) -> None:
        """Only the message that the one listener has is told; those in line are not."""
        waiting: list[Deferred[None]] = []

        def listener(message: ReceivedMessage) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        positions = [Position("t", Partition(0, number), 0) for number in range(2)]
        self.begin(*[FetchTarget(each, URL) for each in positions], listener=listener)
        self.rules.slots = Slots(self.runtime, 1)
        for asked in self.requests():
            self.value(asked, records(b"x"))
        stopping = self.runtime.start(self.fetching.stop())
        self.runtime.advance(10)
        (line,) = self.runtime.log.texts("warn")
        self.assertIn("busy for 10 s, t 0-0 at offset 0 cannot be given back", line)
        waiting[0].callback(None)
        self.runtime.advance(1)
        self.runtime.result(stopping)
        self.assertEqual(1, len(waiting))

    def test_old_answer_is_no_answer(self) -> None:
        """An empty reply that came while the listener was busy is requested again."""
        waiting: Deferred[None] = Deferred()
        self.begin(listener=lambda message: waiting)
        self.value(self.request(), records(b"one"))
        self.result(self.request(), 404)
        waiting.callback(None)
        self.assertEqual(23, self.request().offset)

    def test_row_44_moved(self) -> None:
        """Row 44: a 301 replaces the position, keeps the message id, and is followed at once."""
        self.begin()
        self.position.message_id = 77
        self.result(self.request(), 301, b"9000")
        self.assertEqual((9000, 77, True), (self.position.offset, 77, self.position.modified))
        self.assertEqual(9000, self.request().offset)
        self.runtime.advance(1.0)
        self.assertLogged("warn", "nothing at the next offset.*: t 0-1 at 9000 instead of 0")

    def test_row_51_filtered_by_the_broker(self) -> None:
        """Row 51: a broker that filters sends the accepted messages and a jump over the others,
        without a log line; the next request leaves before the delivery."""
        log = records(b"one", b"two", b"three", b"four")
        self.begin()
        self.position.message_id = 77
        self.value(self.request(), encode_jump(23))
        self.assertEqual((23, 77, True), self.stored())
        self.value(self.request(), log[23:46] + encode_jump(71))
        self.assertEqual((71, 2, True), self.stored())
        asked = self.request()
        self.assertEqual(71, asked.offset)
        self.value(asked, log[71:])
        self.assertEqual(([2, 4], len(log)), (self.got, self.request().offset))
        self.assertNotLogged("warn", "error", "failure")

    def test_jump_behind_a_failure(self) -> None:
        """A message that fails is delivered again before the jump has effect."""
        failing = [True, True]

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if message.id == 2 and failing:
                failing.pop()
                raise ValueError("not yet")

        log = records(b"one", b"two")
        self.begin(listener=listener)
        self.value(self.request(), log + encode_jump(100))
        self.assertEqual((23, 1, True), self.stored())
        self.assertEqual(100, self.request().offset)  # it left ahead of the messages
        _, asked = self.pause()
        self.assertEqual(23, asked.offset)
        self.value(asked, log[23:] + encode_jump(100))
        _, asked = self.pause()
        self.value(asked, log[23:] + encode_jump(100))
        self.assertEqual([1, 2, 2, 2], self.got)
        self.assertEqual((100, 2, True), self.stored())
        self.assertEqual(100, self.request().offset)

    def stored(self) -> tuple[int, int, bool]:
        """Offset and id for a commit, and whether they are new."""
        return self.position.offset, self.position.message_id, self.position.modified

    def test_moves_are_logged_once(self) -> None:
        """Many successive 301 replies, as of an older filtering broker, are one log line."""
        self.begin()
        for offset in (b"100", b"200", b"300"):
            self.result(self.request(), 301, offset)
        self.assertEqual(300, self.request().offset)
        self.runtime.advance(2)
        self.assertEqual(1, len(self.runtime.log.texts("warn")))

    def test_many_partitions_are_one_line(self) -> None:
        """An event of all partitions of a broker is one log line."""
        positions = [Position("t", Partition(0, number), 500) for number in range(7)]
        waiting: Deferred[None] = Deferred()
        targets = [FetchTarget(each, URL) for each in positions]
        self.begin(*targets, listener=lambda message: waiting)
        for asked in self.requests():
            self.result(asked, 301, b"600")
        for asked in self.requests():
            self.value(asked, records(b"x"))
        self.runtime.advance(1)
        self.runtime.start(self.fetching.stop())
        self.runtime.advance(10)
        moved, busy = self.runtime.log.texts("warn")
        self.assertRegex(moved, ": t 0-0 at 600 instead of 500, .*0-4 at .* and 2 more$")
        self.assertRegex(busy, "for 10 s, t 0-0 at offset 600, .*0-4 at .* and 2 more cannot be")
        waiting.callback(None)

    def test_moved_in_circles(self) -> None:
        """A 301 that does not lead forward is followed after a pause."""
        self.begin(FetchTarget(Position("t", Partition(0, 1), 500), URL))
        self.result(self.request(), 301, b"500")
        seconds, asked = self.pause()
        self.assertEqual((0.5, 500), (seconds, asked.offset))
        self.runtime.advance(5)
        self.assertNotLogged("warn", "error")

    def test_moved_back(self) -> None:
        """A 301 below the position is followed after 15 s, because the log may only be
        unflushed."""
        position = Position("t", Partition(0, 1), 500)
        self.runtime.advance(1000)
        self.begin(FetchTarget(position, URL))
        waited, asked = 0.0, self.request()
        while waited < 15:
            self.assertEqual((500, 500, False), (asked.offset, position.offset, position.modified))
            self.assertEqual([], self.runtime.log.texts("warn"))
            self.result(asked, 301, b"100")
            seconds, asked = self.pause()
            waited += seconds
        self.result(asked, 301, b"100")
        self.runtime.advance(1.0)
        self.assertLogged("warn", "nothing at the next offset.*: t 0-1 at 100 instead of 500")
        self.assertEqual((100, True), (position.offset, position.modified))

    def test_moved_back_and_flushed(self) -> None:
        """The missing part is flushed a moment later: the position stays."""
        position = Position("t", Partition(0, 1), 500)
        self.begin(FetchTarget(position, URL))
        self.result(self.request(), 301, b"100")
        self.value(self.pause()[1], records(b"one"))
        self.assertEqual(([1], 523), (self.got, position.offset))
        self.assertEqual([], self.runtime.log.texts("warn"))

    def idle(self, offset: int) -> Asked:
        """Let a minute pass without messages; the requests after it."""
        position = Position("t", Partition(0, 1), offset)
        self.begin(FetchTarget(position, URL))
        asked, waited = self.request(), 0.0
        while asked.words[0] == "get":
            self.assertLess(waited, 70)
            self.result(asked, 404)
            seconds, asked = self.pause()
            waited += seconds
        self.assertGreaterEqual(waited, 60)
        self.assertEqual(["offset", "t", "Just_for_Browser", "1", str(MAX_OFFSET)], asked.words[:5])
        return asked

    def test_minute_without_messages(self) -> None:
        """The broker is asked for the end of its log after exactly a minute, not one get later."""
        self.runtime.advance(1000)
        self.begin(FetchTarget(Position("t", Partition(0, 1), 500), URL))
        asked, began = self.request(), self.runtime.seconds()
        self.result(asked, 404)
        while self.runtime.seconds() - began < 55:
            _, asked = self.pause()
            self.assertEqual("get", asked.words[0])
            if self.runtime.seconds() - began < 55:
                self.result(asked, 404)
        self.runtime.advance(began + 60 - self.runtime.seconds())
        self.result(asked, 404)
        self.assertEqual("offset", self.request().words[0])

    def test_minute_that_is_interrupted(self) -> None:
        """Any other answer begins it anew."""
        self.runtime.advance(1000)
        self.begin(FetchTarget(Position("t", Partition(0, 1), 500), URL))
        asked, began, refused = self.request(), self.runtime.seconds(), 0.0
        while asked.words[0] == "get":
            waited = self.runtime.seconds() - began
            self.assertLess(waited, 110)
            if waited > 30 and not refused:
                refused = waited
            self.result(asked, 500 if refused == waited else 404)
            _, asked = self.pause()
        self.assertGreater(self.runtime.seconds() - began, refused + 60)

    def test_log_ends_before_us(self) -> None:
        """A broker that has lost its tail: one log line, after a minute without messages."""
        for status, end in ((200, 100), (404, 0)):
            self.result(self.idle(500), status, b"%d" % end)
            for _ in range(30):
                self.result(self.pause()[1], 404)
            [line] = self.runtime.log.texts("error")
            self.assertRegex(line, f"^The log ends before.*: t 0-1 at 500 instead of {end}$")
            self.setUp()

    def test_idle_at_the_end(self) -> None:
        """An idle partition at its end causes no log line."""
        self.result(self.idle(500), 200, b"500")
        self.result(self.pause()[1], 404)
        self.assertNotLogged("warn", "error")

    def test_moved_nowhere(self) -> None:
        """A 301 without a number changes nothing, and is told once."""
        self.begin()
        self.result(self.request(), 301, b"somewhere")
        seconds, asked = self.pause()
        self.assertEqual((0.5, 0, False), (seconds, asked.offset, self.position.modified))
        self.result(asked, 301, b"somewhere")
        self.pause()
        self.runtime.advance(5)
        (line,) = self.runtime.log.texts("warn")
        self.assertRegex(line, "t 0-1 at offset 0 is not read: somewhere; still")

    def test_row_44_forbidden(self) -> None:
        """Row 44: a closed partition only makes the pause longer; the log has one line."""
        self.begin()
        asked = self.request()
        for expected in (0.5, 1.0, 1.5):
            self.result(asked, 403, b"Partition[0-1] has been closed")
            seconds, asked = self.pause()
            self.assertEqual(expected, seconds)
        [line] = self.runtime.log.texts("warn")
        self.assertIn("t 0-1 at offset 0 is not read: Partition[0-1] has been closed", line)

    def test_refused(self) -> None:
        """500 and 503 are retried after growing pauses; each new reason is logged."""
        self.begin()
        asked = self.request()
        for status, expected in ((500, 0.5), (500, 1.0), (503, 1.5)):
            self.result(asked, status, b"no")
            seconds, asked = self.pause()
            self.assertEqual(expected, seconds)
        self.assertEqual(2, len(self.runtime.log.texts("warn")))
        self.assertEqual(0, self.position.offset)

    def test_hanging_broker(self) -> None:
        """A broker that takes requests and answers none is asked again after the timeout."""
        self.begin(fetch_timeout_ms=10000)
        self.request()
        seconds, asked = 0.0, None
        while asked is None and seconds < 20:
            self.runtime.advance(0.25)
            seconds += 0.25
            asked = next(iter(self.requests()), None)
        self.assertAlmostEqual(10.5, seconds, delta=0.3)
        self.runtime.advance(1)
        self.assertLogged("warn", "t 0-1 at offset 0 is not read.*no answer in time")

    def test_lost_connection(self) -> None:
        """A lost connection is used again when it is back."""
        self.begin()
        self.request()
        self.link.lose()
        self.runtime.advance(0.3)
        self.link = self.runtime.accept("b:1")
        seconds, asked = self.pause()
        self.assertEqual((0.2, 0), (seconds, asked.offset))

    def test_one_line_for_all_partitions(self) -> None:
        """A broker that freezes and then breaks the connection is two log lines, not two for each
        of its 64 partitions; the end of the consumer leaves no timer."""
        targets = [FetchTarget(Position("t", Partition(0, n), 0), URL) for n in range(64)]
        self.begin(*targets, fetch_timeout_ms=10000)
        self.runtime.advance(12)
        [line] = self.runtime.log.texts("warn")
        self.assertRegex(line, "^t 0-0 at offset 0, t 0-1 .* and 59 more are not read: .* in time")
        self.link.lose()
        self.runtime.advance(6.2)
        self.assertEqual(2, len(self.runtime.log.texts("warn")))  # the connection, told by itself
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.fetching.close()
        self.assertRegex(self.runtime.log.texts("warn")[-1], "and 59 more .*no connection")
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_waits_for_the_connection(self) -> None:
        """Without a connection no request is made; it is sent as soon as there is one."""
        self.begin()
        self.request()
        self.link.lose()
        self.runtime.advance(20)
        self.assertLogged("warn", "t 0-1 at offset 0 is not read.*there is no connection")
        self.link = self.runtime.accept("b:1")
        self.assertEqual(0, self.request().offset)

    def test_garbage(self) -> None:
        """An invalid reply closes the link; fetching continues with the next one."""
        self.begin()
        self.request()
        self.link.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertFalse(self.link.open)
        self.runtime.advance(0.6)
        self.link = self.runtime.accept("b:1")
        self.assertEqual(0, self.request().offset)

    def test_zero_length(self) -> None:
        """An empty piece of the log counts as no data."""
        self.begin()
        self.value(self.request(), b"")
        self.assertEqual(0.5, self.pause()[0])


class SizeTests(FetchCase):
    """The size of requests."""

    def test_share_of_the_memory(self) -> None:
        """Two replies of each partition fit into the configured memory."""
        targets = [FetchTarget(Position("t", Partition(0, n), 0), URL) for n in range(10)]
        self.begin(*targets, max_size=1 << 20, max_buffered_bytes=2_000_000)
        self.assertEqual([100_000] * 10, [each.size for each in self.requests()])

    def test_share_of_one(self) -> None:
        """The only partition has half of it for each of its two replies."""
        self.begin(max_size=1 << 20, max_buffered_bytes=1_000_000)
        self.assertEqual(500_000, self.request().size)

    def test_least_share(self) -> None:
        """With very many partitions the share has a lower end."""
        targets = [FetchTarget(Position("t", Partition(0, n), 0), URL) for n in range(10)]
        self.begin(*targets, max_size=1 << 20, max_buffered_bytes=1000)
        self.assertEqual([32768] * 10, [each.size for each in self.requests()])

    def test_no_broker(self) -> None:
        """A partition without a broker is not read."""
        self.begin(
            FetchTarget(Position("t", Partition(0, 1), 0), None),
            FetchTarget(Position("t", Partition(0, 2), 0), URL),
        )
        self.assertEqual("2", self.request().words[3])
        self.assertEqual([("t", Partition(0, 2))], self.fetching.partitions)
        self.fetching.pause("t", Partition(0, 1))
        self.fetching.resume("t", Partition(0, 1))
        self.assertEqual([("t", Partition(0, 2))], self.fetching.partitions)

    def test_row_49_message_larger_than_the_size(self) -> None:
        """Row 49: size 1024, message of 5000 bytes: delivered normally, as are later ones; the size
        shrinks again."""
        self.begin(max_size=1024)
        log = records(b"x" * 5000, b"two", b"three")
        asked = self.request()
        self.value(asked, log[:1024])
        seconds, asked = self.pause()
        self.assertEqual((0.0, 0, 5020), (seconds, asked.offset, asked.size))
        self.value(asked, log[:5020])
        self.assertEqual([1], self.got)
        asked = self.request()
        self.assertEqual((5020, 5020), (asked.offset, asked.size))
        self.value(asked, log[5020:])
        self.assertEqual([1, 2, 3], self.got)
        self.assertEqual(2510, self.request().size)
        self.assertNotLogged("warn", "error", "failure")

    def test_message_larger_than_the_broker_sends(self) -> None:
        """A message longer than the broker's ``maxTransferSize`` is put together from pieces."""
        self.begin(max_size=1000)
        log = records(b"x" * 2500, b"two")
        asked = self.request()
        self.value(asked, log[:800])
        self.assertEqual(2520, (asked := self.request()).size)
        self.value(asked, log[:800])
        for start in (800, 1600):
            asked = self.request()
            self.assertEqual(start, asked.offset)
            self.value(asked, log[start : start + 800])
        asked = self.request()
        self.assertEqual((2400, []), (asked.offset, self.got))
        self.value(asked, log[2400:])
        self.assertEqual([1, 2], self.got)
        self.assertEqual(len(log), self.request().offset)

    def test_piece_is_given_up_with_the_broker(self) -> None:
        """If a piece cannot be fetched, the message is requested from its start."""
        for status, text in ((500, b"no"), (301, b"5000")):
            self.begin(max_size=1000)
            log = records(b"x" * 900)
            self.value(self.request(), log[:800])
            asked = self.request()
            self.assertEqual(800, asked.offset)
            self.result(asked, status, text)
            seconds, asked = self.pause()
            self.assertEqual((0.5, 0), (seconds, asked.offset))
            self.assertEqual(0, self.position.offset)

    def test_message_that_is_not_whole_yet(self) -> None:
        """The rest of a message at the end of the log is waited for."""
        self.begin()
        log = records(b"x" * 100)
        self.value(self.request(), log[:60])
        asked = self.request()
        self.runtime.advance(5)
        self.result(asked, 404)
        self.value(self.request(), log[60:])
        self.assertEqual([1], self.got)

    def test_log_that_ends_inside_a_message(self) -> None:
        """While the rest is missing, one log line names it."""
        self.begin()
        log = records(b"x" * 100)
        self.value(self.request(), log[:60])
        asked = self.request()
        for _ in range(10):
            self.result(asked, 404)
            _, asked = self.pause()
        self.assertEqual(60, asked.offset)
        [line] = self.runtime.log.texts("warn")
        self.assertRegex(line, "log ends inside a message.*: t 0-1 at offset 0 after 60 bytes$")
        self.value(asked, log[60:])
        self.assertEqual([1], self.got)

    def test_row_50_many_large_messages(self) -> None:
        """Row 50: messages of 2 MiB with a size of 5 MiB, from a broker that sends as much."""
        self.begin(max_size=5 << 20, max_body=2097152)
        log = records(*[b"x" * 2097152] * 7)
        asked = self.request()
        while asked.offset < len(log):
            self.value(asked, log[asked.offset : asked.offset + asked.size])
            asked = self.request()
        self.assertEqual([1, 2, 3, 4, 5, 6, 7], self.got)

    def test_row_34_piece_without_header(self) -> None:
        """Row 34: less than a header: the size doubles after enough fetches, with a pause each."""
        self.begin(max_size=15)
        asked = self.request()
        sizes, pauses = [], []
        for _ in range(6):
            self.value(asked, b"\0" * 15)
            seconds, asked = self.pause()
            sizes.append(asked.size)
            pauses.append(seconds)
        self.assertEqual([15] * 6, sizes)
        self.assertEqual([0.5, 1.0, 1.5, 2.0, 2.5, 3.0], pauses)
        self.value(asked, b"\0" * 15)
        self.assertEqual((3.5, 30), ((pause := self.pause())[0], pause[1].size))


class RetryTests(FetchCase):
    """Messages that fail, and the pauses between."""

    def test_row_31_pauses(self) -> None:
        """Row 31: the failing message is delivered again after 0.5 s, 1 s, ...; then it is
        rejected."""

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if message.id == 2:
                raise Rollback

        self.begin(listener=listener, max_fetch_retries=3)
        log = records(b"one", b"two", b"six")
        asked = self.request()
        pauses = []
        for _ in range(3):
            self.value(asked, log[asked.offset :])
            self.requests()  # the one that was sent ahead
            seconds, asked = self.pause()
            pauses.append(seconds)
            self.assertEqual(23, asked.offset)
        self.assertEqual([0.5, 1.0, 1.5], pauses)
        self.value(asked, log[23:])
        self.assertEqual([1, 2, 2, 2, 2, -2, 3], self.got)
        self.assertEqual(69, self.position.offset)

    def test_manual_rollback_pauses(self) -> None:
        """A rollback is followed by a pause, and by everything that is not acknowledged."""

        def listener(message: ReceivedMessage) -> None:
            self.got.append(message.id)
            if len(self.got) == 2:
                delivery = self.fetching.delivery_of("t", Partition(0, 1))
                assert delivery is not None
                delivery.rollback(message)

        self.begin(listener=listener, subscription={"auto_ack": False})
        self.value(self.request(), records(b"one", b"two"))
        self.requests()
        seconds, asked = self.pause()
        self.assertEqual((0.5, 0), (seconds, asked.offset))

    def test_manual_rollback_of_an_idle_partition(self) -> None:
        """A later rollback goes back, whatever request is pending."""
        self.begin(subscription={"auto_ack": False})
        self.value(self.request(), records(b"one", b"two"))
        late = self.request()
        self.assertEqual(46, late.offset)
        delivery = self.fetching.delivery_of("t", Partition(0, 1))
        assert delivery is not None
        delivery.rollback(self.kept[0])
        _, asked = self.pause()
        self.assertEqual(0, asked.offset)
        self.value(late, records(b"three", first_id=3))
        self.value(asked, records(b"one", b"two"))
        self.assertEqual([1, 2, 1, 2], self.got)

    def test_row_37_and_others_of_the_partition(self) -> None:
        """A failing message delays later ones of its partition, and no other partition."""
        targets = [FetchTarget(Position("t", Partition(0, n), 0), URL) for n in (1, 2)]

        def listener(message: ReceivedMessage) -> None:
            if message.partition.number == 1:
                raise Rollback
            self.got.append(message.id)

        self.begin(*targets, listener=listener)
        for asked in self.requests():
            self.value(asked, records(b"one", b"two"))
        self.assertEqual([1, 2], self.got)


class DamageTests(FetchCase):
    """Records that cannot be read."""

    def broken(self, body: bytes) -> bytes:
        """A record with a wrong checksum."""
        return HEADER.pack(len(body), 1, 7, 0) + body

    def serve(self, *pieces: bytes) -> Log:
        """The log in segments, and a broker that answers from now on."""
        log = Log()
        for number, piece in enumerate(pieces):
            if number:
                log.roll()
            log.data += piece
        self.broker = MemoryBroker(self.runtime)
        self.broker.logs["t", 1] = log
        self.begin(max_body=100, max_size=100, long_poll_ms=0)
        return log

    def read_on(self) -> list[str]:
        """The requests up to the next pause."""
        asked: list[str] = []
        while found := self.requests():
            for each in found:
                asked.append(each.words[0])
                self.link.receive(getattr(self.broker, f"_{each.words[0]}")(each))
        return asked

    def test_row_38_wrong_checksum(self) -> None:
        """Row 38: a bad record is skipped after a pause, with an alarm that names its place, an
        event and a counter."""
        events: list[PassedOver] = []
        log = self.serve(records(b"one") + self.broken(b"two") + records(b"three", first_id=3))
        self.passed_over.tell(events.append)
        self.read_on()
        self.assertEqual(([1], 46), (self.got, self.position.offset))
        self.runtime.advance(0.4)
        self.assertEqual([], self.requests())
        self.runtime.advance(0.2)
        self.read_on()
        self.assertEqual(([1, 3], log.end), (self.got, self.position.offset))
        self.assertLogged("error", "t 0-1: the message at offset 23 .*going on at offset 46")
        reason = "the checksum of its 3 bytes is wrong"
        self.assertEqual([("t", Partition(0, 1), 23, 46, False, reason)], events)
        self.assertEqual((1, 0), (self.passed_over.damaged, self.passed_over.too_long))

    def test_listener_that_fails(self) -> None:
        """A program's listener does not stop the reading."""
        self.serve(self.broken(b"two") + records(b"three"))
        self.passed_over.tell(lambda message: 1 / 0)
        self.read_on()
        self.assertLogged("failure", "passed over failed on t 0-1 offset 0: ZeroDivisionError")
        self.assertEqual(23, self.position.offset)

    def test_listener_that_always_fails(self) -> None:
        """The first ten times have a line each."""
        self.serve(b"".join(self.broken(b"%03d" % number) for number in range(30)) + records(b"x"))
        self.passed_over.tell(lambda message: 1 / 0)
        for _ in range(60):
            self.read_on()
            self.runtime.advance(0.6)
        self.assertEqual(([1], 30), (self.got, self.passed_over.damaged))
        self.assertEqual(10, len(self.runtime.log.texts("failure")))

    def test_lines_of_many(self) -> None:
        """The first ten have a line each, then they are counted; a program sees every one."""
        events: list[PassedOver] = []
        self.serve(b"".join(self.broken(b"%03d" % number) for number in range(30)) + records(b"x"))
        self.passed_over.tell(events.append)
        for _ in range(60):
            self.read_on()
            self.runtime.advance(0.6)
        self.read_on()
        self.assertEqual((30, 30, [1]), (len(events), self.passed_over.damaged, self.got))
        self.assertEqual(10, len(self.runtime.log.texts("error")))
        counted = [line for line in self.runtime.log.texts("warn") if "times more" in line]
        self.assertEqual(20, sum(int(line.split()[0]) for line in counted))
        self.assertIn("messages of t are damaged; the last one: partition 0-1 offset", counted[0])

    def test_bad_length_and_no_record(self) -> None:
        """If no record is found in the rest of the segment, reading continues at the next one."""
        log = self.serve(b"\xff" * 3000, records(b"one"))
        self.read_on()
        self.assertEqual(3000, self.position.offset)
        self.assertLogged("error", "offset 0 .*length is -1.*going on at offset 3000")
        self.runtime.advance(0.6)
        self.read_on()
        self.assertEqual(([1], log.end), (self.got, self.position.offset))

    def test_no_record_up_to_the_end_of_the_log(self) -> None:
        """At the end of the log a record may be incomplete: the search waits."""
        log = self.serve(b"\xff" * 3000)
        for _ in range(4):
            self.read_on()
            self.assertEqual(0, self.position.offset)
            self.runtime.advance(2.6)
        log.append(b"one")
        self.runtime.advance(5.1)
        self.read_on()
        self.assertEqual(3000, self.position.offset)

    def test_end_of_the_log_is_believed(self) -> None:
        """If no further bytes arrive for ``max_increase_fetch_data_retries`` the log ends there."""
        self.serve(b"\xff" * 3000)
        for _ in range(6):
            self.assertEqual(0, self.position.offset)
            self.read_on()
            self.runtime.advance(5.1)
        self.assertEqual(3000, self.position.offset)
        [line] = self.runtime.log.texts("error")
        self.assertIn("going on at offset 3000", line)

    def test_row_38_broker_does_not_say(self) -> None:
        """Row 38: if the broker does not answer the offset request, the search begins anew."""
        self.begin()
        self.value(self.request(), b"\xff" * 100)
        asked = self.request()
        self.assertEqual("offset", asked.words[0])
        self.result(asked, 500, b"no")
        seconds, asked = self.pause()
        self.assertEqual(("get", 0), (asked.words[0], asked.offset))
        self.assertGreater(seconds, 0.4)
        self.runtime.advance(1)
        self.assertLogged("warn", "t 0-1 at offset 0 is not read: no")

    def test_unfiltered(self) -> None:
        """The search uses no group's name, so that no filter applies."""
        self.serve(b"\xff" * 3000, records(b"one"))
        for _ in range(20):
            for each in self.requests():
                group = "g" if each.offset == 0 and each.size == 100 else "Just_for_Browser"
                if each.words[0] == "get":
                    self.assertEqual(group, each.words[2])
                self.link.receive(getattr(self.broker, f"_{each.words[0]}")(each))

    def test_too_long(self) -> None:
        """A message longer than accepted is skipped without a pause, and counted."""
        log = self.serve(records(b"x" * 500, b"two", b"y" * 101))
        self.read_on()
        self.assertEqual(([2], log.end), (self.got, self.position.offset))
        self.assertLogged("error", "t 0-1: the message at offset 0 .*at most 100 is accepted")
        self.assertEqual((0, 2), (self.passed_over.damaged, self.passed_over.too_long))

    def test_limit_follows_the_size(self) -> None:
        """A message that fits the subscription's size is accepted, whatever the general limit."""
        self.begin(max_size=20 << 20, max_body=100, max_buffered_bytes=100)
        body = b"x" * (20 << 20)
        asked, data = self.request(), records(body)
        while asked.offset < len(data):
            self.value(asked, data[asked.offset :][: min(asked.size, 4 << 20)])
            asked = self.request()
        self.assertEqual([body], [message.body for message in self.kept])

    def test_stopped_while_searching(self) -> None:
        """A search ends with the consumer."""
        self.serve(b"\xff" * (5 << 20))
        self.link.receive(self.broker._get(self.request()) or b"")
        asked = self.request()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.link.receive(self.broker._offset(asked))
        self.assertNotIn("get", self.read_on())

    def test_end_of_a_segment_that_is_no_header(self) -> None:
        """Fewer bytes than a header at the end of a segment do not cause a wait."""
        log = self.serve(records(b"one") + b"\0" * 7, records(b"two", first_id=2))
        for _ in range(3):
            self.read_on()
            self.runtime.advance(0.6)
        self.assertEqual(([1, 2], log.end), (self.got, self.position.offset))


class StartTests(FetchCase):
    """Beginning at the end of the log."""

    def begin_at_end(self) -> Asked:
        """The first request of a partition that begins at the end."""
        self.position_at_end = Position("t", Partition(0, 1), MAX_OFFSET)
        self.begin(FetchTarget(self.position_at_end, URL))
        asked = self.request()
        self.assertEqual(["offset", "t", "Just_for_Browser", "1", str(MAX_OFFSET)], asked.words[:5])
        return asked

    def test_row_45_end(self) -> None:
        """Row 45: the end is requested, and becomes the position for a commit."""
        self.result(self.begin_at_end(), 200, b"4600")
        self.assertEqual(4600, self.request().offset)
        self.assertEqual((4600, True), (self.position_at_end.offset, self.position_at_end.modified))

    def test_row_45_nothing_written_yet(self) -> None:
        """Row 45: the first message of an empty partition is not missed."""
        self.result(self.begin_at_end(), 404, b"no such partition")
        self.assertEqual(0, self.request().offset)

    def test_time_of_an_empty_partition(self) -> None:
        """A partition without messages is read from its beginning; so is one whose start is a time
        that this consumer does not know."""
        for settings, words in (({"offset_at_ms": EPOCH_MS + 1}, "offset"), ({}, "get")):
            position = Position("t", Partition(0, 1), AT_TIME)
            self.begin(FetchTarget(position, URL), **settings)
            asked = self.request()
            self.assertEqual(words, asked.words[0])
            if settings:
                self.result(asked, 404, b"no such partition")
                asked = self.request()
            self.assertEqual(("get", 0), (asked.words[0], asked.offset))

    def test_broker_does_not_say(self) -> None:
        """Without a reply no message is read; the request is repeated."""
        self.result(self.begin_at_end(), 500, b"no")
        seconds, asked = self.pause()
        self.assertEqual((0.5, "offset"), (seconds, asked.words[0]))
        self.runtime.advance(1)
        self.assertLogged("warn", "t 0-1 .*is not read: no")


class StopTests(FetchCase):
    """``stop``."""

    def test_idle(self) -> None:
        """Without a busy listener the stop ends at once, whatever request is pending; the
        connection is released."""
        self.begin()
        asked = self.request()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.assertEqual(([], True), (self.fetching.partitions, self.link.open))
        self.assertIsNone(self.fetching.delivery_of("t", Partition(0, 1)))
        self.value(asked, records(b"one"))
        self.assertEqual([], self.got)
        self.fetching.close()
        self.assertFalse(self.link.open)

    def test_row_39_each_partition_by_itself(self) -> None:
        """Row 39: a busy listener or a missing reply of one partition does not stop the others."""
        waiting: Deferred[None] = Deferred()

        def listen(message: ReceivedMessage) -> Deferred[None] | None:
            if message.partition.number:
                return self.got.append(message.id)
            return waiting

        positions = [Position("t", Partition(0, number), 0) for number in range(3)]
        self.begin(*(FetchTarget(each, URL) for each in positions), listener=listen)
        busy, fluent, _ = self.requests()  # the last one is never answered
        self.value(busy, records(b"one"))
        for number in range(5):
            self.value(fluent, records(b"x", first_id=number))
            asked = [each for each in self.requests() if each.words[3] == "1"]
            [fluent] = asked
        self.assertEqual([0, 1, 2, 3, 4], self.got)
        waiting.callback(None)

    def test_other_brokers(self) -> None:
        """A connection is kept over a stop, and released when no partition needs it; it closes
        after the last reply."""
        self.begin()
        asked = self.request()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.fetching.start([FetchTarget(self.position, "meta://c:1")])
        self.assertTrue(self.link.open)
        self.result(asked, 404)
        self.assertFalse(self.link.open)
        other = self.runtime.accept("c:1")
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.fetching.start([FetchTarget(self.position, "meta://c:1")])
        self.assertTrue(other.open)

    def test_during_a_pause_or_a_question(self) -> None:
        """Pauses and offset requests do not delay the stop."""
        self.begin()
        self.result(self.request(), 404)
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.runtime.advance(1)
        self.assertEqual([], self.requests())
        self.begin(FetchTarget(Position("t", Partition(0, 1), MAX_OFFSET), URL))
        asked = self.request()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.result(asked, 200, b"4600")
        self.assertEqual([], self.requests())

    def test_without_connection(self) -> None:
        """A broker that is not there does not hold it up."""
        self.begin()
        self.link.lose()
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        self.fetching.close()
        self.runtime.advance(30)
        self.assertEqual([], self.runtime.attempts)

    def test_row_48_waits_for_the_listener(self) -> None:
        """Row 48: the stop waits for the message under way, which counts; the others do not."""
        waiting: list[Deferred[None]] = []

        def listener(message: ReceivedMessage) -> Deferred[None]:
            self.got.append(message.id)
            waiting.append(Deferred())
            return waiting[-1]

        self.begin(listener=listener)
        self.value(self.request(), records(b"one", b"two", b"three"))
        waiting[0].callback(None)
        self.requests()  # the one that was sent ahead
        stopping = self.runtime.start(self.fetching.stop())
        self.runtime.advance(5)
        self.assertNoResult(stopping)
        waiting[1].callback(None)
        self.runtime.result(stopping)
        self.assertEqual(([1, 2], 46), (self.got, self.position.offset))
        self.fetching.close()
        self.runtime.advance(60)
        self.assertEqual(([], []), (self.runtime.clock.getDelayedCalls(), self.requests()))

    def test_busy_listener_is_named(self) -> None:
        """A listener that delays a stop is logged every ten seconds."""
        waiting: Deferred[None] = Deferred()
        self.begin(listener=lambda message: waiting, stop_timeout_ms=0)
        self.value(self.request(), records(b"one"))
        stopping = self.runtime.start(self.fetching.stop())
        self.runtime.advance(3600)
        self.assertNoResult(stopping)
        lines = [line for line in self.runtime.log.texts("warn") if "cannot be given" in line]
        self.assertEqual(360, len(lines))
        self.assertLogged("warn", "busy for 10 s, t 0-1 at offset 0 cannot be given back$")
        waiting.callback(None)
        self.runtime.result(stopping)
        self.assertEqual(23, self.position.offset)

    def test_ack_after_a_short_stop(self) -> None:
        """A listener that was not busy is not given up: what it has may still be acknowledged when
        the program hears that the partition goes."""
        acked: list[ReceivedMessage] = []
        self.begin(subscription={"auto_ack": False}, stop_timeout_ms=5000)
        self.value(self.request(), records(b"one"))
        delivery = self.fetching.delivery_of("t", Partition(0, 1))
        assert delivery is not None

        def revoked(partitions: object) -> None:
            delivery.ack(self.kept[0])
            acked.extend(self.kept)

        self.fetching._news.on_revoked = revoked
        self.runtime.result(self.runtime.start(self.fetching.stop([("t", Partition(0, 1))])))
        self.assertEqual((23, 1), (self.position.offset, len(acked)))

    def test_hanging_listener_is_given_up(self) -> None:
        """The stop waits for the configured time; a late return acknowledges nothing."""
        waiting: Deferred[None] = Deferred()
        self.begin(listener=lambda message: waiting, stop_timeout_ms=15000)
        self.value(self.request(), records(b"one"))
        stopping = self.runtime.start(self.fetching.stop())
        self.runtime.advance(14.9)
        self.assertNoResult(stopping)
        self.runtime.advance(0.2)
        self.runtime.result(stopping)
        self.assertLogged("warn", "for 15 s, t 0-1 at offset 0 .*; not waiting longer$")
        waiting.callback(None)
        self.fetching.close()
        self.assertEqual((0, False), (self.position.offset, self.position.modified))
        self.assertEqual([], self.runtime.clock.getDelayedCalls())

    def test_starts_again(self) -> None:
        """After a stop fetching continues where it was, with other partitions too."""
        self.begin()
        self.value(self.request(), records(b"one"))
        self.runtime.result(self.runtime.start(self.fetching.stop()))
        other = Position("t", Partition(0, 2), 0)
        self.requests()
        self.fetching.start([FetchTarget(self.position, URL), FetchTarget(other, URL)])
        found = {each.words[3]: each.offset for each in self.requests()}
        self.assertEqual({"1": 23, "2": 0}, found)

    def test_tiny_messages(self) -> None:
        """A piece of very many messages is delivered in several lists, then the next is asked."""
        sizes: list[int] = []
        self.begin(
            listener=lambda batch: sizes.append(len(batch)),
            max_size=1 << 20,
            subscription={"batch": True},
        )
        data = b"".join(encode_record(n, 0, b"") for n in range(1, 5001))
        self.value(self.request(), data)
        self.assertEqual(([4096, 904], len(data)), (sizes, self.request().offset))
