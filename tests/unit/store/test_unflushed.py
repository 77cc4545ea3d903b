"""The bytes that a store keeps until they are flushed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.store.unflushed import Unflushed


class Total:
    """See ``unflushed.Total``."""

    unflushed = 5


class UnflushedTests(SynchronousTestCase):
    """Pieces, and the chunk that the turn in C fills."""

    def setUp(self) -> None:
        """Nothing is kept; other stores keep 5 bytes."""
        self.total = Total()
        self.kept = Unflushed(self.total)

    def shown(self) -> list[tuple[int, bytes]]:
        """The kept pieces, copied, after a look at the counts."""
        pieces = [(position, bytes(data)) for position, data in self.kept.pieces()]
        self.assertEqual(self.kept.size, sum(len(data) for _, data in pieces))
        self.assertEqual(self.total.unflushed, 5 + self.kept.size)
        return pieces

    def fill(self, *bodies: bytes) -> None:
        """As the turn in C does, behind all pieces, of which there is one."""
        chunk = bytearray(16)
        for body in bodies:
            chunk[self.kept._used : self.kept._used + len(body)] = body
            self.kept._used += len(body)
            self.kept.size += len(body)
            self.total.unflushed += len(body)
        self.kept._chunk = bytes(chunk)

    def test_positions(self) -> None:
        """Each piece has the position at which it was written."""
        self.assertEqual(self.shown(), [])
        for position, data in ((100, b"abc"), (103, memoryview(b"de")), (105, b"f")):
            self.kept.add(position, data)
        self.assertEqual(self.shown(), [(100, b"abc"), (103, b"de"), (105, b"f")])

    def test_drop(self) -> None:
        """What a flush has covered goes, and a piece that it covered in part stays."""
        for position, data in ((100, b"abc"), (103, b"de"), (105, b"f")):
            self.kept.add(position, data)
        for position, left in ((99, 3), (100, 3), (102, 3), (103, 2), (104, 2), (105, 1)):
            self.kept.drop(position)
            self.assertEqual(len(self.shown()), left, position)
        self.assertEqual(self.shown(), [(105, b"f")])
        self.kept.drop(106)
        self.assertEqual(self.shown(), [])
        self.kept.add(300, b"gh")
        self.assertEqual(self.shown(), [(300, b"gh")])

    def test_drop_beyond(self) -> None:
        """A position beyond the end of what is kept drops all of it."""
        self.kept.add(100, b"abc")
        self.kept.drop(1000)
        self.assertEqual(self.shown(), [])

    def test_chunk(self) -> None:
        """What is used of it is a piece behind the others, and it is not filled further."""
        self.kept.add(100, b"abc")
        self.fill(b"defg", b"h")
        self.assertEqual(self.shown(), [(100, b"abc"), (103, b"defgh")])
        self.assertEqual((self.kept._chunk, self.kept._used), (None, 0))

    def test_piece_behind_the_chunk(self) -> None:
        """A piece of Python stands behind what is used of the chunk."""
        self.kept.add(100, b"abc")
        self.fill(b"defg")
        self.kept.add(107, b"h")
        self.assertEqual(self.shown(), [(100, b"abc"), (103, b"defg"), (107, b"h")])

    def test_drop_within_the_chunk(self) -> None:
        """A chunk that a flush has covered in part stays until the next."""
        self.kept.add(100, b"abc")
        self.fill(b"defg", b"h")
        self.kept.drop(107)
        self.assertEqual(self.shown(), [(103, b"defgh")])
        self.kept.drop(108)
        self.assertEqual(self.shown(), [])

    def test_empty_chunk(self) -> None:
        """One of which nothing is used is no piece."""
        self.kept.add(100, b"abc")
        self.fill()
        self.assertEqual(self.shown(), [(100, b"abc")])
        self.assertIsNone(self.kept._chunk)
