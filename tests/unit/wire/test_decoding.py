"""
Tests of ``metamorphosis.wire.decoding``: every frame, in every chunking, and what happens around
frames.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.model import Settings
from metamorphosis.errors import RemoteProtocolError
from metamorphosis.wire import decoding
from metamorphosis.wire.commands import (
    Command,
    PutCommand,
    QuitCommand,
    VersionCommand,
)
from metamorphosis.wire.decoding import CommandDecoder, FrameLimits, NeedMore, decode_frame
from tests.support.feeding import LIMITS, Outcome, assert_frame, assert_outcome, generated
from tests.support.wirevectors import CANONICAL, READ_ONLY, REFUSED, WAITING

BEFORE = b"version 1\r\n"


@generated("reads", "The frame '{}' is this command however it arrives.", CANONICAL + READ_ONLY)
class AcceptedTests(SynchronousTestCase):
    """Frames that are commands."""

    def check(self, frame: bytes, command: Command) -> None:
        """Whole, in pieces, between other frames."""
        assert_frame(self, frame, command)


@generated("refuses", "A peer that sends '{}' is refused however it arrives.", REFUSED)
class RefusedTests(SynchronousTestCase):
    """Frames after which the connection is closed."""

    def check(self, frame: bytes) -> None:
        """Alone, and after a good frame, which is delivered."""
        assert_outcome(self, frame, Outcome([], refused=True))
        assert_outcome(self, BEFORE + frame, Outcome([VersionCommand(1)], refused=True))


@generated("awaits the rest of", "With '{}' neither a command nor an error is due yet.", WAITING)
class WaitingTests(SynchronousTestCase):
    """Beginnings of frames."""

    def check(self, beginning: bytes) -> None:
        """Nothing is delivered and nothing is lost."""
        assert_outcome(self, beginning, Outcome([], waiting=len(beginning)))


class DecoderTests(SynchronousTestCase):
    """The stream around the frames."""

    def setUp(self) -> None:
        """A decoder with the limits of the tests."""
        self.decoder = CommandDecoder(LIMITS.max_line_bytes, LIMITS.max_body_bytes)

    def test_bytes_are_taken_at_the_call(self) -> None:
        """A caller that forgets to iterate loses nothing."""
        self.decoder.receive(b"version 1\r\nvers")
        self.assertEqual(
            [VersionCommand(1), VersionCommand(2)], list(self.decoder.receive(b"ion 2\r\n"))
        )

    def test_an_abandoned_iterator_leaves_its_commands_to_the_next(self) -> None:
        """A caller that stops in the middle, say to pause reading, finds the rest in order."""
        first = self.decoder.receive(b"version 1\r\nversion 2\r\nversion 3\r\n")
        self.assertEqual(VersionCommand(1), next(first))
        self.assertEqual([VersionCommand(2), VersionCommand(3)], list(self.decoder.receive(b"")))

    def test_commands_before_a_bad_frame_are_delivered_first(self) -> None:
        """Requests sent before the error take effect."""
        commands = self.decoder.receive(b"version 1\r\nquit\r\ngarbage\r\nversion 2\r\n")
        self.assertEqual([VersionCommand(1), QuitCommand()], [next(commands), next(commands)])
        self.assertRaises(RemoteProtocolError, next, commands)

    def test_nothing_is_read_behind_a_bad_frame(self) -> None:
        """Later chunks are refused with the same error and not kept."""
        first = self.assertRaises(RemoteProtocolError, list, self.decoder.receive(b"x\r\nquit\r\n"))
        second = self.assertRaises(RemoteProtocolError, list, self.decoder.receive(b"quit\r\n"))
        self.assertIs(first, second)
        self.assertEqual(0, self.decoder.pending)
        decoder = CommandDecoder(LIMITS.max_line_bytes, LIMITS.max_body_bytes)
        self.assertRaises(RemoteProtocolError, list, decoder.receive(b"version 1\r\nx\r\nquit"))
        self.assertEqual(0, decoder.pending)

    def test_body_is_a_copy(self) -> None:
        """The caller may overwrite its receive buffer while the command lives."""
        buffer = bytearray(b"put t 0 5 0 7\r\nhello")
        [command] = self.decoder.receive(memoryview(buffer))
        buffer[:] = bytes(len(buffer))
        assert isinstance(command, PutCommand)
        self.assertEqual(b"hello", command.body)
        self.assertIs(bytes, type(command.body))

    def test_delivered_bytes_are_let_go(self) -> None:
        """The decoder keeps only what belongs to no command yet."""
        list(self.decoder.receive(b"version 1\r\n" * 1000 + b"put t 0 5 0 7\r\nhel"))
        self.assertEqual(len(b"put t 0 5 0 7\r\nhel"), self.decoder.pending)
        self.assertEqual(len(b"hel"), len(self.decoder._buffer))

    def test_a_line_is_parsed_once_however_slowly_its_body_arrives(self) -> None:
        """A body in many chunks does not cost a parse of its line for each of them."""
        parsed = []
        original = decoding._read_head

        def counting(*arguments):  # type: ignore[no-untyped-def]
            parsed.append(arguments[1])
            return original(*arguments)

        self.patch(decoding, "_read_head", counting)
        list(self.decoder.receive(b"put t 0 8192 0 7\r\n"))
        for _ in range(8191):
            self.assertEqual([], list(self.decoder.receive(b"x")))
        self.assertEqual(1, len(parsed))
        [command] = self.decoder.receive(b"x")
        self.assertEqual(PutCommand("t", 0, b"x" * 8192, 0, -1, None, 7), command)

    def test_a_slow_line_is_not_searched_again(self) -> None:
        """Each byte of a line that arrives in pieces is searched for its end about once."""
        searched = []

        class Counting(bytearray):
            def find(self, sub, start, end):  # type: ignore[no-untyped-def,override]
                searched.append(end - start)
                return super().find(sub, start, end)

        self.decoder._buffer = Counting()
        for _ in range(1000):
            list(self.decoder.receive(b"x"))
        self.assertTrue(sum(searched) <= 2 * 1000, sum(searched))


class LimitTests(SynchronousTestCase):
    """What a peer can make us keep is bounded."""

    def test_line_limit_is_named(self) -> None:
        """The error says which limit was passed and what it is."""
        error = self.assertRaises(
            RemoteProtocolError, decode_frame, b"x" * 12, 0, 12, FrameLimits(10, 10)
        )
        self.assertIn("max_line_bytes, 10", str(error))

    def test_body_limit_is_named(self) -> None:
        """The error says how long the body would be and what the limit is."""
        data = b"value 11 1\r\n"
        error = self.assertRaises(
            RemoteProtocolError, decode_frame, data, 0, len(data), FrameLimits(99, 10)
        )
        self.assertIn("11 bytes", str(error))
        self.assertIn("max-body-bytes, 10", str(error))

    def test_longest_line_and_body(self) -> None:
        """A frame exactly at both limits is read."""
        data = b"value 0010 1\r\n" + bytes(10)
        found = decode_frame(data, 0, len(data), FrameLimits(12, 10))
        assert not isinstance(found, NeedMore)
        self.assertEqual(len(data), found[1])

    def test_line_one_too_long(self) -> None:
        """One byte above the limit is refused, whether its end is there or not."""
        data = b"value 0010 1\r\n"
        for end in (13, 14):
            self.assertRaises(RemoteProtocolError, decode_frame, data, 0, end, FrameLimits(11, 10))

    def test_a_huge_length_is_refused_before_its_body(self) -> None:
        """A peer cannot make the broker reserve or collect what it would refuse in the end."""
        data = b"put test 0 2147483647 0 7\r\n"
        self.assertRaises(RemoteProtocolError, decode_frame, data, 0, len(data), FrameLimits())

    def test_error_texts_are_short(self) -> None:
        """A long bad token does not fill the log."""
        for data in (b"x" * 4000 + b"\r\n", b"version " + b"x" * 4000 + b"\r\n"):
            error = self.assertRaises(RemoteProtocolError, decode_frame, data, 0, len(data), LIMITS)
            self.assertTrue(len(str(error)) < 200, str(error))

    def test_error_text_shows_the_token(self) -> None:
        """
        The log says which field of the peer's line was wrong, with its unprintable bytes escaped.
        """
        data = b"get t g 0 1\x00 1 1\r\n"
        error = self.assertRaises(RemoteProtocolError, decode_frame, data, 0, len(data), LIMITS)
        self.assertEqual(r"offset b'1\x00' is not a number", str(error))

    def test_defaults(self) -> None:
        """The default limits are those of a broker with default settings."""
        settings = Settings()
        limits = FrameLimits(settings.max_line_bytes, settings.max_body_bytes)
        self.assertEqual(limits, FrameLimits())


class NeedMoreTests(SynchronousTestCase):
    """What a caller learns that manages its own buffer."""

    def test_bytes_behind_the_received_ones(self) -> None:
        """They are of an earlier chunk, in whatever kind of buffer, and are not read."""
        rest = b"version 1\r\n" * 400
        for buffer in (b"version 1" + rest, memoryview(b"version 1" + rest)):
            self.assertEqual(NeedMore(None), decode_frame(buffer, 0, 9, LIMITS))

    def test_total_is_known_once_the_line_is(self) -> None:
        """The caller can make room for the whole frame at once."""
        data = b"get t g 0 0 1 1\r\nput t 0 100 0 7\r\nabc"
        self.assertEqual(
            NeedMore(len(b"put t 0 100 0 7\r\n") + 100),
            decode_frame(data, 17, len(data), LIMITS),
        )
        self.assertEqual(NeedMore(None), decode_frame(data, 17, 30, LIMITS))
        self.assertEqual(NeedMore(None), decode_frame(data, 17, 17, LIMITS))

    def test_searched_finds_a_line_end_cut_in_two(self) -> None:
        """The CR may be the last byte of what was searched before."""
        data = b"version 1\r\n"
        found = decode_frame(data, 0, len(data), LIMITS, searched=10)
        self.assertEqual((VersionCommand(1), 11), found)
