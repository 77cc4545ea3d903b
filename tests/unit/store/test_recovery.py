"""
Where the last segment ends at start: a torn tail goes, all up to the last valid record stays.
"""

from __future__ import annotations

import os
import random
from struct import pack_into

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import HEADER, checksum, encode_record
from metamorphosis.store import damage, recovery
from metamorphosis.store.damage import DamageSearch
from metamorphosis.store.recovery import Recovered, recover
from tests.support.partitions import M0, M1, M2, M3, record

FIRST_ID = 4611686018427387904 >> 1
"""Ids as they are in our days."""
SOURCE = random.Random(8123)


def oracle(data: bytes) -> tuple[int, int]:
    """The recovery of the specification, word by word, over a file in memory."""
    position = count = 0
    while len(data) - position >= 20:
        length, stored, _, _ = HEADER.unpack_from(data, position)
        if position + 20 + length > len(data) or length < 0:
            break
        if checksum(data[position + 20 : position + 20 + length]) != stored:
            break
        position += 20 + length
        count += 1
    return position, count


def message(number: int, body: bytes) -> bytes:
    """A stored message with an id of our days."""
    return encode_record(FIRST_ID + (number << 12), 0, body)


def log(*bodies: bytes, first: int = 0) -> list[bytes]:
    """Messages with increasing ids."""
    return [message(first + number, body) for number, body in enumerate(bodies)]


def random_log(generator: random.Random) -> list[bytes]:
    """Some messages, a few of them empty, of zeros, or with copies of older ones in them."""
    records: list[bytes] = []
    for number in range(generator.randrange(1, 9)):
        body = generator.randbytes(generator.randrange(80))
        kind = generator.randrange(6)
        if kind == 0:
            body = bytes(generator.randrange(60))
        elif kind == 1:
            body = b"".join(records)[-200:]
        elif kind == 2:
            body = b"".join(records)
        records.append(message(number, body))
    return records


class RecoverTestCase(SynchronousTestCase):
    """A file with a given content."""

    def recover(self, data: bytes) -> Recovered:
        """What is found in it."""
        fd = os.memfd_create("segment")
        try:
            os.write(fd, data)
            return recover(fd, len(data))
        finally:
            os.close(fd)

    def assertKept(self, data: bytes, size: int, at: int, after: int) -> None:
        """The file stays up to ``size``, with one damage and this number of messages after it."""
        found = self.recover(data)
        self.assertEqual((found.size, found.damaged_at, found.messages_after), (size, at, after))
        self.assertEqual((found.damaged_places, found.gave_up), (1, False))

    def assertCut(self, data: bytes, size: int) -> None:
        """What stands behind ``size`` is a torn tail."""
        found = self.recover(data)
        self.assertEqual((found.size, found.damaged_bytes, found.damaged_places), (size, 0, 0))


class TornTailTests(RecoverTestCase):
    """``recover`` against the specification, where nothing valid follows the first bad record."""

    def check(self, data: bytes) -> None:
        """Ours finds what the specification does."""
        self.assertEqual(tuple(self.recover(data)), (*oracle(data), 0, 0, 0, 0, False))

    def test_cut_at_every_byte(self) -> None:
        """Wherever a crash cut the file, exactly the whole records before it are found."""
        data = M1 + M2 + M3 + M0 + record(64, 5)
        for length in range(len(data) + 1):
            self.check(data[:length])

    def test_buffers_of_every_size(self) -> None:
        """Records that lie across, at, or are longer than what is read at once."""
        data = M1 + record(100, 3) + M0 + M2 + record(45, 9) + M3 + b"\x00\x00\x00\x05"
        for size in range(20, 130):
            self.patch(recovery, "READ_SIZE", size)
            self.patch(damage, "READ_SIZE", size)
            self.check(data)
            self.check(data[:-30])

    def test_long_record_with_wrong_checksum(self) -> None:
        """A record longer than what is read at once is checked as well."""
        self.patch(recovery, "READ_SIZE", 32)
        data = bytearray(M1 + record(100, 3))
        data[-1] ^= 1
        self.check(bytes(data))

    def test_file_shorter_than_expected(self) -> None:
        """A file that shrank meanwhile ends where it ends."""
        with open(self.mktemp(), "w+b") as file:
            file.write(M1 + M2)
            file.flush()
            self.assertEqual(recover(file.fileno(), 500)[:2], (50, 2))

    def test_long_record_in_a_file_shorter_than_expected(self) -> None:
        """A record that is read in pieces ends with the file, and is none."""
        self.patch(recovery, "READ_SIZE", 32)
        with open(self.mktemp(), "w+b") as file:
            file.write(M1 + record(100, 3)[:60])
            file.flush()
            self.assertEqual(recover(file.fileno(), 500)[:2], (25, 1))

    def test_search_in_a_file_shorter_than_expected(self) -> None:
        """It ends with the file, within a header as within the body of a message behind the
        damage."""
        bad, good = log(b"bad", b"x" * 100)
        data = bad[:-1] + b"X" + good
        for cut in range(1, len(data) - 20):
            with open(self.mktemp(), "w+b") as file:
                file.write(data[:-cut])
                file.flush()
                self.assertIsNone(DamageSearch(file.fileno(), len(data)).next_record(0, None))

    def test_zeros(self) -> None:
        """What a file system leaves in place of lost blocks is not a record after a bad one."""
        whole, torn = log(b"hello", SOURCE.randbytes(300))
        for cut in range(1, len(torn)):
            for zeros in (19, 20, 21, 400, 5000):
                data = whole + torn[:cut] + bytes(zeros)
                if oracle(data)[0] == len(whole):
                    self.assertCut(data, len(whole))

    def test_torn_message_with_messages_in_it(self) -> None:
        """Copies of older messages in the body of a torn one do not follow it."""
        inner = log(b"one", b"", b"three" * 20, bytes(50), b"five")
        torn = message(9, b"\0\0\0\7" + b"".join(inner) + b"".join(log(b"x", first=-7)) + b"end")
        whole = message(8, b"hello")
        for cut in range(len(torn)):
            self.assertCut(whole + torn[:cut], len(whole))
            self.assertCut(torn[:cut], 0)
            zeros = whole + torn[:cut] + bytes(100)
            if oracle(zeros)[0] == len(whole):
                self.assertCut(zeros, len(whole))

    def test_bodies_full_of_zeros(self) -> None:
        """A torn body of numbers, most of whose bytes are zeros, is not a chain of empty
        messages."""
        numbers = b"".join((number % 3).to_bytes(8, "big") for number in range(2000))
        for body in (numbers, numbers[4:], numbers[7:], bytes(9000)):
            torn = message(2, body)[:-1]
            self.assertCut(message(1, b"hello") + torn, 25)


class DamageTests(RecoverTestCase):
    """Valid records follow the bad one."""

    def test_every_bit(self) -> None:
        """
        Whatever bit of a file goes bad: the file stays, unless it is in the last record, and the
        damage is exactly that record. Flags and ids are not covered by the checksum.
        """
        inner = b"".join(log(b"copy", b"", first=-9))
        records = log(b"hello", b"", b"ab" * 30, inner + b"tail", b"", bytes(40), b"last")
        data = b"".join(records)
        starts = [sum(map(len, records[:number])) for number in range(len(records))]
        for number, start in enumerate(starts):
            for bit in range(len(records[number]) * 8):
                bad = bytearray(data)
                bad[start + bit // 8] ^= 1 << bit % 8
                if 8 <= bit // 8 < 20:
                    self.assertCut(bytes(bad), len(data))
                elif number == len(records) - 1:
                    self.assertCut(bytes(bad), start)
                else:
                    self.assertKept(bytes(bad), len(data), start, len(records) - number - 1)
                    found = self.recover(bytes(bad))
                    self.assertEqual(found.damaged_bytes, len(records[number]), (number, bit))

    def test_damage_and_torn_tail(self) -> None:
        """The damage stays and the tail goes, wherever it is torn."""
        records = log(b"hello", b"damaged", b"good", b"torn" * 30)
        records[1] = records[1].replace(b"damaged", b"dAmaged")
        data = b"".join(records)
        good = len(data) - len(records[3])
        for cut in range(good, len(data)):
            self.assertKept(data[:cut], good, 25, 1)

    def test_stray_bytes_of_any_number(self) -> None:
        """From one byte on: the message after them is found."""
        for number in range(1, 45):
            one, two = log(b"one", b"two")
            data = one + b"\xff" * number + two
            self.assertKept(data, len(data), len(one), 1)

    def test_borders_of_reads(self) -> None:
        """A header is found wherever a read ends, also that of an empty message, which ends the
        file."""
        for body in (b"two", b""):
            one, two = log(b"one", body)
            for number in range(1, 45):
                data = one + b"\xff" * number + two
                for size in range(20, 60):
                    self.patch(damage, "READ_SIZE", size)
                    self.assertKept(data, len(data), len(one), 1)

    def test_hole_of_any_length(self) -> None:
        """Zeros or garbage over whole and half records, also over the first."""
        data = b"".join(records := log(*(SOURCE.randbytes(1 + n * 7 % 40) for n in range(20))))
        last = len(data) - len(records[-1])
        for at in (0, 10, 30, 77):
            for size in range(20, last - at, 13):
                for hole in (SOURCE.randbytes(size), b"\xff" * size, bytes(size)):
                    found = self.recover(data[:at] + hole + data[at + size :])
                    self.assertEqual(found.size, len(data), (at, size))

    def test_length_and_checksum_lost(self) -> None:
        """The next message has a greater id, and so follows; copies in the body have not."""
        inner = b"".join(log(b"copy", b"other", first=-9))
        first, second, third = log(b"hello", inner + b"tail", b"last")
        for length in (1, 1000, 1 << 30, (1 << 31) - 1):
            bad = bytearray(first + second + third)
            pack_into(">ii", bad, len(first), length, 7)
            self.assertKept(bytes(bad), len(bad), len(first), 1)

    def test_header_lost(self) -> None:
        """Of the records in the bytes that follow, one that is newer than what stands before the
        damage counts first, so that copies of older messages are passed over; one that is older
        counts if there is no other."""
        inner = b"".join(log(b"copy", b"other", first=-9))
        first, second, third = log(b"hello", inner + b"tail", b"last")
        bad = b"\xff" * 20 + second[20:]
        data = first + bad + third
        self.assertKept(data, len(data), len(first), 1)
        self.assertKept(first + bad, len(first + bad) - 4, len(first), 2)

    def test_older_record_within_a_header(self) -> None:
        """No body ends within the header of its record, so a copy that begins there does not
        follow."""
        first, second = log(b"hello", b"damaged")
        older = encode_record(FIRST_ID - 5, 0, b"x")
        self.assertCut(first + second[:16] + older, len(first))

    def test_negative_length_follows(self) -> None:
        """A header with a length below zero is none of a message, whatever its checksum is."""
        first, bad, last = log(b"hello", b"damaged", b"last")
        bad = bad.replace(b"damaged", b"dAmaged")
        torn = HEADER.pack(-5, 0, FIRST_ID + (3 << 12), 0)
        self.assertCut(first + bad + torn, len(first))
        self.assertKept(first + bad + torn + last, len(first + bad + torn + last), len(first), 1)

    def test_empty_messages_follow(self) -> None:
        """An empty message has nothing to check; its id says that it is one."""
        first, bad, *rest = log(b"hello", b"damaged", b"", b"", b"")
        data = first + bad.replace(b"d", b"D") + b"".join(rest)
        self.assertKept(data, len(data), len(first), 3)

    def test_empty_message_with_a_damaged_length(self) -> None:
        """Its body ends where it begins, also when what follows has an older id."""
        first, bad, rest = log(b"hello", b"", b"behind")
        older = encode_record(FIRST_ID - 5, 0, b"older")
        for behind in (rest, older):
            damaged = bytearray(bad)
            pack_into(">i", damaged, 0, 999_999)
            data = first + bytes(damaged) + behind
            self.assertKept(data, len(data), len(first), 1)

    def test_damaged_length_before_an_older_id(self) -> None:
        """The checksum says where the body ends, also behind copies of messages in it."""
        copies = b"".join(log(b"copy", b"other", first=-9))
        older = encode_record(FIRST_ID - 5, 0, b"older")
        for body in (b"one", b"two", b"three", copies + b"tail", copies + b"end"):
            first, bad = log(b"hello", body)
            damaged = bytearray(bad)
            pack_into(">i", damaged, 0, 999_999)
            data = first + bytes(damaged) + older
            self.assertKept(data, len(data), len(first), 1)

    def test_ids_of_the_original(self) -> None:
        """They are negative, and begin anew when the machine does."""
        ids = (-900, -800, -700, -1200)
        first, bad, *rest = [encode_record(n << 22, 0, b"x" * 9) for n in ids]
        data = bytearray(first + bad + b"".join(rest))
        data[len(first) + 22] ^= 1
        self.assertKept(bytes(data), len(data), len(first), 2)

    def test_several(self) -> None:
        """Damages are counted; the text names the first."""
        records = log(*(b"body" for _ in range(50)))
        for number in (10, 20, 21):
            records[number] = records[number].replace(b"body", b"b0dy")
        found = self.recover(b"".join(records))
        self.assertEqual(found[:4], (1200, 47, 240, 72))
        self.assertEqual((found.damaged_places, found.messages_after), (2, 37))
        text = found.damage("/data/t-0/0.meta")
        self.assertIn("/data/t-0/0.meta is damaged from position 240 on: 72 bytes", text)
        self.assertIn("in 2 places", text)
        self.assertIn("37 valid messages after it", text)

    def test_first_of_several(self) -> None:
        """The first damage is named although it begins the file."""
        records = log(*(b"body" for _ in range(5)))
        for number in (0, 2):
            records[number] = records[number].replace(b"body", b"b0dy")
        found = self.recover(b"".join(records))
        self.assertEqual((found.damaged_at, found.damaged_places), (0, 2))

    def test_one(self) -> None:
        """The text of one damage counts no places."""
        records = log(b"one", b"body", b"three")
        records[1] = records[1].replace(b"body", b"b0dy")
        text = self.recover(b"".join(records)).damage("f")
        self.assertIn("position 23 on: 24 bytes are no valid messages, with 1 valid messages", text)

    def test_long_records(self) -> None:
        """Records longer than what is read at once, before and after the damage."""
        records = log(b"a" * 200, b"b" * 10, b"c" * 300, b"d" * 100)
        data = bytearray(b"".join(records))
        data[245] ^= 1
        for size in (20, 32, 33, 100, 250):
            self.patch(recovery, "READ_SIZE", size)
            self.patch(damage, "READ_SIZE", size)
            self.assertKept(bytes(data), len(data), 220, 2)

    def test_random_damage(self) -> None:
        """Seeded: bits, holes, garbage and torn ends. Nothing is kept that no record ends, and no
        whole record after the damage is cut off."""
        generator = random.Random(2)
        for _ in range(3000):
            records = random_log(generator)
            data = bytearray(b"".join(records))
            at = generator.randrange(len(data))
            size = min(generator.choice((1, 1, 4, 20, 50)), len(data) - at)
            data[at : at + size] = generator.choice((bytes(size), generator.randbytes(size)))
            ends = [sum(map(len, records[: number + 1])) for number in range(len(records))]
            torn = generator.choice((0, 0, generator.randrange(len(records[-1]))))
            content = bytes(data[: len(data) - torn])
            good = [
                end
                for end, one in zip(ends, records, strict=True)
                if end <= len(content)
                and content[end - len(one) : end] == one
                # nothing tells an empty message from zeros if no id in front of it is known
                and (len(one) > 20 or at >= len(records[0]))
            ]
            self.patch(recovery, "READ_SIZE", generator.choice((20, 33, 64, 4096)))
            self.patch(damage, "READ_SIZE", generator.choice((20, 33, 64, 4096)))
            self.assertGreaterEqual(self.recover(content).size, max(good, default=0))


class BoundTests(RecoverTestCase):
    """A search ends."""

    def test_given_up(self) -> None:
        """A search that would take too long ends, and no byte is cut off: the file may hold good
        messages. The text says so."""
        self.patch(damage, "SEARCH_WORK", 100 * damage.CANDIDATE_WORK)
        for word in ("00000001", "7f000000"):  # headers to compare, and nearly headers
            junk = message(0, b"x") + bytes.fromhex(word) * 9000
            found = self.recover(junk)
            self.assertEqual((found.size, found.gave_up), (len(junk), True))
            self.assertIn("broken off", found.damage("f"))

    def test_work_of_a_search(self) -> None:
        """A torn tail of zeros, text or random bytes is looked through at the speed of memory."""
        size = 1 << 20
        for tail in (bytes(size), b"some text. " * (size // 11), SOURCE.randbytes(size)):
            with open(self.mktemp(), "w+b") as file:
                file.write(b"\x7f\0\0\0" + tail)
                file.flush()
                search = DamageSearch(file.fileno(), os.fstat(file.fileno()).st_size)
                self.assertIsNone(search.next_record(0, None))
                self.assertGreater(search._work, damage.SEARCH_WORK - 100 * damage.CANDIDATE_WORK)

    def test_work_far_in_a_file(self) -> None:
        """The bytes before a damage cost nothing, however many they are."""
        self.patch(damage, "SEARCH_WORK", 10 * (damage.READ_WORK + damage.CANDIDATE_WORK))
        start = 1 << 20
        bad, good = log(b"bad", b"good")
        with open(self.mktemp(), "w+b") as file:
            file.seek(start)
            file.write(bad[:-1] + b"X" + good)
            file.flush()
            search = DamageSearch(file.fileno(), os.fstat(file.fileno()).st_size)
            self.assertEqual(start + len(bad), search.next_record(start, None))

    def test_compared_bytes_count(self) -> None:
        """A search ends in the midst of long bodies, too."""
        bad, good = log(b"bad", b"x" * (1 << 20))
        with open(self.mktemp(), "w+b") as file:
            file.write(bad[:-1] + b"X" + good)
            file.flush()
            for work, found in ((1 << 19, None), (1 << 21, len(bad))):
                self.patch(damage, "SEARCH_WORK", work)
                search = DamageSearch(file.fileno(), os.fstat(file.fileno()).st_size)
                if found is None:
                    self.assertRaises(damage.SearchTooLong, search.next_record, 0, None)
                else:
                    self.assertEqual(found, search.next_record(0, None))
