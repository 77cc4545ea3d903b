"""Records of a redo file: the bytes of the original, any legal encoding, and invalid ones."""

from __future__ import annotations

from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import InvalidRecord
from metamorphosis.transactions.checkpoint import JournalLocation, parse_checkpoint
from metamorphosis.transactions.locations import Location, decode_locations, encode_locations
from metamorphosis.transactions.protobuf import fields, read_varint, signed, varint
from metamorphosis.transactions.records import (
    Append,
    Operation,
    OperationType,
    Record,
    decode_message,
    encode_append,
    encode_operation,
    put_head,
    read_records,
)

JOURNALS = Path(__file__).parent / "journals"

PUT = b"put t1 0 1 0 1756872259 TX:s:1 1\r\na"
LOCAL = [Location("t1-0", 0, 21, 0x6AFCA34F)]
XA = "XID:1:aa:bb:q"

#: section 16.1 of the specification: (bytes in the file, the record, its locations)
VECTORS: list[tuple[str, Record, list[Location]]] = [
    (
        "00000034 0801 1230 08ffffffffffffffffff01 1223" + PUT.hex(),
        Append(-1, PUT),
        [],
    ),
    (
        "00000012 0802 120e 0804 1000 1a06 54583a733a31 2018"
        "0000000000000000 00000015 6afca34f 00000004 74312d30",
        Operation(OperationType.LOCAL_COMMIT, "TX:s:1", False, 24),
        LOCAL,
    ),
    (
        "00000010 0802 120c 0805 1000 1a06 54583a733a31",
        Operation(OperationType.LOCAL_ROLLBACK, "TX:s:1"),
        [],
    ),
    (
        "00000019 0802 1213 0801 1000 1a0d 5849443a313a61613a62623a71 1801",
        Operation(OperationType.XA_PREPARE, XA),
        [],
    ),
    (
        "00000019 0802 1215 0802 1001 1a0d 5849443a313a61613a62623a71 2018"
        "0000000000000015 00000015 5ec57c39 00000004 74312d30",
        Operation(OperationType.XA_COMMIT, XA, True, 24),
        [Location("t1-0", 21, 21, 0x5EC57C39)],
    ),
    (
        "00000017 0802 1213 0803 1000 1a0d 5849443a313a61613a62623a71",
        Operation(OperationType.XA_ROLLBACK, XA),
        [],
    ),
]


class VectorTests(SynchronousTestCase):
    """The examples of the specification, both ways."""

    def test_written(self) -> None:
        """Byte for byte."""
        for encoded, record, locations in VECTORS:
            if isinstance(record, Append):
                written = encode_append(record.message_id, bytes(record.put_command))
            else:
                written = encode_operation(record, encode_locations(locations))
            self.assertEqual(bytes.fromhex(encoded), written)

    def test_read(self) -> None:
        """One after the other in one file, with their places."""
        data = b"".join(bytes.fromhex(encoded) for encoded, _, _ in VECTORS)
        position = 0
        for placed, (encoded, record, locations) in zip(read_records(data), VECTORS, strict=True):
            end = position + len(bytes.fromhex(encoded))
            self.assertEqual((position, record, end), placed)
            size = placed.record.data_length if isinstance(placed.record, Operation) else 0
            self.assertEqual(locations, decode_locations(memoryview(data)[end - size : end]))
            position = end

    def test_recorded_journals(self) -> None:
        """Whatever the original wrote is written again as it stood."""
        for path in JOURNALS.iterdir():
            data = path.read_bytes()
            for position, record, end in read_records(data):
                if isinstance(record, Append):
                    written = encode_append(record.message_id, bytes(record.put_command))
                else:
                    written = encode_operation(record, data[end - record.data_length : end])
                self.assertEqual(data[position:end], written)

    def test_real_id(self) -> None:
        """A negative id takes ten bytes."""
        self.assertEqual("808080d4eb939e8db401", varint(-5468926174358929408).hex())

    def test_put_head(self) -> None:
        """Of both forms of a put."""
        self.assertEqual("TX:s:1", put_head(PUT).key)
        head = put_head(memoryview(b"put t1 0 1 0 TX:s:1 1\r\na b c d"))
        self.assertEqual(("TX:s:1", (b"t1", b"0")), head)
        long = b"put %b 3 1 0 TX:s:1 1\r\na b" % (b"t" * 1000)
        self.assertEqual(("TX:s:1", (b"t" * 1000, b"3")), put_head(long))
        self.assertRaises(InvalidRecord, put_head, b"put")
        self.assertRaises(InvalidRecord, put_head, b"put t1 0 1 0 TX:\xff 1\r\na")


class LegalEncodingTests(SynchronousTestCase):
    """Readers take any legal encoding."""

    def decode(self, text: str) -> Record:
        """The record in a message."""
        return decode_message(memoryview(bytes.fromhex(text)))

    def test_other_order(self) -> None:
        """Fields may come in any order, and the last of several counts."""
        content = "1a03 584944 1001 0804 0802"
        expected = Operation(OperationType.XA_COMMIT, "XID", True)
        self.assertEqual(expected, self.decode("120b" + content + "0801 0802"))

    def test_unknown_fields(self) -> None:
        """Of every wire type are passed."""
        unknown = "7801 7a02 ffff 7d 00000000 79 0000000000000000"
        content = "0803 1000 1a01 58" + unknown
        self.assertEqual(
            Operation(OperationType.XA_ROLLBACK, "X"),
            self.decode("0802 12" + f"{len(bytes.fromhex(content)):02x}" + content + unknown),
        )

    def test_long_varint(self) -> None:
        """A number may be written with more bytes than it needs."""
        self.assertEqual(Append(1, b"x"), self.decode("08818000 1206 088100 120178"))

    def test_missing_or_wrong(self) -> None:
        """What a record must have, and of which type."""
        for text in (
            "",
            "0801",
            "1200",
            "0803 1200",
            "0801 1200",
            "0801 1202 0801",
            "0801 1203 1201 61",
            "0801 0a00",
            "0802 1200",
            "0802 1202 0801",
            "0802 1207 0800 1000 1a01 58",
            "0802 1207 0806 1000 1a01 58",
            "0802 1207 0801 1000 1a01 ff",
            "0802 1206 0801 1000 1801",
            "0802 1212 0802 1000 1a01 58 20 ffffffffffffffffff01",
            "0801 1208 0a01 31 1203 616263",
            "0001",
            "0b",
            "0801 1205 08",
            "ffffffffffffffffffff01",
        ):
            self.assertRaises(InvalidRecord, self.decode, text)


class DamageTests(SynchronousTestCase):
    """Bytes after the last whole record are not a record; the error names the place."""

    def setUp(self) -> None:
        self.data = (JOURNALS / "one-prepared-of-many").read_bytes()
        self.ends = [placed.end for placed in read_records(self.data)]

    def test_cut(self) -> None:
        """At every byte: the records before it come out, then the error."""
        for cut in range(len(self.data)):
            found: list[int] = []
            try:
                found += [placed.end for placed in read_records(self.data[:cut])]
                self.assertIn(cut, [0, *self.ends])
            except InvalidRecord as error:
                whole = [end for end in self.ends if end <= cut]
                self.assertIn(f"position {[0, *whole][-1]}:", str(error))

    def test_lengths(self) -> None:
        """Zero, negative, beyond the end, and beyond what any put can have."""
        for length in (0, -1, 1 << 30, 100):
            data = self.data + length.to_bytes(4, "big", signed=True) + b"x" * 99
            error = self.assertRaises(InvalidRecord, list, read_records(data))
            self.assertIn(f"position {len(self.data)}: ", str(error))

    def test_random(self) -> None:
        """Damage anywhere ends in records or in the one kind of error."""
        random = Random(3)
        for _ in range(2000):
            damaged = bytearray(self.data)
            for _ in range(random.randrange(1, 4)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            try:
                for placed in read_records(bytes(damaged)):
                    self.assertGreater(placed.end, placed.position)
            except InvalidRecord:
                pass


class VarintTests(SynchronousTestCase):
    """Numbers of a message."""

    def test_both_ways(self) -> None:
        """Every length, signed as well."""
        random = Random(4)
        for bits in range(64):
            value = random.getrandbits(bits) if bits else 0
            encoded = varint(value)
            self.assertEqual((value, len(encoded)), read_varint(memoryview(encoded), 0))
            encoded = varint(-value)
            self.assertEqual(-value, signed(read_varint(memoryview(encoded), 0)[0], 64))

    def test_fields_cut(self) -> None:
        """A field that leads beyond the end."""
        for text in ("0a05 61", "09 00", "0d 00", "08", "0c", "0f"):
            self.assertRaises(InvalidRecord, list, fields(memoryview(bytes.fromhex(text))))


class LocationTests(SynchronousTestCase):
    """Where blocks stand."""

    def test_names(self) -> None:
        """Beyond ASCII too, and a block that was never stored."""
        locations = [Location("主题-0", -1, 25, 7), Location("a-b-12", 1 << 40, 1 << 30, 1)]
        self.assertEqual(locations, decode_locations(memoryview(encode_locations(locations))))

    def test_damage(self) -> None:
        """Cut anywhere but between two; an invalid name."""
        data = encode_locations(LOCAL)
        for cut in range(1, len(data)):
            self.assertRaises(InvalidRecord, decode_locations, memoryview(data[:cut]))
        negative = data[:16] + b"\xff\xff\xff\xff" + data[20:]
        self.assertRaises(InvalidRecord, decode_locations, memoryview(negative))
        self.assertRaises(InvalidRecord, decode_locations, memoryview(data[:-1] + b"\xff"))


class CheckpointTests(SynchronousTestCase):
    """Checkpoint files of the original."""

    def test_read(self) -> None:
        """In any order, with keys of a later version; empty is none."""
        self.assertEqual(JournalLocation(1, 382), parse_checkpoint(b'{"number":1,"offset":382}'))
        self.assertEqual(
            JournalLocation(3, 0), parse_checkpoint(b'{"offset":0, "a":1,"number":3}\n')
        )
        self.assertIsNone(parse_checkpoint(b""))
        self.assertIsNone(parse_checkpoint(b"\0" * 25))

    def test_order(self) -> None:
        """By file, then by offset."""
        self.assertLess(JournalLocation(1, 900), JournalLocation(2, 0))
        self.assertLess(JournalLocation(2, 0), JournalLocation(2, 1))

    def test_wrong(self) -> None:
        """The error says what is missing."""
        for data in (
            b"{",
            b"[]",
            b"7",
            b'{"number":1}',
            b'{"number":1,"offset":-1}',
            b"\xff",
            b"[" * 99999,
        ):
            self.assertRaises(ValueError, parse_checkpoint, data)
        error = self.assertRaises(ValueError, parse_checkpoint, b'{"number":"1","offset":0}')
        self.assertIn("number is '1'", str(error))
