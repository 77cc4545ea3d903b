"""
The original's own decoder and encoder as the oracle of ours: the vectors of the unit tests and
seeded random streams through both, with the same commands, the same refusals and the same waiting.
"""

from __future__ import annotations

import re
import subprocess
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.wire.commands import BooleanCommand, Command, TransactionCommand
from metamorphosis.wire.decoding import FrameLimits
from metamorphosis.wire.encoding import encode
from tests.support import javabuild, wirerows
from tests.support import wirevectors as vectors
from tests.support.feeding import decoded
from tests.support.randomcommands import command, garbage

#: the original has none
LIMITS = FrameLimits(max_line_bytes=1 << 20, max_body_bytes=(1 << 31) - 1)

RANDOM_STREAMS = 8000
RANDOM_COMMANDS = 2000
JVM_SECONDS = 120

#: what the two read differently on purpose; the streams of ``DifferenceTests``
DIFFERENT = re.compile("\u0176|\u0663|XID:[^ ]*[+-]|get ([^ \r\n]* ){6}[0-9]{1,9}\r\n".encode())

#: rows whose limits only ours has
OURS_ALONE = ("length above the limit", "line above the limit", "endless line")


def ask_original(streams: list[bytes]) -> list[list[str]]:
    """The commands and errors of the original for each stream, in the form of ``Codec.java``."""
    done = subprocess.run(
        ["java", "-cp", javabuild.classpath(), "compat.Codec"],
        input="".join(f"{stream.hex()}\n" for stream in streams),
        capture_output=True,
        text=True,
        timeout=JVM_SECONDS,
        check=True,
    )
    return [line.split(" ") for line in done.stdout.splitlines()]


def ask_ours(stream: bytes) -> tuple[list[Command], str]:
    """Our commands and errors in the same form."""
    outcome = decoded([stream], LIMITS)
    return outcome.commands, "refused" if outcome.refused else f"waiting={outcome.waiting}"


def written(found: Command) -> str:
    """A command of ours in the form of ``Codec.java``."""
    return f"{type(found).__name__}={int.from_bytes(encode(found)):x}"


def comparable(found: Command) -> bool:
    """Whether both write the command in the same way. Excluded are text that is not UTF-8, which
    the original decodes first, and a unique qualifier of digits without a timeout, which the
    original writes so that it is read as a timeout."""
    if isinstance(found, BooleanCommand) and found.message is not None:
        return b"\xef\xbf\xbd" not in found.message.decode("utf-8", "replace").encode()
    if isinstance(found, TransactionCommand) and found.timeout <= 0:
        return not (found.unique_qualifier or "").isdecimal()
    return True


class CodecTests(SynchronousTestCase):
    """Our codec beside the original's."""

    skip = javabuild.missing()

    def compare(self, streams: list[bytes]) -> None:
        """Both return the same kinds of commands, the same bytes where both can write them, and the
        same end."""
        outcomes = ask_original(streams)
        self.assertEqual(len(streams), len(outcomes))
        for stream, (*theirs, end) in zip(streams, outcomes, strict=True):
            commands, our_end = ask_ours(stream)
            self.assertEqual((len(theirs), end), (len(commands), our_end), stream)
            for their, found in zip(theirs, commands, strict=True):
                ours = written(found)
                if their.endswith("=?") or not comparable(found):
                    their, ours = their.split("=")[0], ours.split("=")[0]
                self.assertEqual(their, ours, stream)

    def test_vectors(self) -> None:
        """Every frame of the unit tests and of the conformance wirerows."""
        rows = [*vectors.CANONICAL, *vectors.READ_ONLY, *vectors.REFUSED, *vectors.WAITING]
        rows += [*wirerows.OPEN, *wirerows.CLOSED, *wirerows.WAITS]
        streams = [row[1] for row in rows if row[0] not in OURS_ALONE]
        self.compare([stream for stream in streams if not DIFFERENT.search(stream)])

    def test_random_streams(self) -> None:
        """Garbage, damaged frames and random tokens."""
        streams = [garbage(Random(seed)) for seed in range(RANDOM_STREAMS)]
        self.compare([stream for stream in streams if not DIFFERENT.search(stream)])

    def test_random_commands(self) -> None:
        """Any command with any content, as our encoder writes it."""
        self.compare([encode(command(Random(seed))) for seed in range(RANDOM_COMMANDS)])


class DifferenceTests(SynchronousTestCase):
    """Where ours differs from the original; ``docs/differences.md`` lists them."""

    skip = javabuild.missing()

    def check(self, stream: bytes) -> None:
        """The original accepts the bytes, ours refuses them."""
        [[*_, end]] = ask_original([stream])
        self.assertEqual("waiting=0", end)
        self.assertEqual(([], "refused"), ask_ours(stream))

    def test_letter_whose_low_byte_is_v(self) -> None:
        """The original reads U+0176 as a ``v``."""
        self.check("\u0176 1\r\n".encode())

    def test_digits_of_other_scripts(self) -> None:
        """The original reads the decimal digits of any script."""
        self.check("version \u0663\r\n".encode())

    def test_signed_hex(self) -> None:
        """The original reads ``+a`` in an XA key as a byte."""
        self.check(b"transaction XID:1:+a::u s PREPARE 1\r\n")

    def test_time_to_wait_behind_a_get(self) -> None:
        """The original ignores every token after the opaque; ours reads one as a time."""
        stream = b"get test g 1 1000 1048576 -3 5000\r\n"
        [theirs] = ask_original([stream])
        self.assertEqual([theirs], ask_original([stream.replace(b" 5000", b"")]))
        [found], end = ask_ours(stream)
        self.assertEqual((stream, "waiting=0"), (encode(found), end))
