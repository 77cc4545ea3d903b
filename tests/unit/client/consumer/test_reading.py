"""Reading by hand."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.reader import PartitionReader
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import (
    BadReply,
    CorruptRecord,
    InternalServerError,
    Moved,
    NotFound,
    RequestTimeout,
)
from metamorphosis.message import encode_jump
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import MAX_OFFSET, Log, MemoryBroker


class ReadingCase(SynchronousTestCase):
    """One partition of one broker."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime)
        config = ClientConfig(broker="b:1")
        connections = Connections(self.runtime, config, self.runtime.log)
        self.connection = connections.acquire("b:1", self)
        self.broker.accept()
        self.reader = PartitionReader(
            self.runtime, self.connection, "g", "t", Partition(0, 1), 5000, 3.0
        )

    def run_(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result, with the broker's replies."""
        future = self.runtime.start(coroutine)
        self.broker.serve()
        return self.runtime.result(future)

    def log(self, start: int = 0) -> Log:
        """The partition gets messages."""
        return self.broker.log("t", 1, start)


class GetTests(ReadingCase):
    """``get``."""

    def test_row_83_data(self) -> None:
        """Row 83: messages, with their offsets."""
        self.log(1000).append(b"one", b"two", b"three")
        found = self.run_(self.reader.get(1000, 50))
        self.assertEqual([(1000, b"one"), (1023, b"two")], [(m.offset, m.data) for m in found])
        [asked] = self.broker.asked
        self.assertEqual(["get", "t", "g", "1", "1000", "50"], asked.words[:6])
        self.assertIsNone(asked.wait_ms)

    def test_row_83_nothing(self) -> None:
        """Row 83: 404 gives None, at the end and for no partition at all; 403 too."""
        self.assertIsNone(self.run_(self.reader.get(0, 100)))
        log = self.log()
        log.append(b"one")
        self.assertIsNone(self.run_(self.reader.get(log.end, 100)))
        self.broker.refusals["t", 1] = 403
        self.assertIsNone(self.run_(self.reader.get(0, 100)))

    def test_row_83_refused(self) -> None:
        """Row 83: any other status is the error of its class."""
        self.broker.refusals["t", 1] = 500
        self.assertRaises(InternalServerError, self.run_, self.reader.get(0, 100))

    def test_moved(self) -> None:
        """A 301 is an error whose text is the new offset."""
        self.log(1000).append(b"one")
        error = self.assertRaises(Moved, self.run_, self.reader.get(0, 100))
        self.assertEqual("1000", str(error))

    def test_jump(self) -> None:
        """A jump over filtered messages counts like a 301, also after messages."""
        log = self.log()
        log.append(b"one")
        log.data += encode_jump(5000)
        found = self.run_(self.reader.get(0, 100))
        self.assertEqual([b"one"], [m.data for m in found])
        error = self.assertRaises(Moved, self.run_, self.reader.get(23, 100))
        self.assertEqual("5000", str(error))

    def test_no_answer(self) -> None:
        """A broker that does not answer in time is an error."""
        future = self.runtime.start(self.reader.get(0, 100))
        self.runtime.advance(3.2)
        self.assertRaises(RequestTimeout, self.runtime.result, future)

    def test_large_message(self) -> None:
        """A message longer than the requested size, or than the broker's limit, is returned."""
        self.log().append(b"x" * 4000, b"two")
        for limit in (1 << 20, 1500):
            self.broker._limit = limit
            found = self.run_(self.reader.get(0, 100))
            self.assertEqual([b"x" * 4000], [m.data for m in found])

    def test_unfinished_message(self) -> None:
        """An incomplete message at the end of the log is not returned."""
        log = self.log()
        log.append(b"x" * 100)
        log.data = log.data[:-1]
        self.assertEqual([], self.run_(self.reader.get(0, 1000)))

    def test_less_than_a_header(self) -> None:
        """At the end of a segment it is damage; at the end of the log the rest is not there yet."""
        log = self.log()
        log.append(b"one")
        log.data += bytes(7)
        self.assertEqual([], self.run_(self.reader.get(23, 1000)))
        log.roll()
        log.append(b"two")
        self.assertRaisesRegex(
            CorruptRecord,
            "offset 23 cannot be read, the log ends after 7 bytes",
            self.run_,
            self.reader.get(23, 1000),
        )

    def test_damage(self) -> None:
        """Messages before a damaged one are returned; the damaged one is an error with its
        place."""
        log = self.log()
        log.append(b"one", b"two")
        log.data = log.data[:-1] + b"?"
        self.assertEqual([b"one"], [m.data for m in self.run_(self.reader.get(0, 1000))])
        error = self.assertRaises(CorruptRecord, self.run_, self.reader.get(23, 1000))
        self.assertIn("t 0-1: the message at offset 23 cannot be read", str(error))


class OffsetTests(ReadingCase):
    """Offsets of a partition."""

    def test_row_83_offset(self) -> None:
        """Row 83: an offset request gives the number."""
        log = self.log(1000)
        log.append(b"one")
        log.roll()
        log.append(b"two")
        self.assertEqual(1000, self.run_(self.reader.nearest(1022)))
        self.assertEqual(1023, self.run_(self.reader.nearest(1023)))
        self.assertEqual(1000, self.run_(self.reader.min_offset()))
        self.assertEqual(1046, self.run_(self.reader.max_offset()))
        self.assertEqual(MAX_OFFSET, self.broker.asked[-1].offset)

    def test_no_partition(self) -> None:
        """A partition without messages has no offset."""
        self.assertRaises(NotFound, self.run_, self.reader.max_offset())

    def test_senseless_answer(self) -> None:
        """The error quotes a reply that is not a number."""
        self.broker._offset = lambda asked: self.broker._result(  # type: ignore[method-assign]
            asked, 200, b"soon"
        )
        error = self.assertRaises(BadReply, self.run_, self.reader.min_offset())
        self.assertIn("answered b'soon', a number expected", str(error))

    def test_next_segment(self) -> None:
        """The next segment is found, near or far; after the last one follows the end."""
        log = self.log(500)
        starts = [500]
        for body in (b"x" * 10, b"y" * 3_000_000, b"z", b"z" * 5_000_000):
            log.append(body)
            log.roll()
            starts.append(log.end)
        log.append(b"last")
        places = LogPlaces(self.connection, "g", "t", Partition(0, 1), 3.0)
        for start, after in zip(starts, [*starts[1:], log.end], strict=True):
            found = self.run_(places.next_segment(start))
            self.assertEqual(after, found)
        self.assertLess(len(self.broker.asked), 60)
