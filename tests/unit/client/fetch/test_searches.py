"""What a search after damage costs, and what it finds where only a part was fetched."""

from __future__ import annotations

from itertools import count, product

from metamorphosis.client.fetch.boundaries import Steps
from metamorphosis.client.fetch.searching import Place
from metamorphosis.client.fetch.window import PIECE_BYTES, in_steps
from metamorphosis.errors import NotFound
from metamorphosis.message import HEADER, HEADER_BYTES, encode_record
from tests.support.damagedlogs import FIRST_ID, KINDS, Reading
from tests.support.fetchstage import Asked
from tests.support.memorybroker import Log
from tests.unit.client.fetch.test_searching import LONGEST, SearchCase


class CostTests(SearchCase):
    """The requests of a search."""

    def asked(self) -> list[tuple[int, int]]:
        """Offset and size of each get."""
        found = [each for each in self.broker.asked if each.words[0] == "get"]
        return [(each.offset, each.size) for each in found]

    def test_fetched(self) -> None:
        """What is in memory is not fetched again."""
        places = self.put(b"one", b"two", b"three")
        self.set(HEADER_BYTES, b"?")
        self.assertEqual(Place(places[1]), self.search())
        self.assertEqual([], self.asked())

    def test_rest_of_the_log(self) -> None:
        """One request for all that is left."""
        self.log.data = b"\xee" * 3000
        self.assertEqual(Place(3000, sure=False), self.search())
        self.assertEqual([(300, PIECE_BYTES)], self.asked())

    def test_just_enough(self) -> None:
        """The end by the checksum, and the five bytes after which it is known, are in memory."""
        places = self.put(b"x" * 500, b"two")
        self.set(0, b"\xff")
        self.assertEqual(Place(places[1]), self.search(fetched=places[1] + 5))
        self.assertEqual([], self.asked())

    def test_long_message(self) -> None:
        """The header at its end, the message there, and then its body once, in pieces."""
        places = self.put(b"x" * (3 * PIECE_BYTES), b"two")
        end = places[1]
        self.assertEqual(Place(end, True), self.search())
        body = range(LONGEST + HEADER_BYTES + 1, end, PIECE_BYTES)
        pieces = [(start, min(PIECE_BYTES, end - start)) for start in body]
        ends = [(end, HEADER_BYTES), (end, HEADER_BYTES + 3)]
        self.assertEqual([(300, PIECE_BYTES), *ends, *pieces], self.asked())


class ClosedTests(SearchCase):
    """The partition is closed during the search."""

    def search_until(self, gets: int, fetched: int) -> int | None:
        """What is found where only so many requests are answered; it may not go on for ever."""
        asked, numbers = self.broker._get, count()

        def get(request: Asked) -> bytes | None:
            number = next(numbers)
            self.assertLess(number, 40)
            if number >= gets:
                self.broker.refusals["t", 1] = 403
            return asked(request)

        self.broker._get = get  # type: ignore[method-assign]
        try:
            return self.search(fetched=fetched).offset
        except NotFound as error:
            self.assertIn("nothing is there", str(error))
            return None
        finally:
            self.broker._get = asked  # type: ignore[method-assign]
            self.broker.refusals.clear()

    def test_at_any_moment(self) -> None:
        """The search fails, or it finds the same place as otherwise: what was not read proves
        nothing."""
        for size, kind in product((500, 3000, 2 * PIECE_BYTES), ("length", "header", "claim")):
            self.log.data = b""
            places = self.put(b"\xee" * size, b"two", b"\xee" * 3000, b"three")
            self.set(0, b"\xff" * (HEADER_BYTES if kind == "header" else 4))
            if kind == "claim":
                self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big"))
            for fetched in (30, 2 * (HEADER_BYTES + LONGEST)):
                found = [self.search_until(gets, fetched) for gets in range(8)]
                self.assertLessEqual(set(found), {places[1], None}, (size, kind, fetched))
                self.assertEqual(places[1], found[-1], (size, kind, fetched))


class PartTests(SearchCase):
    """Only the beginning of the damaged message was fetched."""

    def test_wrong_length_and_wrong_checksum(self) -> None:
        """The length leads over a readable message to another one, which is damaged or not, and the
        checksum is negative: the readable message is not passed over, also where the broker sends
        short pieces."""
        for size, damaged, self.broker._limit in product((0, 700), (False, True), (100, 5000)):
            self.log.data = b""
            places = self.put(b"\xee" * size, b"two", b"\xee" * 3000, b"four", b"five")
            self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big") + b"\xff")
            if damaged:
                self.set(places[3] + HEADER_BYTES, b"?")
            self.assertEqual(places[1], self.search(fetched=30).offset, (size, damaged))

    def test_message_over_the_end_of_the_longest(self) -> None:
        """A readable message begins where an accepted body would still hold its beginning."""
        self.broker._limit = 10
        for place in range(LONGEST, LONGEST + HEADER_BYTES, 5):
            self.log.data = b""
            gap = b"\xee" * (place - HEADER_BYTES)
            places = self.put(gap, b"2" * LONGEST, b"\xee" * 30, b"four", b"five")
            self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big") + b"\xff")
            self.set(places[2], b"\xff" * HEADER_BYTES)
            self.assertEqual(place, self.search(fetched=30).offset)

    def test_claim_into_a_message(self) -> None:
        """A length that leads to what looks like a header in the next message, of which nothing
        more was fetched: that message is not passed over."""
        inner = HEADER.pack(30, 7, FIRST_ID + 9, 0) + b"\xee" * 30
        places = self.put(b"one", b"2" * 10 + inner, b"three")
        claimed = places[1] + HEADER_BYTES + 10
        self.set(0, (claimed - HEADER_BYTES).to_bytes(4, "big") + b"\xff")
        self.assertEqual(places[1], self.search(fetched=claimed).offset)

    def test_claim_up_to_a_damaged_message(self) -> None:
        """What is readable in between is a message of its own, whatever its id, also where the
        damaged one is as long as accepted."""
        for size in (50, LONGEST):
            self.log.data = b""
            places = self.put(b"one", b"two", b"\xee" * 50, b"4" * size, b"five")
            self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big"))
            self.set(places[1] + 8, bytes(8))
            self.set(places[2], b"\xff" * HEADER_BYTES)
            for place in (0, places[3]):
                self.set(place + HEADER_BYTES, b"?")
            self.assertEqual(Place(places[1]), self.search(), size)

    def test_message_inside_in_front_of_long_ones(self) -> None:
        """Very many messages that are too long follow: what the damaged one holds does not come."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner")
        places = self.put(b"head" + inner + b"tail", *[b"x" * (LONGEST + 1)] * 17)
        self.set(HEADER_BYTES, b"?")
        self.assertEqual(places[1], self.search().offset)

    def test_length_that_leads_into_its_own_body_before_the_last_message(self) -> None:
        """The checksum finds the true end, where the last message, an empty one, begins."""
        inner = encode_record(FIRST_ID, 0, b"inner" * 9)
        for whole in (0, 1, 2):
            self.log.data = b""
            places = self.put(inner * 3 + b"tail", b"")
            self.set(0, (whole * len(inner)).to_bytes(4, "big"))
            self.assertEqual(places[1], self.search(fetched=1000).offset, whole)

    def test_longest_message_that_leads_into_its_own_body(self) -> None:
        """The body is longer than accepted and holds messages, one of them where the length ends:
        the checksum finds the true end."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner")
        gap = b"\xee" * (LONGEST - len(inner))
        for fetched in (LONGEST + HEADER_BYTES, 2000):
            self.log.data = b""
            places = self.put(inner + gap + inner + b"tail", b"two")
            self.set(0, LONGEST.to_bytes(4, "big"))
            self.assertEqual(places[1], self.search(fetched=fetched).offset)


class TurnTests(SearchCase):
    """``in_steps``."""

    def test_others_in_between(self) -> None:
        """After each step the loop does other work, and the search may be ended."""
        done: list[str] = []

        def steps() -> Steps[str]:
            for number in range(3):
                done.append(f"step {number}")
                yield
            return "found"

        search = in_steps(self.runtime, steps(), lambda: done.append("go on?"))
        future = self.runtime.start(search)
        self.assertEqual(["step 0"], done)
        self.runtime.call_later(0, done.append, "other work")
        self.runtime.advance(0)
        self.assertEqual("found", self.runtime.result(future))
        self.assertEqual("go on?", done.pop())
        wanted = ["step 0", "go on?", "step 1", "other work", "go on?", "step 2"]
        self.assertEqual(wanted, done)


class ZeroTests(SearchCase):
    """Zeros in front of a header look like an empty message."""

    def test_behind_a_message_that_is_held(self) -> None:
        """A damaged body holds a message, and zeros up to its end: what is held does not come."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner")
        for zeros in range(1, 2 * HEADER_BYTES):
            self.log.data = b""
            places = self.put(b"head" + inner + bytes(zeros), b"two")
            self.set(HEADER_BYTES, b"?")
            self.assertEqual(places[1], self.search().offset, zeros)

    def test_in_front_of_an_empty_message(self) -> None:
        """The message behind both is delivered."""
        for zeros, kind in product(range(1, 5), KINDS):
            log = Log()
            log.data = bytes(zeros)
            log.append(b"", b"two", first_id=FIRST_ID)
            got = [each.offset for each in Reading(kind, log, 1000, 600).got]
            self.assertEqual([zeros, zeros + HEADER_BYTES], got[-2:], (zeros, kind))

    def test_row_that_ends_with_an_empty_message(self) -> None:
        """A length that leads exactly to another message, and no id that tells anything: messages
        that lead up to that end without a gap are not part of the body."""
        for row in ((b"two", b""), (b"two", b"", b""), (b"two", b"", b"three", b"")):
            self.log.data = b""
            places = self.put(b"one", *row, b"behind", b"last")
            end = places[len(row) + 1]
            self.set(0, (end - HEADER_BYTES).to_bytes(4, "big"))
            self.set(8, bytes(8))
            self.set(HEADER_BYTES, b"?")
            self.set(end + 8, b"\x9a")
            self.assertEqual(Place(places[1]), self.search(), row)
