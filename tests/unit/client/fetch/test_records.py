"""Bytes of a log become messages, up to a record that cannot be read."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.fetch.records import Damage, FetchedRecords
from metamorphosis.client.model import Partition, ReceivedMessage
from metamorphosis.message import (
    HEADER,
    JUMP_CHECKSUM,
    JUMP_FLAG,
    encode_body,
    encode_jump,
    encode_record,
)

PARTITION = Partition(0, 3)
ALL = 1000


def fetched(data: bytes, offset: int = 1000, max_body: int = 100) -> FetchedRecords:
    """The records of a reply."""
    return FetchedRecords("t", PARTITION, offset, data, max_body)


def broken(body: bytes) -> bytes:
    """A record whose checksum is wrong."""
    return HEADER.pack(len(body), 1, 7, 0) + body


class ReadingTests(SynchronousTestCase):
    """Complete records become messages."""

    def test_messages(self) -> None:
        """Each message has its offset, id, flag and body."""
        records = fetched(encode_record(11, 0, b"abc") + encode_record(-12, 0, b""))
        first, second = records.read(ALL)
        self.assertEqual(("t", PARTITION, 1000, 11, 0, b"abc"), first._fields())
        self.assertEqual(("t", PARTITION, 1023, -12, 0, b""), second._fields())
        self.assertEqual((1023, 1043), (first.next_offset, second.next_offset))
        self.assertEqual(1043, records.next_offset)
        self.assertTrue(records.exhausted)
        self.assertIsNone(records.damage)

    def test_row_52_nothing_whole(self) -> None:
        """Row 52: no data, half a header or half a body give neither a message nor damage."""
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
        """A limited read continues at the end of the last one; the last one is marked."""
        data = b"".join(encode_record(n, 0, b"x") for n in range(1, 6))
        records = fetched(data)
        self.assertEqual([1, 2], [each.id for each in records.read(2)])
        self.assertFalse(records.exhausted)
        self.assertEqual([3, 4], [each.id for each in records.read(2)])
        self.assertEqual([5], [each.id for each in records.read(2)])
        self.assertTrue(records.exhausted)
        self.assertEqual([], records.read(2))

    def test_needed_is_unknown_without_header(self) -> None:
        """Less than a header does not give a length."""
        self.assertEqual(0, fetched(b"\0" * 19).needed)


class JumpTests(SynchronousTestCase):
    """A filtering broker leaves out messages between two others."""

    def test_behind_messages(self) -> None:
        """The messages are returned, and reading continues at the target of the jump."""
        records = fetched(encode_record(1, 0, b"abc") + encode_jump(9000))
        self.assertEqual([1], [each.id for each in records.read(1)])
        self.assertEqual((1023, False), (records.next_offset, records.jumped))
        self.assertEqual([], records.read(1))
        self.assertEqual((9000, True, True), self.state(records))

    def test_alone(self) -> None:
        """The reply is only a jump."""
        records = fetched(encode_jump(9000))
        self.assertEqual([], records.read(ALL))
        self.assertEqual((9000, True, True), self.state(records))

    def test_damage_is_no_jump(self) -> None:
        """A record that differs from a jump in one field is damage."""
        fields = [0, JUMP_CHECKSUM, 9000, JUMP_FLAG]
        for index, other in ((0, 1), (1, 2), (3, 0), (3, JUMP_FLAG ^ 1)):
            changed = [*fields[:index], other, *fields[index + 1 :]]
            records = fetched(HEADER.pack(*changed) + b"x")
            self.assertEqual([], records.read(ALL))
            self.assertFalse(records.jumped)
            self.assertIsNotNone(records.damage)

    def state(self, records: FetchedRecords) -> tuple[int, bool, bool]:
        """The next offset; there is no damage."""
        self.assertIsNone(records.damage)
        return records.next_offset, records.jumped, records.exhausted


class DamageTests(SynchronousTestCase):
    """Damage is described."""

    def test_messages_in_front_are_read(self) -> None:
        """Reading ends before the damage, which the same read reports."""
        records = fetched(encode_record(1, 0, b"abc") + broken(b"def"))
        self.assertEqual([1], [each.id for each in records.read(ALL)])
        assert records.damage is not None
        self.assertEqual((1023, 1023), (records.next_offset, records.damage.offset))
        self.assertEqual([], records.read(ALL))

    def test_wrong_checksum(self) -> None:
        """The header's values are kept for the search, with all later bytes."""
        records = fetched(broken(b"def") + b"rest")
        records.read(ALL)
        reason = "the checksum of its 3 bytes is wrong"
        self.assertEqual(Damage(1000, reason, 3, 1), records.damage)
        self.assertEqual(broken(b"def") + b"rest", records.rest)

    def test_impossible_length(self) -> None:
        """A negative length is damage at once."""
        records = fetched(b"\xff" * 25)
        records.read(ALL)
        assert records.damage is not None
        self.assertIn("length is -1", records.damage.reason)

    def test_too_long(self) -> None:
        """A message longer than accepted is not waited for."""
        records = fetched(encode_record(1, 0, b"y" * 101)[:40])
        self.assertEqual([], records.read(ALL))
        assert records.damage is not None
        self.assertEqual(101, records.damage.length)
        self.assertIn("at most 100", records.damage.reason)

    def test_cut_off(self) -> None:
        """A length that leads beyond the end of the log is damage."""
        records = fetched(encode_record(1, 0, b"abc") + encode_record(2, 0, b"y" * 100)[:40])
        records.read(ALL)
        self.assertIsNone(records.damage)
        records.cut_off()
        assert records.damage is not None
        self.assertEqual((1023, None), (records.damage.offset, records.damage.length))
        self.assertIn("the log ends after 40 bytes", records.damage.reason)

    def test_longest(self) -> None:
        """A body of just the accepted length is a message."""
        self.assertEqual(1, len(fetched(encode_record(1, 0, b"y" * 100)).read(ALL)))

    def test_zero_bytes(self) -> None:
        """Zeros are not read as empty messages."""
        records = fetched(bytes(77) + encode_record(3, 0, b"x"))
        self.assertEqual([], records.read(ALL))
        self.assertEqual(Damage(1000, "there are only zero bytes", 0), records.damage)


class MessageTests(SynchronousTestCase):
    """``ReceivedMessage`` by itself."""

    def test_of_a_body(self) -> None:
        """Without start and end the piece is the body."""
        message = ReceivedMessage("t", PARTITION, 40, 9, 0, b"body")
        self.assertEqual((b"body", b"body", None), (message.body, message.data, message.attribute))
        self.assertEqual(64, message.next_offset)

    def test_copies(self) -> None:
        """A copy, also one for another process, is equal and holds the body without its piece."""
        (message,) = fetched(encode_record(1, 0, b"abc") + bytes(10)).read(1)
        for made in (
            copy.copy(message),
            copy.deepcopy(message),
            pickle.loads(pickle.dumps(message)),
        ):
            self.assertIs(ReceivedMessage, type(made))
            self.assertEqual(message, made)
            self.assertEqual(message.next_offset, made.next_offset)
            self.assertEqual(b"abc", made._piece)

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
