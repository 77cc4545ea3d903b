"""The serialisation, and that no length makes it take more than is there."""

from __future__ import annotations

import struct

from kazoo.protocol.serialization import read_buffer, read_string, write_buffer, write_string
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.jute import (
    MalformedRequest,
    Reader,
    pack_buffer,
    pack_integer,
    pack_multi_header,
    pack_string,
    pack_strings,
)
from tests.support.zookeeperpeer import integers, text


class ReaderTests(SynchronousTestCase):
    """Values from the front of a frame."""

    def test_values_in_turn(self) -> None:
        """Each value begins where the one before it ended."""
        frame = b"??" + struct.pack(">iq?", -5, 1 << 40, True) + write_buffer(b"ab") + b"\0"
        reader = Reader(frame, 2)
        self.assertEqual((reader.integer(), reader.long(), reader.boolean()), (-5, 1 << 40, True))
        self.assertEqual((reader.buffer(), reader.boolean()), (b"ab", False))
        self.assertEqual(reader.position, len(frame))

    def test_kazoo_writes_what_is_read(self) -> None:
        """Strings of another implementation."""
        for value in ("/a", "/grün/木", "x" * 5000):
            self.assertEqual(Reader(write_string(value)).string(), value)

    def test_null_and_empty_are_different(self) -> None:
        """The length -1 and the length 0."""
        self.assertIsNone(Reader(integers(-1)).buffer())
        self.assertEqual(Reader(integers(0)).buffer(), b"")
        self.assertIsNone(Reader(integers(-1)).text())
        self.assertEqual(Reader(integers(0)).text(), "")

    def test_null_is_no_string(self) -> None:
        """A path is never null."""
        self.assertRaises(MalformedRequest, Reader(integers(-1)).string)

    def test_any_byte_but_zero_is_true(self) -> None:
        """As Java reads a boolean."""
        self.assertIs(Reader(b"\x02").boolean(), True)

    def test_what_is_cut_off_is_malformed(self) -> None:
        """Every value, cut at every byte."""
        for method, value in (
            (Reader.integer, integers(7)),
            (Reader.long, integers(7, 8)),
            (Reader.boolean, b"\1"),
            (Reader.buffer, text(b"abc")),
            (Reader.string, text("abc")),
            (Reader.strings, integers(2) + text("a") + text("b")),
            (Reader.multi_header, struct.pack(">i?i", 1, False, -1)),
        ):
            method(Reader(value))
            for end in range(len(value)):
                self.assertRaises(MalformedRequest, method, Reader(value[:end]))

    def test_lengths_that_lie(self) -> None:
        """2^30 bytes or strings in a frame of a few bytes, and lengths below -1."""
        for length in (1 << 30, 0x7FFFFFFF, 4, -2, -0x80000000):
            frame = integers(length) + b"abc"
            self.assertRaises(MalformedRequest, Reader(frame).buffer)
            self.assertRaises(MalformedRequest, Reader(frame).string)
            self.assertRaises(MalformedRequest, Reader(frame).count)
            self.assertRaises(MalformedRequest, Reader(frame).strings)

    def test_count_of_what_may_be_there(self) -> None:
        """An element has four bytes at least; what was read before does not count."""
        self.assertEqual(Reader(bytes(4) + integers(2) + bytes(8), 4).count(), 2)
        self.assertRaises(MalformedRequest, Reader(bytes(4) + integers(3) + bytes(8), 4).count)

    def test_null_vector_is_empty(self) -> None:
        """The count -1 means that there are no strings."""
        self.assertEqual(Reader(integers(-1)).count(), -1)
        self.assertEqual(Reader(integers(-1)).strings(), [])

    def test_bytes_that_are_not_utf_8(self) -> None:
        """Nor surrogates in UTF-8, which would be no path."""
        for value in (b"/\xff", b"/\xc3", b"/\xed\xa0\x80", b"/\xc0\x80"):
            self.assertRaises(MalformedRequest, Reader(text(value)).text)


class PackTests(SynchronousTestCase):
    """Values into a frame, read by kazoo."""

    def test_strings_and_buffers(self) -> None:
        """Length and bytes; null has the length -1."""
        self.assertEqual(read_string(pack_string("/grün"), 0), ("/grün", 10))
        self.assertEqual(read_buffer(pack_buffer(b"ab"), 0), (b"ab", 6))
        self.assertEqual(read_buffer(pack_buffer(b""), 0), (b"", 4))
        self.assertEqual(read_buffer(pack_buffer(None), 0), (None, 4))
        self.assertEqual(pack_string(None), integers(-1))

    def test_vector_of_strings(self) -> None:
        """Count and strings."""
        self.assertEqual(pack_strings({"a": 1, "bc": 2}), integers(2) + text("a") + text("bc"))
        self.assertEqual(pack_strings([]), integers(0))

    def test_numbers(self) -> None:
        """Big-endian with a sign; a header of a multi."""
        self.assertEqual(pack_integer(-101), integers(-101))
        self.assertEqual(Reader(pack_multi_header(-1, True, -1)).multi_header(), (-1, True))
