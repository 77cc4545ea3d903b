"""
What the clients in other languages send and what they need of a reply, as far as the codec decides
it (wire specification, section 8). Each class is one client.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import Message
from metamorphosis.wire.commands import (
    GetCommand,
    PutCommand,
    QuitCommand,
    StatsCommand,
    VersionCommand,
)
from metamorphosis.wire.encoding import result
from tests.support.feeding import Outcome, assert_frame, assert_outcome

PUT_REPLY = b"-5468927032769380352 0 9223372036854775807"


class RubyTests(SynchronousTestCase):
    """8.1: ``metaq.rb``."""

    def test_put_without_checksum(self) -> None:
        """Six tokens; the opaque starts near the smallest int32."""
        assert_frame(
            self,
            b"put test 0 5 0 -2147483647\r\nhello",
            PutCommand("test", 0, b"hello", 0, -1, None, -2147483647),
        )

    def test_put_with_attribute(self) -> None:
        """Flag 1 and a big-endian length before the attribute."""
        body = b"\x00\x00\x00\x04attrbody"
        assert_frame(
            self,
            b"put test 0 12 1 -2147483646\r\n" + body,
            PutCommand("test", 0, body, 1, -1, None, -2147483646),
        )
        message = Message("test", 1, 1, body)
        self.assertEqual(("attr", b"body"), (message.attribute, message.data))

    def test_size_in_characters_closes(self) -> None:
        """On Ruby 1.9 and later the size counts characters: the message is taken as long as
        announced, and what is left over of the multi-byte text is not a command."""
        payload = "测试".encode()
        assert_outcome(
            self,
            b"put test 0 2 0 1\r\n" + payload + b"put test 0 2 0 2\r\n",
            Outcome([PutCommand("test", 0, payload[:2], 0, -1, None, 1)], refused=True),
        )

    def test_reply_fields(self) -> None:
        """
        Status, length and opaque are words 1, 2 and 3 of the line; id and offset words 0 and 2 of
        the body.
        """
        line, body = result(200, -2147483647, PUT_REPLY).split(b"\r\n", 1)
        self.assertEqual([b"200", b"42", b"-2147483647"], line.split()[1:4])
        self.assertEqual(42, len(body))
        self.assertEqual(b"-5468927032769380352", body.split()[0])
        self.assertEqual(b"9223372036854775807", body.split()[2])

    def test_unknown_word_closes(self) -> None:
        """Its unit test relies on the close."""
        assert_outcome(self, b"unknown\r\n", Outcome([], refused=True))


class Python2Tests(SynchronousTestCase):
    """8.2: meta-python 0.2.1."""

    def test_put_and_heartbeat(self) -> None:
        """A put without checksum, and the heartbeat of its timer thread right after it."""
        assert_outcome(
            self,
            b"put test 1 5 0 -2147483647\r\nhelloversion -2147483646\r\n",
            Outcome(
                [
                    PutCommand("test", 1, b"hello", 0, -1, None, -2147483647),
                    VersionCommand(-2147483646),
                ]
            ),
        )

    def test_head_has_exactly_four_words(self) -> None:
        """It unpacks four values, split at single spaces, from every reply."""
        for opaque, text in ((-1, PUT_REPLY), (2147483647, b"1.4.6.2"), (0, None)):
            frame = result(200, opaque, text)
            head = frame.split(b"\r\n", 1)[0]
            self.assertEqual(4, len(head.split(b" ")))
            self.assertNotIn(b"", head.split(b" "))

    def test_heartbeat_body_has_the_announced_length(self) -> None:
        """It reads exactly that many bytes; nothing may follow them."""
        head, body = result(200, 1, b"1.4.6.2").split(b"\r\n", 1)
        self.assertEqual(len(body), int(head.split(b" ")[2]))

    def test_little_endian_attribute_is_stored_and_readable(self) -> None:
        """
        Builds of May 2012 packed the attribute's length in native order: put and consumer must
        survive it.
        """
        body = b"\x04\x00\x00\x00attrbody"
        assert_frame(
            self, b"put test 0 12 1 1\r\n" + body, PutCommand("test", 0, body, 1, -1, None, 1)
        )
        self.assertEqual(body, Message("test", 1, 1, body).data)

    def test_unknown_word_closes(self) -> None:
        """Its unit test relies on the close."""
        assert_outcome(self, b"unknown\r\n", Outcome([], refused=True))


class DotNetTests(SynchronousTestCase):
    """8.3: meta-dotnet."""

    def test_opaque_is_always_one(self) -> None:
        """The same opaque again and again is not an error and is given back each time."""
        put = PutCommand("测试", 0, b"x", 0, -1, None, 1)
        assert_outcome(self, "put 测试 0 1 0 1\r\nx".encode() * 3, Outcome([put] * 3))

    def test_reply_fits_one_receive(self) -> None:
        """Head and body are one piece of bytes, below the 4096 it receives at once."""
        reply = result(200, 1, PUT_REPLY)
        self.assertIs(bytes, type(reply))
        self.assertTrue(len(reply) < 4096)


class DashboardTests(SynchronousTestCase):
    """8.4: the web dashboard of the Java distribution."""

    def test_item_and_quit(self) -> None:
        """Both commands of its only write."""
        assert_outcome(
            self, b"stats topics\r\nquit\r\n", Outcome([StatsCommand("topics"), QuitCommand()])
        )

    def test_blank_item_and_quit(self) -> None:
        """The general statistics are asked for with a trailing space."""
        assert_outcome(self, b"stats \r\nquit\r\n", Outcome([StatsCommand(), QuitCommand()]))

    def test_config_without_opaque(self) -> None:
        """The configuration file is asked for without opaque."""
        assert_outcome(
            self, b"stats config\r\nquit\r\n", Outcome([StatsCommand("config"), QuitCommand()])
        )


class PhpTests(SynchronousTestCase):
    """8.5: third party, written for 1.4.6.2."""

    def test_put(self) -> None:
        """Six tokens, flag 0, opaque 1."""
        assert_frame(
            self, b"put test 0 5 0 1\r\nhello", PutCommand("test", 0, b"hello", 0, -1, None, 1)
        )

    def test_get(self) -> None:
        """Its consumer asks for 102400 bytes with opaque 0."""
        assert_frame(
            self, b"get test group 0 25 102400 0\r\n", GetCommand("test", "group", 0, 25, 102400, 0)
        )

    def test_result_is_one_piece(self) -> None:
        """
        Line and body must arrive in one segment, so they are made in one piece, and the line ends
        with CRLF.
        """
        self.assertEqual(b"result 301 3 0\r\n139", result(301, 0, b"139"))


class CppTests(SynchronousTestCase):
    """8.6: third party, a producer of 2011."""

    def test_any_flag(self) -> None:
        """
        The flag is uninitialised memory; it is stored as it is, with bit 0 and without attribute
        too.
        """
        for flag in (1, -1, 2147483647, -2147483648, 32767):
            assert_frame(
                self,
                b"put test 0 1 %d 0\r\nx" % flag,
                PutCommand("test", 0, b"x", flag, -1, None, 0),
            )
            self.assertEqual(b"x", Message("test", 1, flag, b"x").data)

    def test_unsigned_opaque(self) -> None:
        """It writes the opaque unsigned; within int32 that is the same number."""
        assert_frame(
            self,
            b"put t 0 1 0 2147483647\r\nx",
            PutCommand("t", 0, b"x", 0, -1, None, 2147483647),
        )

    def test_reply_is_short(self) -> None:
        """
        A put reply, with the longest numbers there are, stays below its 1024 bytes and has four
        head fields.
        """
        reply = result(200, -2147483648, b"-9223372036854775808 2147483647 9223372036854775807")
        self.assertTrue(len(reply) < 1024)
        self.assertEqual(4, len(reply.split(b"\r\n")[0].split()))


class AllTogetherTests(SynchronousTestCase):
    """8.7: the demands of all of them."""

    def test_nothing_behind_the_body(self) -> None:
        """A reply ends with its body: no CRLF, no further word."""
        self.assertTrue(result(200, 1, b"1 0 0").endswith(b"\r\n1 0 0"))

    def test_opaque_comes_back_as_sent(self) -> None:
        """Negative and repeated opaques are echoed unchanged."""
        for opaque in (-2147483648, -1, 0, 1, 1, 2147483647):
            head = result(200, opaque, b"1 0 0").split(b"\r\n")[0]
            self.assertEqual(b"%d" % opaque, head.split(b" ")[3])

    def test_a_200_has_exactly_three_words(self) -> None:
        """The text given is the body, with nothing appended."""
        self.assertEqual(PUT_REPLY, result(200, 1, PUT_REPLY).split(b"\r\n", 1)[1])

    def test_none_sends_a_checksum(self) -> None:
        """A put of six tokens is never judged by a checksum."""
        assert_frame(self, b"put t 0 1 0 9\r\nx", PutCommand("t", 0, b"x", 0, -1, None, 9))
