"""Bytes of a log into messages, and over what cannot be read."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.client.records import FetchedRecords, find_record
from metamorphosis.message import (
    HEADER,
    HEADER_BYTES,
    JUMP_CHECKSUM,
    JUMP_FLAG,
    encode_body,
    encode_jump,
    encode_record,
)

PARTITION = Partition(0, 3)
ALL = 1000


def fetched(data: bytes, offset: int = 1000, max_body: int = 100) -> FetchedRecords:
    """What would be read of an answer."""
    return FetchedRecords("t", PARTITION, offset, data, max_body)


def broken(body: bytes) -> bytes:
    """A record whose checksum is wrong."""
    return HEADER.pack(len(body), 1, 7, 0) + body


class ReadingTests(SynchronousTestCase):
    """What is whole becomes messages."""

    def test_messages(self) -> None:
        """Each message has its place, id, flag and body."""
        records = fetched(encode_record(11, 0, b"abc") + encode_record(-12, 0, b""))
        first, second = records.read(ALL)
        self.assertEqual(("t", PARTITION, 1000, 11, 0, b"abc"), first._fields())
        self.assertEqual(("t", PARTITION, 1023, -12, 0, b""), second._fields())
        self.assertEqual((1023, 1043), (first.next_offset, second.next_offset))
        self.assertEqual(1043, records.next_offset)
        self.assertTrue(records.exhausted)
        self.assertIsNone(records.damage)

    def test_row_52_nothing_whole(self) -> None:
        """Row 52: no data, half a header or half a body are no message and no damage."""
        whole = encode_record(1, 0, b"hello")
        for data in (b"", whole[:19], whole[:-1]):
            records = fetched(data)
            self.assertEqual([], records.read(ALL))
            self.assertEqual((1000, None, True), (records.next_offset, records.damage, True))
            self.assertTrue(records.exhausted)

    def test_row_52_attribute(self) -> None:
        """Row 52: a message with an attribute and 18 bytes of body ends at 38."""
        body = encode_body(b"hello", "attribute")
        [message] = fetched(encode_record(1, 1, body), 0).read(ALL)
        self.assertEqual(("attribute", b"hello"), (message.attribute, message.data))
        self.assertEqual((18, 38), (len(message.body), message.next_offset))

    def test_cut_tail(self) -> None:
        """The incomplete record at the end is left for the next fetch."""
        data = encode_record(1, 0, b"abc") + encode_record(2, 0, b"defgh")[:-2]
        records = fetched(data)
        self.assertEqual([1], [each.id for each in records.read(ALL)])
        self.assertEqual((1023, 25), (records.next_offset, records.needed))

    def test_stretches(self) -> None:
        """A limited read goes on where the one before ended; the last one knows that it was."""
        data = b"".join(encode_record(n, 0, b"x") for n in range(1, 6))
        records = fetched(data)
        self.assertEqual([1, 2], [each.id for each in records.read(2)])
        self.assertFalse(records.exhausted)
        self.assertEqual([3, 4], [each.id for each in records.read(2)])
        self.assertEqual([5], [each.id for each in records.read(2)])
        self.assertTrue(records.exhausted)
        self.assertEqual([], records.read(2))

    def test_needed_is_unknown_without_header(self) -> None:
        """Less than a header says nothing about the length."""
        self.assertEqual(0, fetched(b"\0" * 19).needed)


class JumpTests(SynchronousTestCase):
    """A broker that filters leaves out what stands between two messages."""

    def test_behind_messages(self) -> None:
        """The messages come, and reading goes on where the jump leads."""
        records = fetched(encode_record(1, 0, b"abc") + encode_jump(9000))
        self.assertEqual([1], [each.id for each in records.read(1)])
        self.assertEqual((1023, False), (records.next_offset, records.jumped))
        self.assertEqual([], records.read(1))
        self.assertEqual((9000, True, True), self.state(records))

    def test_alone(self) -> None:
        """Nothing else is there."""
        records = fetched(encode_jump(9000))
        self.assertEqual([], records.read(ALL))
        self.assertEqual((9000, True, True), self.state(records))

    def test_damage_is_no_jump(self) -> None:
        """Whatever differs in one field is a record that cannot be read."""
        fields = [0, JUMP_CHECKSUM, 9000, JUMP_FLAG]
        for index, other in ((0, 1), (1, 2), (3, 0), (3, JUMP_FLAG ^ 1)):
            changed = [*fields[:index], other, *fields[index + 1 :]]
            records = fetched(HEADER.pack(*changed) + b"x")
            self.assertEqual([], records.read(ALL))
            self.assertFalse(records.jumped)
            self.assertIsNotNone(records.damage)

    def state(self, records: FetchedRecords) -> tuple[int, bool, bool]:
        """Where reading goes on; there is no damage."""
        self.assertIsNone(records.damage)
        return records.next_offset, records.jumped, records.exhausted


class DamageTests(SynchronousTestCase):
    """What cannot be read is described, and a way around it found where there is one."""

    def test_messages_in_front_are_read(self) -> None:
        """Reading ends in front of the damage, which shows with the same read."""
        records = fetched(encode_record(1, 0, b"abc") + broken(b"def"))
        self.assertEqual([1], [each.id for each in records.read(ALL)])
        assert records.damage is not None
        self.assertEqual((1023, 1023), (records.next_offset, records.damage.offset))
        self.assertEqual([], records.read(ALL))

    def test_wrong_checksum(self) -> None:
        """The record is passed over when something like a record, or nothing, follows."""
        for following in (b"", b"\0" * 4, encode_record(3, 0, b"x"), broken(b"x")):
            records = fetched(broken(b"def") + following)
            records.read(ALL)
            assert records.damage is not None
            self.assertEqual(1023, records.damage.skip_to)
            self.assertIn("checksum of its 3 bytes", records.damage.reason)

    def test_wrong_checksum_and_length(self) -> None:
        """If no record follows, the next one whose checksum is right is looked for."""
        data = broken(b"def") + b"\xff" * 30 + encode_record(3, 0, b"x")
        records = fetched(data)
        records.read(ALL)
        assert records.damage is not None
        self.assertEqual(1000 + 23 + 30, records.damage.skip_to)

    def test_impossible_length(self) -> None:
        """A negative length is damage at once, and the rest of the piece is searched."""
        records = fetched(b"\xff" * 25 + encode_record(3, 0, b"x"))
        records.read(ALL)
        assert records.damage is not None
        self.assertEqual(1025, records.damage.skip_to)
        self.assertIn("length is -1", records.damage.reason)

    def test_nothing_found(self) -> None:
        """Without any record in the piece nobody here knows how to go on."""
        records = fetched(b"\xff" * 50)
        records.read(ALL)
        assert records.damage is not None
        self.assertIsNone(records.damage.skip_to)

    def test_too_long(self) -> None:
        """A message longer than accepted is passed over by its length; if it did not come whole,
        its length has to be checked first."""
        data = encode_record(1, 0, b"y" * 101)
        for piece, outcome in ((data, (1121, None)), (data[:40], (None, 1121))):
            records = fetched(piece)
            self.assertEqual([], records.read(ALL))
            assert records.damage is not None
            self.assertEqual(outcome, (records.damage.skip_to, records.damage.claimed_end))
            self.assertIn("at most 100", records.damage.reason)

    def test_insane_length(self) -> None:
        """A length that no message has is not even checked."""
        records = fetched(b"\x7f" * 40 + encode_record(1, 0, b"x"))
        records.read(ALL)
        assert records.damage is not None
        self.assertEqual((1040, None), (records.damage.skip_to, records.damage.claimed_end))

    def test_longest(self) -> None:
        """A body of just the accepted length is a message."""
        self.assertEqual(1, len(fetched(encode_record(1, 0, b"y" * 100)).read(ALL)))

    def test_zero_bytes(self) -> None:
        """Zeros are not taken for empty messages; the record behind them is found."""
        records = fetched(bytes(77) + encode_record(3, 0, b"x"))
        self.assertEqual([], records.read(ALL))
        assert records.damage is not None
        self.assertEqual(1077, records.damage.skip_to)

    def test_zero_bytes_to_the_end(self) -> None:
        """A record may begin with the last three zeros; the others are passed over."""
        records = fetched(bytes(77))
        records.read(ALL)
        assert records.damage is not None
        self.assertEqual(1074, records.damage.skip_to)

    def test_progress_is_made_everywhere(self) -> None:
        """Wherever a piece of log is damaged, reading goes on behind the damage."""
        whole = b"".join(encode_record(n, 0, b"m%d" % n) for n in range(1, 5))
        for place in range(len(whole)):
            data = bytearray(whole)
            data[place] ^= 0xFF
            records = fetched(bytes(data), 0)
            records.read(ALL)
            if records.damage is not None and records.damage.skip_to is not None:
                self.assertGreater(records.damage.skip_to, records.damage.offset)


class FindTests(SynchronousTestCase):
    """The next real record."""

    def test_finds(self) -> None:
        """A record anywhere is found, and one in front of the start is not."""
        record = encode_record(5, 0, b"body")
        data = b"garbage" + record + b"more" + record
        self.assertEqual(7, find_record(data, 0, 100))
        self.assertEqual(7 + len(record) + 4, find_record(data, 8, 100))

    def test_ignores(self) -> None:
        """Incomplete, too long and empty records are none."""
        record = encode_record(5, 0, b"body")
        self.assertIsNone(find_record(record[:-1], 0, 100))
        self.assertIsNone(find_record(record, 0, 3))
        self.assertIsNone(find_record(bytes(HEADER_BYTES * 3), 0, 100))


class MessageTests(SynchronousTestCase):
    """``ReceivedMessage`` by itself."""

    def test_of_a_body(self) -> None:
        """Without start and end the piece is the body."""
        message = ReceivedMessage("t", PARTITION, 40, 9, 0, b"body")
        self.assertEqual((b"body", b"body", None), (message.body, message.data, message.attribute))
        self.assertEqual(64, message.next_offset)

    def test_equality(self) -> None:
        """Equal are messages of the same content, wherever their bytes lie."""
        one = ReceivedMessage("t", PARTITION, 40, 9, 0, b"..body..", 2, 6)
        other = ReceivedMessage("t", PARTITION, 40, 9, 0, b"body")
        self.assertEqual(one, other)
        self.assertEqual(hash(one), hash(other))
        self.assertNotEqual(one, ReceivedMessage("t", PARTITION, 40, 9, 0, b"bodx"))
        self.assertNotEqual(one, "body")

    def test_repr(self) -> None:
        """Long bodies are cut."""
        message = ReceivedMessage("t", PARTITION, 40, 9, 0, b"x" * 40)
        self.assertIn("partition='0-3', offset=40, id=9", repr(message))
        self.assertIn("xx'...", repr(message))

    def test_malformed_attribute(self) -> None:
        """A flag without an attribute delivers the whole body."""
        message = ReceivedMessage("t", PARTITION, 40, 9, 1, b"\xff\xff\xff\xffbody")
        self.assertEqual((None, b"\xff\xff\xff\xffbody"), (message.attribute, message.data))
