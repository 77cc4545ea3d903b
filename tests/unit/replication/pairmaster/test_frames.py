"""Frames out, answers in: what is in C and what is in Python do the same."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import encode_record
from metamorphosis.native import compiled, way
from metamorphosis.replication.pairmaster.frames import (
    OPAQUES,
    accepted_in_python,
    accepted_of_run,
    frames_in_python,
    frames_of_run,
    head_of,
    sizes_in,
)
from metamorphosis.wire.commands import SyncCommand
from metamorphosis.wire.decoding import CommandDecoder


def answer(opaque: int, offset: int, message_id: int = -5468920081952014336) -> bytes:
    """That of a slave that has stored a record."""
    text = b"%d 0 %d" % (message_id, offset)
    return b"result 200 %d %d\r\n%b" % (len(text), opaque, text)


def pieces_of(rng: random.Random, count: int) -> list[bytes]:
    """Header, body, ... of records of all kinds."""
    pieces = []
    for _ in range(count):
        record = encode_record(
            rng.randrange(-(1 << 63), 1 << 63),
            rng.randrange(-(1 << 31), 1 << 31),
            rng.randbytes(rng.choice((0, 1, 100, 5000))),
        )
        pieces += [record[:20], record[20:]]
    return pieces


class FrameTests(SynchronousTestCase):
    """Records become frames."""

    def test_decoded(self) -> None:
        """They are what the decoder of a slave reads, opaques go round."""
        rng = random.Random(1)
        for count in (1, 2, 40):
            pieces = pieces_of(rng, count)
            number = OPAQUES - 2
            data, sizes = frames_in_python(head_of("a%d", 3), pieces, number, {1})
            commands = list(CommandDecoder(1000, 10000).receive(data))
            self.assertEqual(len(commands), count)
            for at, command in enumerate(commands):
                assert isinstance(command, SyncCommand)
                header, body = pieces[2 * at], pieces[2 * at + 1]
                self.assertEqual((command.topic, command.partition), ("a%d", 3))
                self.assertEqual(command.body, body)
                self.assertEqual(command.opaque, (number + at) % OPAQUES)
                self.assertEqual(
                    command.message_id, int.from_bytes(header[8:16], "big", signed=True)
                )
                self.assertEqual(command.flag, int.from_bytes(header[16:], "big", signed=True))
                checksum = -1 if at == 1 else int.from_bytes(header[4:8], "big")
                self.assertEqual(command.checksum, checksum)
                self.assertEqual(sizes[at], 20 + len(body))

    def test_twins(self) -> None:
        """The same in C."""
        if compiled is None:
            self.skipTest(f"the native part is not used ({way})")
        rng = random.Random(2)
        for count in (0, 1, 3, 200):
            pieces = pieces_of(rng, count)
            number = rng.randrange(OPAQUES)
            self.assertEqual(
                frames_in_python(head_of("test", 0), pieces, number),
                compiled.sync_frames(head_of("test", 0), pieces, number, OPAQUES),
            )

    def test_odd_pieces(self) -> None:
        """What is not a record is an error, and nothing is read beyond it."""
        if compiled is None:
            self.skipTest(f"the native part is not used ({way})")
        for pieces in ([b"short", b""], [bytes(20), b"x"], [b"", b""]):
            self.assertRaises(ValueError, compiled.sync_frames, b"h ", pieces, 0, 10)
        for odd in ([bytes(20), "text"], [None, b""]):
            self.assertRaises(TypeError, compiled.sync_frames, b"h ", odd, 0, 10)


class RunTests(SynchronousTestCase):
    """Records that follow each other in one piece of memory."""

    def test_frames(self) -> None:
        """The same frames as of single pieces; a record without a checksum is marked."""
        rng = random.Random(3)
        for count in (1, 3, 200):
            pieces = pieces_of(rng, count)
            run = b"".join(pieces)
            for number, unchecked in ((OPAQUES - 2, set()), (7, {0, 2})):
                frames, sizes = frames_in_python(head_of("t", 0), pieces, number, unchecked)
                made = frames_of_run(head_of("t", 0), run, count, number, unchecked)
                self.assertEqual(made, frames)
                self.assertEqual(sizes_in(run), sizes)

    def test_answers(self) -> None:
        """Those at the front that accept the next records where they belong, however they are
        cut."""
        if compiled is None:
            self.skipTest(f"the native part is not used ({way})")
        run = b"".join(pieces_of(random.Random(4), 3))
        sizes = sizes_in(run)
        offsets = [1000, 1000 + sizes[0], 1000 + sizes[0] + sizes[1]]
        number = OPAQUES - 2
        answers = [answer((number + n) % OPAQUES, offset) for n, offset in enumerate(offsets)]
        data = b"before" + b"".join(answers) + b"after"
        for cut in range(6, len(data) + 1):
            count, at, end = accepted_of_run(data[:cut], 6, run, 0, number, OPAQUES, 1000)
            self.assertEqual(count, sum(6 + len(b"".join(answers[:n])) <= cut for n in (1, 2, 3)))
            self.assertEqual((at, end), (sum(sizes[:count]), 6 + len(b"".join(answers[:count]))))
            rest = accepted_of_run(
                data, end, run, at, (number + count) % OPAQUES, OPAQUES, 1000 + at
            )  # from the next one on
            self.assertEqual(rest[0], 3 - count)

    def test_other_answers(self) -> None:
        """Of another record, at another offset, or anything else: none is taken."""
        if compiled is None:
            self.skipTest(f"the native part is not used ({way})")
        run = b"".join(pieces_of(random.Random(5), 2))
        for other in (answer(8, 0), answer(7, 1), b"result 500 2 7\r\nno", b"", b"\xff"):
            self.assertEqual(accepted_of_run(other, 0, run, 0, 7, OPAQUES, 0), (0, 0, 0), other)
        self.assertEqual(
            accepted_of_run(answer(7, 0), 0, run, len(run), 7, OPAQUES, 0), (0, len(run), 0)
        )

    def test_odd_runs(self) -> None:
        """What is not a run is an error, and nothing is read beyond it."""
        if compiled is None:
            self.skipTest(f"the native part is not used ({way})")
        record = b"".join(pieces_of(random.Random(6), 1))
        for run, count in ((record[:-1] or b"", 1), (record, 2), (record + b"x", 1), (b"", 0)):
            self.assertRaises(ValueError, compiled.run_frames, b"h ", run, count, 0, 10)
        long = b"\xff" * 20
        self.assertRaises(ValueError, compiled.run_frames, b"h ", long, 1, 0, 10)
        self.assertEqual(compiled.run_accepted(answer(0, 0), 0, long, 0, 0, 10, 0), (0, 0, 0))
        for position, at in ((-1, 0), (1, 0), (0, -1), (0, 21)):
            self.assertRaises(ValueError, compiled.run_accepted, b"", position, long, at, 0, 10, 0)


class AnswerTests(SynchronousTestCase):
    """Answers are taken apart."""

    def ways(self) -> list[object]:
        """All there are."""
        return [accepted_in_python, *([] if compiled is None else [compiled.accepted])]

    def test_every_cut(self) -> None:
        """However the bytes come, the same opaques and offsets, and nothing is lost."""
        data = answer(1, 0) + answer(2, 1044, 5) + answer(OPAQUES - 1, 1 << 40)
        for take in self.ways():
            for cut in range(len(data) + 1):
                opaques, offsets, end, waits = take(data[:cut])  # type: ignore[operator]
                self.assertTrue(waits)
                more = take(data[end:])  # type: ignore[operator]
                self.assertEqual(opaques + more[0], [1, 2, OPAQUES - 1])
                self.assertEqual(offsets + more[1], [0, 1044, 1 << 40])
                self.assertEqual(end + more[2], len(data))

    def test_something_else(self) -> None:
        """Is left to the careful reader, which gets it from its first byte on."""
        for other in (
            b"result 500 2 3\r\nno",
            b"value 3 4\r\nabc",
            b"result 200 3 -5\r\n123",
            b"result 200 0 4\r\n",
            b"result 200 9 4\r\n1 2 3 4 5",
            b"result 200 5 4\r\n1 2 -",
            b"garbage",
            b"\0\xff",
        ):
            for take in self.ways():
                for before in (b"", answer(1, 7)):
                    opaques, _, end, waits = take(before + other)  # type: ignore[operator]
                    self.assertIn((len(opaques), end), ((0, 0), (1, len(answer(1, 7)))))
                    if end == len(before):
                        self.assertFalse(waits and len(other) > 60, other)

    def test_numbers(self) -> None:
        """None is taken that does not fit."""
        for text in (b"1 0 99999999999999999999", b"99999999999999999999999 0 1", b"1 0 1x"):
            data = b"result 200 %d 4\r\n%b" % (len(text), text)
            if compiled is not None:
                self.assertEqual(compiled.accepted(data)[:3], ([], [], 0))
