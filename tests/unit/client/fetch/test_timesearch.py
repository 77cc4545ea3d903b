"""The search for the offset of a time."""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.timesearch import TimeSearch, milliseconds_of
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import InternalServerError, InvalidArgument, NotFound
from metamorphosis.ids import EPOCH_MS
from metamorphosis.message import HEADER, HEADER_BYTES, encode_record
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import Log, MemoryBroker

MAX_BODY = 200
LONGEST = HEADER_BYTES + MAX_BODY


def id_at(second: float) -> int:
    """A message id of that second of the test."""
    return (1_000_000 + int(second * 1000)) << 22 | 5


def ms(second: float) -> int:
    """That second of the test in ms since 1970."""
    return EPOCH_MS + 1_000_000 + int(second * 1000)


class TimeCase(SynchronousTestCase):
    """One partition of one broker, which sends short pieces."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime, limit=300)
        connections = Connections(self.runtime, ClientConfig(broker="b:1"), self.runtime.log)
        connection = connections.acquire("b:1", self)
        self.broker.accept()
        self.search = TimeSearch(self.runtime, connection, "t", Partition(0, 1), MAX_BODY, 3.0)

    def find(self, second: float) -> int:
        """The offset of a time."""
        future: Any = self.runtime.start(self.search.find(ms(second)))
        self.broker.serve()
        found = self.runtime.result(future)
        assert isinstance(found, int)
        return found

    def log(self, start: int = 0) -> Log:
        """The partition gets messages."""
        return self.broker.log("t", 1, start)

    def filled(self, count: int, body: bytes = b"x" * 20, roll: int = 0) -> list[int]:
        """The offsets of messages of one second each."""
        log = self.log(700)
        places = []
        for second in range(count):
            if roll and second and not second % roll:
                log.roll()
            places.append(log.end)
            log.append(body, first_id=id_at(second))
        return places


class TimeTests(TimeCase):
    """``find``."""

    def test_ids_tell_the_time(self) -> None:
        """Only positive ids do."""
        self.assertEqual(ms(3), milliseconds_of(id_at(3)))
        self.assertEqual(EPOCH_MS, milliseconds_of(1))
        for message_id in (0, -5):
            self.assertIsNone(milliseconds_of(message_id))

    def test_every_second(self) -> None:
        """The first message of that time or later, in one segment and in many."""
        for roll in (0, 10):
            places = self.filled(60, roll=roll)
            for second in range(60):
                self.assertEqual(places[second], self.find(second))
                self.assertEqual(places[second], self.find(second - 0.5))

    def test_cost(self) -> None:
        """A binary search: of twenty thousand messages about a hundred are read."""
        log = self.log()
        log.data = b"".join(encode_record(id_at(n), 0, b"x" * 20) for n in range(20_000))
        self.assertEqual(17_777 * 40, self.find(17_777))
        gets = [each for each in self.broker.asked if each.words[0] == "get"]
        self.assertLess(len(gets), 80)
        self.assertEqual({"Just_for_Browser"}, {each.words[2] for each in gets})

    def test_cost_with_segments(self) -> None:
        """The header at the start of a segment is enough: no piece is read at a middle."""
        places = self.filled(2000, roll=20)
        self.assertEqual(places[1777], self.find(1777))
        gets = [each for each in self.broker.asked if each.words[0] == "get"]
        self.assertLess(len(gets), 15)

    def test_cost_of_short_pieces(self) -> None:
        """A message that does not fit into a piece is found at a middle as well."""
        places = self.filled(2000, b"w" * MAX_BODY)
        self.broker._limit = 50
        self.assertEqual(places[1777], self.find(1777))
        gets = [each for each in self.broker.asked if each.words[0] == "get"]
        self.assertLess(len(gets), 150)

    def test_cost_of_a_short_log(self) -> None:
        """It is read from its beginning, without any halves."""
        places = self.filled(5)
        self.assertEqual(places[4], self.find(4))
        gets = [each.offset for each in self.broker.asked if each.words[0] == "get"]
        self.assertEqual(sorted(gets), gets)
        self.assertEqual(700, gets[0])

    def test_cost_over_damage(self) -> None:
        """Damaged messages where the search begins cost no more than others."""
        log = self.log()
        log.data = b"".join(encode_record(id_at(n), 0, b"x" * 20) for n in range(20_000))
        whole, half = log.data, 10_000 * 40
        for start, end in ((half, half + 20), (half + 30, half + 100), (half + 40, half + 44)):
            self.broker.asked.clear()
            log.data = whole[:start] + b"\xee" * (end - start) + whole[end:]
            self.assertEqual(17_777 * 40, self.find(17_777))
            gets = [each for each in self.broker.asked if each.words[0] == "get"]
            self.assertLess(len(gets), 30)

    def test_outside(self) -> None:
        """A time before all messages: the beginning; after all: the end; in 1970 as well."""
        self.filled(100)
        self.assertEqual(700, self.find(-1))
        self.assertEqual(700, self.find(-1_303_896_000))
        self.assertEqual(self.broker.logs["t", 1].end, self.find(1000))

    def test_same_time(self) -> None:
        """Of many messages of one millisecond the first."""
        log = self.log()
        log.append(*[b"old"] * 50, first_id=id_at(1))
        place = log.end
        log.append(*[b"new"] * 500, first_id=id_at(2))
        self.assertEqual(place, self.find(2))

    def test_empty(self) -> None:
        """A log whose messages were deleted has one offset; one without any message has none."""
        self.log(700)
        self.assertEqual(700, self.find(0))
        self.broker.logs.clear()
        self.assertRaises(NotFound, self.find, 0)

    def test_refusal(self) -> None:
        """The broker's error is that of the search."""
        self.filled(100)
        self.broker.refusals["t", 1] = 500
        self.assertRaises(InternalServerError, self.find, 50)

    def test_messages_in_messages(self) -> None:
        """Records inside of a body, at its end too, old ones and new ones, do not count."""
        generator = random.Random(7)
        for round_ in range(4):
            log, places = self.log(), []
            for second in range(150):
                if not generator.randrange(20):
                    log.roll()
                inner = b""
                while generator.randrange(4) and len(inner) < MAX_BODY - 60:
                    wrong = id_at(generator.randrange(150))
                    inner += encode_record(wrong, 0, b"y" * generator.randrange(1, 20))
                tail = b"z" * generator.randrange(10) if generator.randrange(2) else b""
                places.append(log.end)
                log.append(inner + tail, first_id=id_at(second))
            for second in generator.sample(range(150), 15):
                self.assertEqual(places[second], self.find(second), (round_, second))

    def test_damage(self) -> None:
        """No message of the time or later is left out: what cannot be read counts as that time,
        unless an older message comes after it."""
        generator = random.Random(8)
        for round_ in range(6):
            places = self.filled(150, roll=generator.choice((0, 17)))
            log = self.broker.logs["t", 1]
            damaged = sorted(generator.sample(range(150), generator.randrange(1, 12)))
            data = bytearray(log.data)
            for each in damaged:
                data[places[each] - 700 + HEADER_BYTES] ^= 1
            log.data = bytes(data)
            for second in generator.sample(range(150), 10):
                expected = second
                while expected - 1 in damaged:
                    expected -= 1
                self.assertEqual(places[expected], self.find(second), (round_, second, damaged))

    def test_zeros_and_a_torn_end(self) -> None:
        """A file system leaves zeros after a crash; the log may end inside a message."""
        places = self.filled(100)
        log = self.broker.logs["t", 1]
        log.data += bytes(5000)
        place = log.end
        log.append(*[b"new"] * 50, first_id=id_at(200))
        self.assertEqual(places[99], self.find(99))
        self.assertEqual(700 + 100 * 40, self.find(150))
        self.assertGreater(place, self.find(150))
        log.data += HEADER.pack(100, 5, id_at(300), 0) + b"half"
        self.assertEqual(log.end - 24, self.find(299))

    def test_long_messages(self) -> None:
        """Messages longer than a piece of the broker are put together."""
        places = self.filled(60, b"w" * MAX_BODY)
        self.broker._limit = 50
        for second in (0, 1, 30, 59):
            self.assertEqual(places[second], self.find(second))


class JavaTests(TimeCase):
    """Ids of Java brokers."""

    def test_java_alone(self) -> None:
        """Their ids have no time: the error names the place."""
        self.log().append(*[b"one"] * 100, first_id=-777)
        error = self.assertRaises(InvalidArgument, self.find, 0)
        self.assertIn("t 0-1: the id -678 of the message before offset 2300 says", str(error))

    def test_after_java(self) -> None:
        """After ours has taken over, its messages are found, but not an earlier time."""
        log = self.log()
        log.append(*[b"java"] * 200, first_id=-777)
        log.roll()
        places = []
        for second in range(100):
            places.append(log.end)
            log.append(b"ours", first_id=id_at(second))
        for second in (1, 2, 50, 99):
            self.assertEqual(places[second], self.find(second))
        self.assertEqual(log.end, self.find(1000))
        self.assertRaises(InvalidArgument, self.find, 0)
