"""Tests of ``metamorphosis.message``: the record of the log and the message in it."""

from __future__ import annotations

import struct
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import CorruptRecord
from metamorphosis.message import (
    ATTRIBUTE_FLAG,
    HEADER,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    Message,
    checksum,
    encode_body,
    encode_record,
    iterate_records,
    split_body,
)

#: the two examples of the specification
HELLO = bytes.fromhex("000000053610a686000000000000270f00000000") + b"hello"
ATTRIBUTED = (
    bytes.fromhex("000000187c5b3ddd000000000000270f00000001")
    + bytes.fromhex("00000009")
    + b"attributehello world"
)


class ChecksumTests(SynchronousTestCase):
    """CRC-32 without its highest bit."""

    def test_vectors(self) -> None:
        """The values a Java peer computes."""
        self.assertEqual(907060870, checksum(b"hello"))
        self.assertEqual(1756872259, checksum(b"a"))
        self.assertEqual(0, checksum(b""))
        self.assertEqual(2086354397, checksum(b"\0\0\0\x09attributehello world"))

    def test_of_any_buffer(self) -> None:
        """No copy is needed to check a piece of a receive buffer."""
        self.assertEqual(907060870, checksum(memoryview(bytearray(b"xhello"))[1:]))

    def test_never_negative(self) -> None:
        """-1 stays free to mean that there is none."""
        random = Random(1)
        for _ in range(200):
            self.assertTrue(0 <= checksum(random.randbytes(8)) <= 0x7FFFFFFF)


class RecordTests(SynchronousTestCase):
    """Writing records."""

    def test_examples(self) -> None:
        """Both examples of the specification, byte for byte."""
        self.assertEqual(HELLO, encode_record(9999, 0, b"hello"))
        body = encode_body(b"hello world", "attribute")
        self.assertEqual(ATTRIBUTED, encode_record(9999, 1, body))

    def test_header(self) -> None:
        """Twenty bytes: length, checksum, id, flag."""
        self.assertEqual(20, HEADER_BYTES)
        self.assertEqual((5, 907060870, 9999, 0), HEADER.unpack(HELLO[:20]))

    def test_negative_id_and_any_flag(self) -> None:
        """Ids of the original are usually negative, and the flag is not examined."""
        record = encode_record(-5468927032769380352, -2, b"")
        self.assertEqual((0, 0, -5468927032769380352, -2), HEADER.unpack(record))

    def test_body_of_any_buffer(self) -> None:
        """A piece of a receive buffer can be recorded without copying it first."""
        self.assertEqual(HELLO, encode_record(9999, 0, memoryview(b"hello")))

    def test_number_that_does_not_fit(self) -> None:
        """An id or flag out of range is an error, not a wrong record."""
        self.assertRaises(struct.error, encode_record, 1 << 63, 0, b"")
        self.assertRaises(struct.error, encode_record, 0, 1 << 31, b"")


class AttributeTests(SynchronousTestCase):
    """The attribute before the payload."""

    def test_round_trip(self) -> None:
        """Attributes come back as they went in, the empty one included."""
        for attribute in ("attribute", "", "测试", "\0"):
            message = Message("t", 1, ATTRIBUTE_FLAG, encode_body(b"data", attribute))
            self.assertEqual((attribute, b"data"), (message.attribute, message.data))

    def test_without(self) -> None:
        """A body without the flag's bit is all payload, whatever it looks like."""
        body = encode_body(b"data", "attribute")
        for flag in (0, 2, -2):
            message = Message("t", 1, flag, body)
            self.assertEqual((None, body), (message.attribute, message.data))
        self.assertEqual(b"data", encode_body(b"data", None))

    def test_other_bits_do_not_matter(self) -> None:
        """Bit 0 alone counts; C++ producers send an uninitialised flag."""
        self.assertEqual((b"a", b"data"), split_body(-1, encode_body(b"data", "a")))

    def test_length_in_bytes(self) -> None:
        """The length counts bytes of UTF-8, big-endian."""
        self.assertEqual(b"\0\0\0\x03\xe6\xb5\x8bx", encode_body(b"x", "测"))

    def test_malformed_attribute_leaves_the_body_whole(self) -> None:
        """Too short, negative, too long, or in the wrong byte order, as Python 0.2 clients stored
        it for some days: the consumer gets all bytes and continues."""
        for body in (b"", b"x", b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\2x", b"\1\0\0\0ab"):
            message = Message("t", 1, 1, body)
            self.assertEqual((None, body), (message.attribute, message.data))

    def test_malformed_utf8(self) -> None:
        """An attribute that is not UTF-8 is readable, and the body keeps its bytes."""
        message = Message("t", 1, 1, b"\0\0\0\2\xffad")
        self.assertEqual("\ufffda", message.attribute)
        self.assertEqual(b"\xffa", split_body(1, message.body)[0])


class MessageTests(SynchronousTestCase):
    """The value a consumer and a filter see."""

    def test_record_bytes(self) -> None:
        """Tells where the next record starts."""
        self.assertEqual(25, Message("t", 1, 0, b"hello").record_bytes)

    def test_repr_cuts_the_body(self) -> None:
        """A megabyte of user data does not get into the log."""
        self.assertEqual(
            f"Message(topic='t', id=1, flag=0, body={b'x' * 32!r}...)",
            repr(Message("t", 1, 0, b"x" * 10000)),
        )
        self.assertEqual(
            "Message(topic='t', id=1, flag=0, body=b'x')", repr(Message("t", 1, 0, b"x"))
        )


class IterationTests(SynchronousTestCase):
    """What a consumer does with the data of a ``value``. Source: ``MessageIterator``."""

    def test_records_in_order(self) -> None:
        """All complete records, with topic, id, flag and body."""
        self.assertEqual(
            [
                Message("test", 9999, 0, b"hello"),
                Message("test", 9999, 1, ATTRIBUTED[20:]),
                Message("test", -1, 0, b""),
            ],
            list(iterate_records(HELLO + ATTRIBUTED + encode_record(-1, 0, b""), "test")),
        )

    def test_round_trip_of_the_original(self) -> None:
        """The original's unit test of ``MessageUtils``: made and decoded again."""
        [message] = iterate_records(encode_record(10000, 0, b"hello"), "test")
        self.assertEqual("test", message.topic)
        self.assertEqual(None, message.attribute)
        self.assertEqual(10000, message.id)
        self.assertEqual(b"hello", message.data)

    def test_any_cut_of_the_last_record_is_ignored(self) -> None:
        """A broker cuts a reply anywhere; the rest comes with the next one."""
        for end in range(len(ATTRIBUTED)):
            data = HELLO + ATTRIBUTED[:end]
            for kind in (bytes, bytearray, memoryview):
                messages = list(iterate_records(kind(data)))
                self.assertEqual([9999], [message.id for message in messages])
                self.assertEqual(25, sum(message.record_bytes for message in messages))

    def test_nothing(self) -> None:
        """No data, no message, no error."""
        self.assertEqual([], list(iterate_records(b"")))

    def test_wrong_checksum(self) -> None:
        """A damaged body stops the iteration after the records that are good."""
        damaged = bytearray(HELLO * 3)
        damaged[50 - 1] ^= 1
        messages = iterate_records(damaged)
        self.assertEqual(9999, next(messages).id)
        error = self.assertRaises(CorruptRecord, next, messages)
        self.assertIn("record at 25", str(error))

    def test_start_inside_a_record(self) -> None:
        """Data that does not begin at a record is refused or incomplete, never a message."""
        for start in range(1, len(HELLO)):
            data = HELLO[start:] + HELLO
            try:
                self.assertEqual([], list(iterate_records(data)))
            except CorruptRecord:
                pass

    def test_negative_length(self) -> None:
        """No record has a negative length."""
        data = struct.pack(">iiqi", -1, 0, 1, 0)
        self.assertRaises(CorruptRecord, list, iterate_records(data))

    def test_longest_body(self) -> None:
        """A Java consumer takes 2 MiB and not a byte more; another limit can be asked for."""
        longest = encode_record(1, 0, bytes(MAX_BODY_BYTES))
        self.assertEqual(1, len(list(iterate_records(longest))))
        too_long = encode_record(1, 0, bytes(MAX_BODY_BYTES + 1))
        self.assertRaises(CorruptRecord, list, iterate_records(too_long))
        self.assertEqual(1, len(list(iterate_records(too_long, max_body=MAX_BODY_BYTES + 1))))
        self.assertRaises(CorruptRecord, list, iterate_records(HELLO, max_body=4))

    def test_too_long_and_incomplete_is_incomplete(self) -> None:
        """The order of the original's checks: what is not all there is not judged."""
        data = struct.pack(">iiqi", MAX_BODY_BYTES + 1, 0, 1, 0)
        self.assertEqual([], list(iterate_records(data)))

    def test_bodies_are_copies(self) -> None:
        """The caller may reuse its buffer."""
        buffer = bytearray(HELLO)
        [message] = iterate_records(buffer)
        buffer[:] = bytes(len(buffer))
        self.assertEqual(b"hello", message.body)

    def test_random_logs(self) -> None:
        """Any sequence of records is read back, from any prefix that ends after a record or inside
        one."""
        for seed in range(50):
            random = Random(seed)
            written = [
                (random.getrandbits(64) - (1 << 63), random.randrange(4), random.randbytes(size))
                for size in random.choices(range(60), k=8)
            ]
            log = b"".join(encode_record(*record) for record in written)
            end = random.randrange(len(log) + 1)
            messages = iterate_records(log[:end])
            read = [(message.id, message.flag, message.body) for message in messages]
            self.assertEqual(written[: len(read)], read, f"seed {seed}")
            consumed = sum(20 + len(record[2]) for record in read)
            following = written[len(read) :]
            self.assertTrue(
                consumed <= end and (not following or end < consumed + 20 + len(following[0][2])),
                f"seed {seed}",
            )
