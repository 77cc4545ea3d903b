"""The browser: all messages of a topic."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.consumer.browser import TopicBrowser
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.model import Partition
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import (
    ClientClosed,
    InternalServerError,
    InvalidArgument,
    NotConnected,
    RequestTimeout,
)
from metamorphosis.message import encode_record
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import MemoryBroker


class BrowserCase(SynchronousTestCase):
    """A factory in direct mode and its broker."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime)
        self.session = SessionFactory(self.runtime, ClientConfig(broker="b:1"))

    def browser(self, max_size: int = 1000) -> TopicBrowser:
        """Of the topic ``t``."""
        return TopicBrowser(self.session, "t", max_size)

    def browse(self, browser: TopicBrowser) -> Any:
        """All messages as (partition, data)."""

        async def collect() -> list[tuple[int, bytes]]:
            return [(m.partition.number, m.data) async for m in browser]

        future: Deferred[Any] = self.runtime.start(collect())
        self.broker.serve()
        return self.runtime.result(future)


class BrowserTests(BrowserCase):
    """Iterating."""

    def test_row_81_all_partitions(self) -> None:
        """Row 81: 100 messages over ten partitions are all returned, in several fetches, by
        number."""
        for n in range(100):
            if n < 10:
                self.broker.log("t", n)
            self.broker.logs["t", n % 10].append(b"%d" % n)
        found = self.browse(self.browser(max_size=50))
        self.assertEqual([(p, b"%d" % n) for p in range(10) for n in range(p, 100, 10)], found)

    def test_row_81_each_iteration_begins_anew(self) -> None:
        """Row 81: a second iteration returns all messages again, with later ones."""
        log = self.broker.log("t", 0)
        log.append(b"one")
        browser = self.browser()
        self.assertEqual([(0, b"one")], self.browse(browser))
        log.append(b"two")
        self.assertEqual([(0, b"one"), (0, b"two")], self.browse(browser))

    def test_row_81_end(self) -> None:
        """Row 81: no messages, no partitions: the iteration ends."""
        browser = self.browser()
        self.assertEqual([], self.browse(browser))
        self.broker.log("t", 0)
        self.assertEqual([], self.browse(browser))

    def test_row_81_arguments(self) -> None:
        """Row 81: blank topic, size -1 and time-out 0 are refused."""
        for topic, size, timeout in ((" ", 1, 1.0), ("t", -1, 1.0), ("t", 0, 1.0), ("t", 1, 0.0)):
            with self.assertRaises(InvalidArgument):
                self.runtime.result(self.session.create_topic_browser(topic, size, timeout))

    def test_size(self) -> None:
        """A fetch asks for a mebibyte, if nothing else is said."""
        self.broker.log("t", 0).append(b"one")
        self.assertEqual([(0, b"one")], self.browse(TopicBrowser(self.session, "t")))
        gets = [each for each in self.broker.asked if each.words[0] == "get"]
        self.assertEqual({1 << 20}, {each.size for each in gets})

    def test_deleted_messages(self) -> None:
        """A partition whose oldest messages were deleted begins at its lowest offset."""
        self.broker.log("t", 0, 5000).append(b"one")
        self.assertEqual([(0, b"one")], self.browse(self.browser()))

    def test_sent_back(self) -> None:
        """A log that ends before what was read of it ends the partition; so does a broker that
        sends to where the reader is."""
        self.broker.log("t", 0).append(b"one")
        asked, number = self.broker._get, count()
        for place in (b"0", b"23"):

            def get(request: Any, place: bytes = place) -> bytes | None:
                self.assertLess(next(number), 20)
                if request.offset < 23:
                    return asked(request)
                return self.broker._result(request, 301, place)

            self.broker._get = get  # type: ignore[method-assign]
            self.assertEqual([(0, b"one")], self.browse(self.browser()))

    def test_large_message(self) -> None:
        """A message larger than the buffer does not end its partition."""
        self.broker.log("t", 0).append(b"x" * 4000, b"two")
        self.assertEqual([(0, b"x" * 4000), (0, b"two")], self.browse(self.browser(max_size=100)))

    def test_unfinished_message(self) -> None:
        """Half a message at the end ends the partition."""
        log = self.broker.log("t", 0)
        log.append(b"one", b"two")
        log.data = log.data[:-1]
        self.assertEqual([(0, b"one")], self.browse(self.browser()))

    def test_damage(self) -> None:
        """A damaged message is skipped, with a log line that names its place."""
        log = self.broker.log("t", 0)
        log.append(b"one", b"two", b"three")
        log.data = log.data.replace(b"two", b"tw?")
        self.assertEqual([(0, b"one"), (0, b"three")], self.browse(self.browser()))
        [line] = self.runtime.log.texts("error")
        self.assertIn("t 0-0: the message at offset 23 cannot be read", line)

    def test_zeros_that_reach_into_a_fetch(self) -> None:
        """Zeros look like empty messages. The last of them covers the beginning of a message that
        is whole, at which reading continues: before the first byte of this fetch."""
        log = self.broker.log("t", 0)
        first = 1 << 60
        bodies = (b"", bytes(8), b"", b"three", b"four")
        log.data = b"".join(encode_record(first + n, 0, body) for n, body in enumerate(bodies))
        log.data = log.data[:20] + bytes(9) + log.data[29:]  # an id is left, so it may be a message
        found = self.browse(self.browser(max_size=64))
        self.assertEqual([b"three", b"four"], [data for _, data in found if data])

    def test_damage_to_the_next_segment(self) -> None:
        """If no later record is found the rest of the segment is skipped."""
        log = self.broker.log("t", 0)
        log.data = b"\xff" * 5000
        log.roll()
        log.append(b"one")
        self.assertEqual([(0, b"one")], self.browse(self.browser()))
        self.assertIn("going on at offset 5000", self.runtime.log.texts("error")[0])

    def test_broker_away(self) -> None:
        """The error says so, and after how long."""
        self.broker.log("t", 0).append(b"one")
        self.browse(self.browser())
        browser = TopicBrowser(self.session, "t", 1000, 2.0)
        reading = self.runtime.start(browser._reader.partition(Partition(0, 0), 2.0))
        self.runtime.result(reading)
        for link in self.runtime.links:
            link.lose()
        reading = self.runtime.start(browser._reader.partition(Partition(0, 0), 2.0))
        self.runtime.advance(3)
        error = self.assertRaises(NotConnected, self.runtime.result, reading)
        self.assertIn("meta://b:1 cannot be reached within 2 s", str(error))

    def test_refused(self) -> None:
        """A refusal of the broker ends the iteration with its error."""
        self.broker.log("t", 0).append(b"one")
        self.broker.refusals["t", 0] = 500
        self.assertRaises(InternalServerError, self.browse, self.browser())


class LifeTests(BrowserCase):
    """The life of a browser."""

    def test_partitions(self) -> None:
        """The partitions are available as an attribute."""
        self.broker.log("t", 0)
        self.broker.log("t", 11)
        self.broker.log("t", 2)
        self.broker.log("u", 3)
        future = self.browser().partitions()
        self.broker.serve()
        self.assertEqual(
            [Partition(0, 0), Partition(0, 2), Partition(0, 11)], self.runtime.result(future)
        )

    def test_broker_that_does_not_list_them(self) -> None:
        """It is not waited for longer than ``stats_timeout_ms``."""
        future = self.browser().partitions()
        self.broker.accept()
        self.runtime.advance(2.9)
        self.assertNoResult(future)
        self.runtime.advance(0.3)
        self.assertRaises(RequestTimeout, self.runtime.result, future)

    def test_gives_back_what_it_has(self) -> None:
        """Its use of the broker's connection; what was passed over and not told is told."""
        log = self.broker.log("t", 0)
        log.append(*[b"%03d" % number for number in range(20)])
        log.data = log.data.replace(b"0", b"?")
        browser = self.browser()
        self.browse(browser)
        self.assertEqual([], self.runtime.log.texts("warn"))
        users = self.session.connections._shared["meta://b:1"].users
        self.assertIn(id(browser._reader), users)
        self.runtime.result(browser.close())
        self.assertNotIn(id(browser._reader), users)
        (line,) = self.runtime.log.texts("warn")
        self.assertIn("10 times more within", line)

    def test_closed(self) -> None:
        """A closed browser returns no message, and has left the factory."""
        browser = self.browser()
        self.browse(browser)
        for _ in range(2):
            self.runtime.result(browser.close())
        self.assertRaises(ClientClosed, self.browse, browser)
        self.assertEqual([], self.session._children)

    def test_closed_in_the_loop(self) -> None:
        """The loop ends with the error, and returns no further message, whatever is pending."""
        for partition in (0, 1):
            self.broker.log("t", partition).append(b"one", b"two")
        for most in (0, 1, 3):
            browser, got = self.browser(), []

            async def loop(browser: TopicBrowser, got: list[bytes], most: int) -> None:
                async for message in browser:
                    got.append(message.data)
                    if len(got) == most:
                        await browser.close()

            looping = self.runtime.start(loop(browser, got, most))
            if not most:
                self.runtime.result(browser.close())  # while the partitions are asked for
            self.broker.serve()
            self.assertRaises(ClientClosed, self.runtime.result, looping)
            self.assertEqual(most, len(got))

    def test_closed_with_the_factory(self) -> None:
        """Closing the factory closes its browsers."""
        browser = self.browser()
        self.browse(browser)
        self.runtime.result(self.session.close())
        error = self.assertRaises(ClientClosed, self.browse, browser)
        self.assertIn("the browser of t has been closed", str(error))

    def test_async_with(self) -> None:
        """``async with`` closes it."""
        self.broker.log("t", 0).append(b"one")

        async def use() -> list[bytes]:
            async with self.browser() as browser:
                return [message.data async for message in browser]

        future = self.runtime.start(use())
        self.broker.serve()
        self.assertEqual([b"one"], self.runtime.result(future))
        self.assertEqual([], self.session._children)
