"""``heuristic.log``: the bytes of the original, both ways, and invalid files."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import InvalidRecord
from metamorphosis.transactions.heuristiclog import (
    Heuristic,
    encode_heuristic_log,
    parse_heuristic_log,
)
from metamorphosis.transactions.javastream import decode_modified_utf8, encode_modified_utf8
from metamorphosis.wire.transactionids import XATransactionId

EMPTY = bytes.fromhex(
    "aced0005737200176a6176612e7574696c2e4c696e6b6564486173684d617034c04e5c106cc0fb0200015a000b616363657373"
    "4f72646572787200116a6176612e7574696c2e486173684d61700507dac1c31660d103000246000a6c6f6164466163746f72"
    "4900097468726573686f6c6478703f4000000000000077080000001000000000"
    "7800"
)

#: section 16.4 of the specification: two outcomes, as the original wrote them
TWO = (
    EMPTY[:0x77]
    + bytes.fromhex("0000000c 7708 00000010 00000002 7372 0034")
    + b"com.taobao.metamorphosis.transaction.XATransactionId"
    + bytes.fromhex("62f372b7e6089172 02 0004 49 0008")
    + b"formatId"
    + bytes.fromhex("5b 000f")
    + b"branchQualifier"
    + bytes.fromhex("74 0002 5b42 5b 0013")
    + b"globalTransactionId"
    + bytes.fromhex("71 007e0004 4c 000f")
    + b"uniqueQualifier"
    + bytes.fromhex("74 0012")
    + b"Ljava/lang/String;"
    + bytes.fromhex("78 72 0032")
    + b"com.taobao.metamorphosis.transaction.TransactionId"
    + bytes.fromhex("1df0e0dee6df6937 02 0000 78 70")
    + bytes.fromhex("00000063 75 72 0002 5b42 acf317f8060854e0 02 0000 78 70 00000002 b102")
    + bytes.fromhex("75 71 007e0008 00000002 0aff 74 0009")
    + b"app-host1"
    + bytes.fromhex("73 72 0039")
    + b"com.taobao.metamorphosis.server.transaction.XATransaction"
    + bytes.fromhex("9e0808eec823ee08 02 0001 4c 0003")
    + b"xid"
    + bytes.fromhex("74 0036")
    + b"Lcom/taobao/metamorphosis/transaction/XATransactionId;"
    + bytes.fromhex("78 72 0037")
    + b"com.taobao.metamorphosis.server.transaction.Transaction"
    + bytes.fromhex("ae02bed26207ff36 02 0001 42 0005")
    + b"state"
    + bytes.fromhex("78 70 04 71 007e0007")
    + bytes.fromhex("73 71 007e0003 ffffffff 75 71 007e0008 00000000 75 71 007e0008 00000001 01")
    + bytes.fromhex("74 0001 71 73 71 007e000c 05 71 007e0010 78 00")
)
OUTCOMES = {
    XATransactionId(99, b"\x0a\xff", b"\xb1\x02", "app-host1"): Heuristic.COMMITTED,
    XATransactionId(-1, b"\x01", b"", "q"): Heuristic.ROLLED_BACK,
}


class BytesTests(SynchronousTestCase):
    """What the original writes."""

    def test_size_of_the_example(self) -> None:
        """The example was put together right."""
        self.assertEqual(690, len(TWO))

    def test_read(self) -> None:
        """Empty, filled, and no bytes at all; the order of the decisions stays."""
        self.assertEqual({}, parse_heuristic_log(EMPTY))
        self.assertEqual({}, parse_heuristic_log(b""))
        self.assertEqual(list(OUTCOMES.items()), list(parse_heuristic_log(TWO).items()))

    def test_written(self) -> None:
        """Byte for byte the same."""
        self.assertEqual(EMPTY, encode_heuristic_log({}))
        self.assertEqual(TWO, encode_heuristic_log(OUTCOMES))

    def test_many(self) -> None:
        """A map that has grown, and names beyond ASCII."""
        random = Random(1)
        outcomes = {
            XATransactionId(
                random.randrange(-(1 << 31), 1 << 31),
                random.randbytes(random.randrange(64)),
                random.randbytes(random.randrange(64)),
                random.choice(("app", "主机", "\0", "\U0001f600", "")),
            ): random.choice(list(Heuristic))
            for _ in range(100)
        }
        encoded = encode_heuristic_log(outcomes)
        self.assertEqual(outcomes, parse_heuristic_log(encoded))
        self.assertIn(bytes.fromhex("000000c0 7708 00000100") + b"\0\0\0" + bytes((100,)), encoded)

    def test_shared_and_separate_objects(self) -> None:
        """A writer may share a value's id with its key or repeat it, as an object of its own."""
        separate = bytearray(TWO)
        again = bytes.fromhex("73 71 007e0003 00000063 75 71 007e0008 00000002 b102")
        again += bytes.fromhex("75 71 007e0008 00000002 0aff 74 0009") + b"app-host1"
        at = TWO.index(bytes.fromhex("04 71 007e0007")) + 1
        separate[at : at + 5] = again
        # four objects more, so that the second entry's reference to its own key moves
        moved = bytes(separate).replace(
            bytes.fromhex("05 71 007e0010"), bytes.fromhex("05 71 007e0014")
        )
        self.assertEqual(OUTCOMES, parse_heuristic_log(moved))


class DamageTests(SynchronousTestCase):
    """Anything else is refused by one kind of error, whatever the damage."""

    def test_cut(self) -> None:
        """At every byte; the last one is a field that must be there."""
        for end in range(1, len(TWO)):
            self.assertRaises(InvalidRecord, parse_heuristic_log, TWO[:end])

    def test_flipped_bits(self) -> None:
        """A wrong bit gives other outcomes or the error, never anything else."""
        for bit in range(0, 8 * len(TWO), 17):
            damaged = bytearray(TWO)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            try:
                parse_heuristic_log(bytes(damaged))
            except InvalidRecord:
                pass

    def test_random(self) -> None:
        """Nor do random bytes after a good beginning."""
        random = Random(2)
        for _ in range(2000):
            start = random.randrange(len(TWO))
            try:
                parse_heuristic_log(TWO[:start] + random.randbytes(random.randrange(200)))
            except InvalidRecord:
                pass

    def test_texts(self) -> None:
        """The error says what is wrong."""
        for data, text in (
            (b"\x00\x01garbage", "does not begin with"),
            (TWO.replace(b"LinkedHashMap", b"LinkedHashMop"), "not a java.util.LinkedHashMap"),
            (TWO.replace(bytes.fromhex("70 04 71"), bytes.fromhex("70 09 71")), "state 9"),
            (
                TWO.replace(
                    bytes.fromhex("00000010 00000002 73"), bytes.fromhex("00000010 00000003 73")
                ),
                "3 entries",
            ),
        ):
            self.assertIn(text, str(self.assertRaises(InvalidRecord, parse_heuristic_log, data)))

    def test_nested(self) -> None:
        """Objects without end exhaust no stack."""
        self.assertRaises(InvalidRecord, parse_heuristic_log, TWO[:4] + b"\x73" * 100_000)


class ModifiedUtf8Tests(SynchronousTestCase):
    """Java's form of UTF-8."""

    def test_both_ways(self) -> None:
        """NUL and characters beyond the basic plane are special."""
        for text, encoded in (
            ("a", b"a"),
            ("\0", b"\xc0\x80"),
            ("é主", "é主".encode()),
            ("\U0001f600", bytes.fromhex("eda0bdedb880")),
        ):
            self.assertEqual(encoded, encode_modified_utf8(text))
            self.assertEqual(text, decode_modified_utf8(encoded))

    def test_wrong(self) -> None:
        """A byte that begins nothing."""
        self.assertRaises(InvalidRecord, decode_modified_utf8, b"\xff")
