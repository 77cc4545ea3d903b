"""The search for the next record after damage."""

from __future__ import annotations

import re
from itertools import product
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.boundaries import (
    RecordEnd,
    ends_early,
    find_record,
    holds_record,
    is_empty,
    leads_to_end,
)
from metamorphosis.client.fetch.inside import RecordsInside
from metamorphosis.client.fetch.records import FetchedRecords
from metamorphosis.client.fetch.resuming import LogPlaces
from metamorphosis.client.fetch.searching import DamageSearch, Place
from metamorphosis.client.fetch.window import PIECE_BYTES, LogWindow
from metamorphosis.client.model import Partition
from metamorphosis.client.network.connections import Connections
from metamorphosis.client.settings import ClientConfig
from metamorphosis.errors import NotFound
from metamorphosis.message import HEADER, HEADER_BYTES, crc32, encode_record
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.damagedlogs import FIRST_ID, KINDS, Reading, run
from tests.support.fetchstage import Asked
from tests.support.memorybroker import Log, MemoryBroker
from tests.support.seeds import seeds

LONGEST = 1000
FOUND = (
    1883241033236604,
    1883241033231884,
    1883241033232074,
    1883241033234078,
    1883242861980283,
    1883245368051373,
    1883246775256858,
    1883254367983074,
    1883255239358744,
    1883256641378285,
    1883261049508912,
)
"""
Seeds of damaged logs of which a message was missing, or one was delivered that was never sent.
"""
SIZES = (700, 5000, 1 << 20)
"""``max_size``: smaller than a fetch of the broker's, about as large, larger."""


class SearchCase(SynchronousTestCase):
    """A log, its broker, and searches in it."""

    def setUp(self) -> None:
        self.runtime = MemoryRuntime()
        self.broker = MemoryBroker(self.runtime)
        connections = Connections(self.runtime, ClientConfig(broker="b:1"), self.runtime.log)
        connection = connections.acquire("b:1", self)
        self.broker.accept()
        self.places = LogPlaces(connection, "g", "t", Partition(0, 1), 3.0)
        self.log = self.broker.log("t", 1)

    def search(self, offset: int = 0, fetched: int = 300, longest: int = LONGEST) -> Place:
        """The offset at which reading continues."""
        piece = self.log.data[offset : min(offset + fetched, self.log.segment_end(offset))]
        records = FetchedRecords("t", Partition(0, 1), offset, piece, longest)
        records.read(1)
        if records.damage is None:
            records.cut_off()
        assert records.damage is not None
        search = DamageSearch(self.runtime, self.places, records.damage, piece, longest)
        future = self.runtime.start(search.run())
        self.broker.serve()
        place = self.runtime.result(future)
        assert isinstance(place, Place)
        return place

    def put(self, *bodies: bytes) -> list[int]:
        """The offsets of the records, and the end of the last one."""
        places = []
        for body in bodies:
            places.append(self.log.end)
            self.log.append(body, first_id=FIRST_ID + len(self.log.data))
        return [*places, self.log.end]

    def set(self, place: int, data: bytes) -> None:
        """Overwrite bytes of the log."""
        self.log.data = self.log.data[:place] + data + self.log.data[place + len(data) :]


class RowTests(SearchCase):
    """Long and damaged messages in a row."""

    def test_whatever_stands_in_a_row(self) -> None:
        """Up to three messages that cannot be delivered, long ones, with a wrong checksum, a wrong
        length or no header at all, at the start, in the middle and at the end of a segment or of
        the log: all others are delivered. Each is passed over by itself, but for those with a wrong
        length after a damaged one: nobody can tell where they begin."""
        chance = Random(9)
        for count in (1, 2, 3):
            for row in product("lcnh", repeat=count):
                for before, behind in ((0, 2), (2, 2), (2, 0), (0, 0)):
                    for last in (False, True):
                        self._check_row(chance, row, before, behind, last)

    def _check_row(
        self, chance: Random, row: tuple[str, ...], before: int, behind: int, last: bool
    ) -> None:
        log = Log()
        log.append(b"first", first_id=FIRST_ID)
        log.roll()
        wanted, passed = [0], []
        number = FIRST_ID
        harmed = bytearray()
        for kind in "." * before + "".join(row) + "." * behind:
            number += 1
            body = chance.randbytes(3000 if kind == "l" else chance.choice((1, 99, 1000)))
            place = log.end + len(harmed)
            record = bytearray(encode_record(number, 0, body))
            if kind == "c":
                record[-1] ^= 1
            elif kind == "n":
                record[:4] = chance.choice((b"\xff\xff\xff\xff", b"\x00\x00\x08\x00", b"\1\0\0\0"))
            elif kind == "h":
                record[:HEADER_BYTES] = b"\xee" * HEADER_BYTES
            (wanted if kind == "." else passed).append(place)
            harmed += record
        log.data += bytes(harmed)
        if not last:
            log.roll()
            wanted.append(log.end)
            log.append(b"last", first_id=number + 1)
        reading = Reading(KINDS[chance.randrange(5)], log, 700, LONGEST, chance.choice((500, 5000)))
        story = (row, before, behind, last)
        self.assertEqual(wanted, [each.offset for each in reading.got], story)
        if re.search("h|.n", "".join(row)) is None:
            self.assertEqual(passed, [each.offset for each in reading.passed], story)
            longer = [each.offset for each in reading.passed if each.too_long]
            long_ones = [p for p, kind in zip(passed, row, strict=True) if kind == "l"]
            self.assertEqual(long_ones, longer, story)

    def test_log_that_grows(self) -> None:
        """After every kind of last message the next one is delivered when it arrives."""
        chance = Random(10)
        for kind, rows in product(KINDS, ("l", "c", "n", "h", "lh", "hl", "cc", "ln")):
            log = Log()
            log.append(b"one", first_id=FIRST_ID)
            for row in rows:
                record = bytearray(encode_record(FIRST_ID + 1, 0, chance.randbytes(1500)))
                if row != "l":
                    record = bytearray(encode_record(FIRST_ID + 1, 0, chance.randbytes(99)))
                if row == "c":
                    record[4] ^= 1
                elif row == "n":
                    record[2] += 7
                elif row == "h":
                    record[:HEADER_BYTES] = chance.randbytes(HEADER_BYTES)
                log.data += bytes(record)
            end = log.end

            def grow(log: Log = log) -> None:
                log.append(b"two", b"three", first_id=FIRST_ID + 9)

            reading = Reading(kind, log, 700, LONGEST, 5000, grow)
            offsets = [each.offset for each in reading.got]
            self.assertEqual([0, end, end + 23], offsets, (kind, rows))

    def test_issue_two_long_ones(self) -> None:
        """Two bodies of 3 MB and many short lines after them: all lines are delivered."""
        log = Log()
        log.append(b"first", b"x" * 3_000_000, b"y" * 3_000_000, first_id=FIRST_ID)
        log.append(*(b"line %d" % n for n in range(1000)), first_id=FIRST_ID + 3)
        reading = Reading("listener", log, 1 << 20, 2 << 20)
        self.assertEqual(1001, len(reading.got))
        self.assertEqual([True, True], [each.too_long for each in reading.passed])


class BitTests(SearchCase):
    """One flipped bit of a header."""

    COUNT = 12
    BODY = 300

    def log_with(self, size: int) -> Log:
        """Records of one length."""
        log = Log()
        chance = Random(size)
        for n in range(self.COUNT):
            log.append(chance.randbytes(size), first_id=FIRST_ID + n)
        return log

    def check(self, size: int, number: int, bit: int, max_size: int, limit: int) -> None:
        """All messages except the damaged one are delivered; a flipped bit of id or flag does not
        lose its message."""
        log = self.log_with(size)
        before = log.data
        data = bytearray(before)
        place = number * (HEADER_BYTES + size)
        data[place + bit // 8] ^= 0x80 >> bit % 8
        log.data = bytes(data)
        reading = Reading(KINDS[(bit + number) % 5], log, max_size, 600, limit)
        story = (size, number, bit, max_size, limit)
        wanted = [n * (HEADER_BYTES + size) for n in range(self.COUNT)]
        if bit < 64:
            wanted.remove(place)
            self.assertEqual([place], [each.offset for each in reading.passed], story)
        else:
            changed = [each for each in reading.got if each.offset == place]
            _, _, message_id, flag = HEADER.unpack_from(data, place)
            self.assertEqual([(message_id, flag)], [each[1:3] for each in changed], story)
        self.assertEqual(wanted, [each.offset for each in reading.got], story)

    def test_every_bit(self) -> None:
        """
        Of the first, a middle and the last record of a fetch, which are the last of the log, too,
        with three sizes of a fetch.
        """
        size = self.BODY
        for bit in range(HEADER_BYTES * 8):
            for max_size in SIZES:
                for number in (0, 5, self.COUNT - 1):
                    self.check(size, number, bit, max_size, 1 << 20)

    def test_lengths_that_lead_to_other_messages(self) -> None:
        """Records of 32 and 64 bytes: a length with one bit more leads to where another begins."""
        for size, bit, number in product((12, 44), range(32), (0, 5, self.COUNT - 1)):
            self.check(size, number, bit, 5000, 1 << 20)

    def test_empty_messages(self) -> None:
        """Their checksum is 0, as zeros are."""
        for bit, number in product(range(64), (0, 5, self.COUNT - 1)):
            self.check(0, number, bit, 5000, 1 << 20)

    def test_issue_end_of_the_fetch(self) -> None:
        """Records of 1,020 bytes, bit 20 of one length: one message is missing, not 1,030."""
        for max_size, bit in ((1 << 20, 20), (65536, 17)):
            log = Log()
            body = bytes(range(250)) * 4
            log.data = b"".join(encode_record(FIRST_ID + n, 0, body) for n in range(3000))
            self.log.data = log.data
            place = 1020 * 100
            log.data = (
                log.data[:place] + (1000 | 1 << bit).to_bytes(4, "big") + log.data[place + 4 :]
            )
            reading = Reading("batch", log, max_size, 2 << 20)
            self.assertEqual(2999, len(reading.got))


class FindTests(SearchCase):
    """Searches without a useful length."""

    def test_empty_messages_behind_damage(self) -> None:
        """Empty messages directly after damage are not passed over."""
        places = self.put(b"one", b"", b"", b"two")
        self.set(0, b"\xee" * 23)
        self.assertEqual(places[1], self.search().offset)

    def test_zeros_are_no_empty_messages(self) -> None:
        """Nor bytes that look similar to one."""
        places = self.put(b"one", bytes(3), b"two")
        self.set(0, b"\xee" * 8 + bytes(15))
        self.assertEqual(places[1], self.search().offset)
        self.set(0, b"\xee" * 3 + bytes(8) + b"\xee" * 12)
        self.assertEqual(places[1], self.search().offset)

    def test_zeros_and_the_next_header(self) -> None:
        """
        A message whose header lost its length and checksum looks like an empty one; if its body are
        zeros, these and the next header look like one more. The next message is delivered.
        """
        for size in range(8, 20):
            for kind in KINDS:
                log = Log()
                log.append(bytes(size), b"two", b"three", first_id=FIRST_ID)
                log.data = bytes(8) + log.data[8:]
                got = [each.body for each in Reading(kind, log, 1000, 600).got]
                self.assertEqual([b"two", b"three"], [each for each in got if each], size)

    def test_long_messages_that_are_accepted(self) -> None:
        """A message of 16 MiB or more after damage is found if the consumer accepts it."""
        for size in ((16 << 20) - 1, 16 << 20, (16 << 20) + 65537, 20 << 20):
            self.log.data = b""
            places = self.put(b"one", b"x" * size)
            self.set(0, b"\xee" * 23)
            self.assertEqual(places[1], self.search(longest=20 << 20).offset)

    def test_longest_message(self) -> None:
        """Just as long as accepted is found, one byte more is not; whatever the limit's bytes."""
        for longest in (255, 256, 65535, 65536, 70000, (1 << 20) + 3):
            self.log.data = b""
            places = self.put(b"one", b"x" * longest, b"y" * (longest + 1), b"two")
            self.set(0, b"\xee" * 23)
            self.assertEqual(places[1], self.search(longest=longest).offset)
            self.set(places[1], b"\xee" * 20)
            self.assertEqual(places[3], self.search(longest=longest).offset)

    def test_damage_longer_than_what_is_kept(self) -> None:
        """Megabytes of damage are searched with bounded memory, and the loop keeps running."""
        self.log.data = b"\xee" * (6 << 20)
        places = self.put(b"one")
        kept: list[int] = []
        fill = LogWindow.fill

        async def filled(window: LogWindow, size: int) -> bool:
            came = await fill(window, size)
            kept.append(len(window.data))
            return came

        self.patch(LogWindow, "fill", filled)
        self.assertEqual(Place(places[0]), self.search())
        gets = [each for each in self.broker.asked if each.words[0] == "get"]
        self.assertLess(len(gets), 10)
        self.assertLess(max(kept), 3 * PIECE_BYTES)

    def test_numbers_that_look_like_headers(self) -> None:
        """Small numbers are all plausible lengths: it takes a while, and others get their turn."""
        self.log.data = b"\xee" * 20 + b"\x00\x00\x03\x00" * 60000
        places = self.put(b"one")
        turns = []
        self.runtime.call_later(0, turns.append, 1)
        self.assertEqual(places[0], self.search(fetched=1 << 20).offset)
        self.assertEqual([1], turns)

    def test_damage_of_any_length(self) -> None:
        """From one byte on, whatever it is: the message directly behind it is found."""
        for byte in (b"\xee", b"\x00", b"\x7f"):
            for length in (*range(1, 2 * HEADER_BYTES + 2), LONGEST + HEADER_BYTES):
                self.log.data = byte * length
                places = self.put(b"one", b"two")
                self.assertEqual(places[0], self.search().offset, (byte, length))

    def test_next_segment(self) -> None:
        """No readable record up to the end of the segment: the next segment, for certain."""
        self.log.data = b"\xee" * 3000
        self.log.roll()
        self.put(b"one")
        self.assertEqual(Place(3000), self.search())

    def test_end_of_the_log(self) -> None:
        """No readable record up to the end of the log: that is not certain."""
        self.log.data = b"\xee" * 3000
        self.assertEqual(Place(3000, sure=False), self.search())

    def test_message_inside_of_another_one(self) -> None:
        """Records inside of a damaged or long body are not delivered if its length leads to a
        message."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner") + encode_record(FIRST_ID - 1, 0, b"x")
        for body in (inner, b"head" + inner + b"tail", inner + b"tail"):
            self.log.data = b""
            places = self.put(body, b"two")
            self.set(len(body) + 19, b"?")
            self.assertEqual(places[1], self.search().offset, body)
            self.log.data = b""
            places = self.put(inner * 30, b"x" * 2000, b"two")
            self.assertEqual(Place(places[1], True), self.search())

    def test_length_that_leads_into_its_own_body(self) -> None:
        """A body that holds messages, and a length that ends before the first one, or after one:
        the checksum finds the true end, also where that has not been fetched."""
        inner = [encode_record(FIRST_ID + n, 0, b"inner" * 9) for n in range(3)]
        behind: tuple[bytes, ...]
        for whole, fetched, behind in product(
            (0, 1, 2), (70, 100, 150, 1000), ((b"two",), (b"x" * LONGEST,), ())
        ):
            self.log.data = b""
            places = self.put(b"".join(inner) + b"tail", *behind)
            self.set(0, sum(map(len, inner[:whole])).to_bytes(4, "big"))
            self.assertEqual(places[1], self.search(fetched=fetched).offset, (whole, fetched))

    def test_length_that_leads_into_its_own_body_before_an_empty_message(self) -> None:
        """The same, and the header after the empty message is lost: reading goes on at it."""
        inner = encode_record(FIRST_ID, 0, b"inner" * 9)
        for whole in (0, 1, 2):
            self.log.data = b""
            places = self.put(inner * 3 + b"tail", b"", b"lost", b"two")
            self.set(0, (whole * len(inner)).to_bytes(4, "big"))
            self.set(places[2], b"\xff" * HEADER_BYTES)
            self.assertEqual(places[1], self.search(fetched=1000).offset, whole)

    def test_length_of_the_longest_message_that_leads_into_its_own_body(self) -> None:
        """The body is longer than accepted and holds messages, one of them where the length ends:
        the checksum finds the true end."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner")
        gap = b"\xee" * (LONGEST - len(inner))
        places = self.put(inner + gap + inner + b"tail", b"two")
        self.set(0, LONGEST.to_bytes(4, "big"))
        self.assertEqual(places[1], self.search().offset)

    def test_longest_message_wherever_the_fetch_ends(self) -> None:
        """Its length is lost, its body holds a message with an id that could be the next one: the
        checksum finds its end, also where only a few bytes around that end were fetched."""
        inner = encode_record(FIRST_ID + 1, 0, b"inner")
        places = self.put(inner + b"\xee" * (LONGEST - len(inner)), b"two")
        self.set(0, b"\xff")
        for fetched in range(places[1] - 9, places[1] + 10):
            self.assertEqual(places[1], self.search(fetched=fetched).offset, fetched)

    def test_three_faults(self) -> None:
        """A length that leads to another message, before a header that is lost, and a damaged
        message in between: the ids tell that the messages before it are not part of the body."""
        places = self.put(*(bytes([n]) * 50 for n in range(1, 7)))
        self.set(0, (places[5] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1], b"\xff" * HEADER_BYTES)
        self.set(places[4] + 30, b"?")
        self.assertEqual(Place(places[2]), self.search(fetched=2000))

    def test_wrong_length_and_wrong_id(self) -> None:
        """
        A length that leads exactly to another message, and a wrong id that
        does not fit to the id there, or fits to one of those between: none is passed over. The body
        is empty or holds messages, so that nothing else tells.
        """
        inner = encode_record(FIRST_ID - 2, 0, b"inner") + encode_record(FIRST_ID - 1, 0, b"x")
        far = (0, 7, -(1 << 60), FIRST_ID ^ 1 << 62, FIRST_ID + 5000)
        for body, to, long in product((b"", inner), (2, 3, 4, 5, 6), (1, LONGEST + 1)):
            row = (body, b"one", b"", inner + b"tail", b"two", b"x" * long, b"three", b"four")
            self.log.data = b""
            places = self.put(*row)
            self.set(0, (places[to] - HEADER_BYTES).to_bytes(4, "big"))
            whole, first = self.log.data, HEADER_BYTES if body else places[1]
            for wrong in (*far, *(FIRST_ID + each for each in places[1 : min(to, 5)])):
                self.log.data = whole
                self.set(4, b"\0\0\1\1" + wrong.to_bytes(8, "big", signed=True))
                found = self.search(fetched=1000).offset
                self.assertEqual(first, found, (wrong, body, to, long))

    def test_row_up_to_a_wrong_end(self) -> None:
        """A length that leads exactly to another message, and no id that tells anything: messages
        that lead up to that end without a gap, from after the body's beginning on, are not part of
        it."""
        for count in (1, 2, 3):
            self.log.data = b""
            places = self.put(b"one", *[b"two", b"three", b"four"][:count], b"behind", b"last")
            self.set(0, (places[count + 1] - HEADER_BYTES).to_bytes(4, "big"))
            self.set(8, bytes(8))
            self.set(HEADER_BYTES, b"?")
            self.set(places[count + 1] + 8, b"\x9a")
            self.assertEqual(Place(places[1]), self.search(), count)

    def test_long_message_with_a_wrong_length(self) -> None:
        """It is longer than accepted, and claims to hold the next one as well."""
        for size in (LONGEST + 1, 3000, 6 << 20):
            self.log.data = b""
            places = self.put(b"\xee" * size, b"two", b"three")
            self.set(0, (places[2] - HEADER_BYTES).to_bytes(4, "big"))
            self.assertEqual(Place(places[1]), self.search(), size)

    def test_long_claim_in_front_of_a_lost_header(self) -> None:
        """A length that is longer than accepted and leads to another message, or to the end, before
        a long message whose header is lost: those after both are far away, and are delivered."""
        for size, end in product((LONGEST, LONGEST + 500, 3 << 20), (3, 4, 5, 6)):
            self.log.data = b""
            places = self.put(b"one", b"\xee" * size, b"", b"two", b"three", b"four")
            self.set(0, (places[end] - HEADER_BYTES).to_bytes(4, "big"))
            self.set(places[1], b"\xff" * HEADER_BYTES)
            self.assertEqual(Place(places[2]), self.search(), (size, end))
            if end > 3 and places[end] < self.log.end:
                self.set(places[end] + 8, b"\x7f")  # its id tells nothing then
                self.assertEqual(Place(places[2]), self.search(), (size, end))

    def test_long_claim_over_a_message_between_two_pieces(self) -> None:
        """The readable message begins in the piece that was fetched, and ends in the next one."""
        fetched = 300
        for pieces in (1, 2):
            lost = fetched + pieces * PIECE_BYTES - 100 - 2 * HEADER_BYTES - len(b"one")
            self.log.data = b""
            places = self.put(b"one", b"\xee" * lost, b"2" * 500, b"three", b"four")
            self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big"))
            self.set(places[1], b"\xff" * HEADER_BYTES)
            self.assertEqual(Place(places[2]), self.search(fetched=fetched), pieces)

    def test_long_claim_between_two_wrong_ids(self) -> None:
        """
        The same, and the ids of the damaged message and of the one at the claimed end are both
        wrong: they do not fit together, so neither says that what is in between was sent inside.
        """
        for damaged in (False, True):
            self.log.data = b""
            places = self.put(b"one", b"\xee" * 3000, b"two", b"three", b"four")
            self.set(0, (places[4] - HEADER_BYTES).to_bytes(4, "big"))
            self.set(8, bytes(8))
            self.set(places[1], b"\xff" * HEADER_BYTES)
            self.set(places[4] + 8, b"\x9a")
            if damaged:
                self.set(places[4] + HEADER_BYTES, b"?")
            self.assertEqual(Place(places[2]), self.search(), damaged)

    def test_long_claim_over_wrong_ids(self) -> None:
        """The same, and the first messages after both have wrong ids: their order is not a
        proof."""
        places = self.put(b"one", b"\xee" * 3000, *[b"two"] * 300, b"three")
        self.set(0, (places[-2] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1], b"\xff" * HEADER_BYTES)
        for place in places[2:250]:
            self.set(place + 8, bytes(8))
        self.assertEqual(Place(places[2]), self.search())

    def test_claim_over_a_damaged_message(self) -> None:
        """A length that leads over a damaged message to the next one: the checksum finds the end,
        and the damaged message is passed over by itself."""
        places = self.put(b"one", b"two", b"three")
        self.set(0, (places[2] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1] + HEADER_BYTES, b"?")
        self.assertEqual(Place(places[1]), self.search())

    def test_long_claim_over_an_empty_message(self) -> None:
        """The first message in between has a wrong id, an empty one follows it, then a message
        whose header is lost: the id of the empty one tells that both are passed over."""
        places = self.put(b"one", b"\xee" * 3000, b"two", b"", b"\xee" * 50, b"three")
        self.set(0, (places[5] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1], b"\xff" * HEADER_BYTES)
        self.set(places[2] + 8, bytes(8))
        self.set(places[4], b"\xff" * HEADER_BYTES)
        self.assertEqual(Place(places[2]), self.search())

    def test_long_claim_over_a_wrong_id_near_by(self) -> None:
        """
        The first message in between has a wrong id, and is near; one that is far away shows that
        the claim is wrong. Reading goes on at the first one.
        """
        places = self.put(b"one", b"two", b"\xee" * 3000, b"three", b"four")
        self.set(0, (places[4] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(HEADER_BYTES, b"?")
        self.set(places[1] + 8, bytes(8))
        self.set(places[2], b"\xff" * HEADER_BYTES)
        self.assertEqual(Place(places[1]), self.search())

    def test_long_message_with_a_wrong_length_before_a_damaged_one(self) -> None:
        """
        It holds older messages, and ends where its checksum fits. The id of the damaged message
        there proves nothing: the messages before it are not passed over.
        """
        inner = encode_record(FIRST_ID - 2, 0, b"inner") + encode_record(FIRST_ID - 1, 0, b"x")
        for size in (LONGEST, 3 * PIECE_BYTES):
            self.log.data = b""
            places = self.put(b"\xee" * size + inner + b"tail", b"two", b"three")
            self.set(0, b"\xff")
            if size == LONGEST:
                self.assertEqual(places[1], self.search().offset)
            self.set(places[1] + HEADER_BYTES, b"?")
            self.assertEqual(HEADER_BYTES + size, self.search().offset, size)

    def test_claim_to_the_end_over_two_damaged_ones(self) -> None:
        """A length that leads to the end of the log; the readable message does not lead there."""
        places = self.put(b"one", b"two", b"three", b"four")
        self.set(0, (places[4] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1], b"\xff" * HEADER_BYTES)
        self.set(places[3] + HEADER_BYTES, b"?")
        self.assertEqual(Place(places[2]), self.search())

    def test_long_damaged_message_that_holds_others(self) -> None:
        """Records far inside of it were sent before it, and are not delivered."""
        inner = encode_record(FIRST_ID - 2, 0, b"inner") + encode_record(FIRST_ID - 1, 0, b"x")
        for size, behind in product((LONGEST * 3, 3 << 20), ((b"two",), ())):
            self.log.data = b""
            places = self.put(b"\xee" * size + inner * 200 + b"tail", *behind)
            self.set(HEADER_BYTES, b"?")
            self.assertEqual(Place(places[1], True), self.search(), (size, behind))

    def test_long_message_before_a_lost_header(self) -> None:
        """A message that is a little too long ends where its checksum fits, whatever is there."""
        inner = encode_record(FIRST_ID - 1, 0, b"inner")
        for more, fetched in product((1, 2, 3, 4, 5, 6, 50), (300, 5000)):
            self.log.data = b""
            places = self.put(b"x" * (LONGEST + more), b"lost", inner * 50, b"two")
            self.set(places[1] + 4, b"\xff")
            self.assertEqual(Place(places[1], True), self.search(fetched=fetched), (more, fetched))

    def test_broker_stops_in_the_middle(self) -> None:
        """A partition that is closed during the search does not end the log."""
        self.log.data = b"\xee" * (6 << 20)
        asked = self.broker._get

        def get(request: object) -> bytes | None:
            self.broker.refusals["t", 1] = 403
            return asked(request)  # type: ignore[arg-type]

        self.broker._get = get  # type: ignore[method-assign, assignment]
        self.assertRaisesRegex(Exception, "nothing is there", self.search)

    def test_broker_stops_behind_a_long_claim(self) -> None:
        """The partition is closed when exactly so much was read as an accepted message needs: the
        search ends, and what was not read proves nothing."""
        places = self.put(b"one", b"\xee" * 9000, b"two", b"three")
        self.set(0, (places[3] - HEADER_BYTES).to_bytes(4, "big"))
        self.set(places[1], b"\xff" * HEADER_BYTES)
        fetched = 2 * (HEADER_BYTES + LONGEST)
        asked = self.broker._get

        def get(request: Asked) -> bytes | None:
            if request.offset == fetched:
                self.broker.refusals["t", 1] = 403
            return asked(request)

        self.broker._get = get  # type: ignore[method-assign]
        self.assertRaisesRegex(NotFound, "nothing is there", self.search, fetched=fetched)


class PureTests(SynchronousTestCase):
    """The parts."""

    def test_leads_to_end(self) -> None:
        """Whole records, the empty one included, and nothing else."""
        data = encode_record(1, 0, b"abc") + encode_record(2, 0, b"") + encode_record(3, 0, b"d")
        for end in (0, 23, 43, 64):
            self.assertTrue(leads_to_end(data[:end], 0, 3))
        self.assertFalse(leads_to_end(data, 1, 100))
        self.assertFalse(leads_to_end(data, 0, 2))
        for cut in (data[:-1], data[:-2], data[:-1] + b"?", data + b"?", data + bytes(19) + b"?"):
            self.assertFalse(leads_to_end(cut, 0, 100))

    def test_is_empty(self) -> None:
        """No length, no checksum, and an id."""
        for length, checksum, message_id, expected in (
            (0, 0, 1, True),
            (0, 0, 0, False),
            (0, 7, 1, False),
            (7, 0, 1, False),
            (7, 7, 1, False),
        ):
            header = HEADER.pack(length, checksum, message_id, 0)
            self.assertIs(expected, is_empty(header, 0))

    def test_ends_early(self) -> None:
        """By the checksum; after that of an empty body, only if whole records follow."""
        behind = encode_record(2, 0, b"abc")
        for checksum, following, expected in (
            (0, behind, True),
            (0, behind[:-1], False),
            (crc32(b"x"), b"x" + behind[:-1], True),
            (crc32(b"x"), b"y" + behind, False),
        ):
            data = HEADER.pack(100, checksum & 0x7FFFFFFF, 1, 0) + following
            self.assertIs(expected, finish(ends_early(data, 100)))

    def test_holds_record(self) -> None:
        """A whole one behind the first byte, wherever it begins."""
        record = encode_record(2, 0, b"abc")
        self.assertFalse(finish(holds_record(record, 100)))
        for before in (1, 2, 19, 20, 100):
            self.assertTrue(finish(holds_record(b"?" * before + record, 100)), before)
            self.assertFalse(finish(holds_record(b"?" * before + record[:-1], 100)), before)
            self.assertFalse(finish(holds_record(b"?" * before + record, 2)), before)

    def test_end_over_pieces(self) -> None:
        """The end is found however the data are cut."""
        chance = Random(3)
        body = chance.randbytes(500)
        record = encode_record(1, 0, body)
        data = record + encode_record(2, 0, b"next")
        for size in (1, 3, 50, 519, 520, 521, 600):
            end = RecordEnd(HEADER.unpack_from(record)[1])
            found = None
            base, buffer = 0, bytearray()
            for start in range(0, len(data), size):
                buffer += data[start : start + size]
                found = finish(end.find(buffer, base, len(data)))
                if found is not None:
                    break
                if end.place > base and end.place <= base + len(buffer):
                    del buffer[: end.place - base]
                    base = end.place
            self.assertEqual(520, found, size)

    def test_long_look_inside(self) -> None:
        """
        Other records are passed, those inside of them too, however the data are cut; others get
        their turn meanwhile.
        """
        inner = encode_record(7, 0, b"x")
        data = b"?" * 21 + encode_record(2, 0, inner) * 2000 + inner
        for piece in (len(data), 1000, 90):
            for ids, expected in ((range(3, 7), False), (range(7, 8), True), (range(2, 3), True)):
                inside = RecordsInside(1 << 20, (range(0), ids), HEADER_BYTES, 100)
                found = any(
                    finish(inside.hold_a_message(data[start:], start, start + piece))
                    for start in range(0, len(data), piece)
                )
                self.assertEqual(expected, found, (piece, ids))
        inside = RecordsInside(1 << 20, (), HEADER_BYTES, 100)
        self.assertGreater(len(list(inside.hold_a_message(data, 0, len(data)))), 5)

    def test_find_record_around_powers_of_two(self) -> None:
        """Any length up to the limit is found, wherever the limit's digits change."""
        for power in (8, 16, 24):
            for limit in ((1 << power) - 1, 1 << power, (1 << power) + 1):
                for length in {1, min(70_000, limit), min(limit, 1 << 17)}:
                    data = b"?" + encode_record(1, 0, b"x" * length)
                    self.assertEqual(1, finish(find_record(data, 1, 2, limit)), (limit, length))

    def test_find_record_stays_below_the_stop(self) -> None:
        """A record at the stop is not found."""
        data = b"???" + encode_record(1, 0, b"abc")
        self.assertEqual(3, finish(find_record(data, 1, 4, 100)))
        self.assertIsNone(finish(find_record(data, 1, 3, 100)))
        self.assertIsNone(finish(find_record(data[:-1], 1, 4, 100)))
        self.assertIsNone(finish(find_record(data, 1, 4, 2)))


def finish(steps: object) -> int | None:
    """The result of a search."""
    try:
        while True:
            next(steps)  # type: ignore[call-overload]
    except StopIteration as stop:
        result: int | None = stop.value
        return result


class RandomTests(SynchronousTestCase):
    """See ``damagedlogs``; ``tests.faults.test_damaged_logs`` tries many more."""

    def test_damaged_logs(self) -> None:
        """Every kind of consumer delivers what the model says."""
        tried = [*seeds(200), *FOUND]
        self.assertEqual([], [fault for seed in tried for fault in run(seed)])
