"""
The recorded sessions of the original (``compat/captures``): both directions of every connection are
decoded completely, and our encoder writes the same bytes as the original.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.message import iterate_records
from metamorphosis.wire.commands import DataCommand
from metamorphosis.wire.decoding import FrameLimits
from metamorphosis.wire.encoding import encode
from tests.support.feeding import Outcome, decoded, generated

SESSIONS = Path(__file__).parents[2] / "compat" / "captures" / "sessions"
LIMITS = FrameLimits()

#: requests the original refused: it closed the connection
REFUSED = {
    "18-raw-unknown-command/broker-01",
    "19-raw-bad-number/broker-01",
    "20-raw-missing-arguments/broker-01",
    "21-raw-empty-line/broker-01",
    "22-raw-lf-only/broker-01",
    "23-raw-tx-errors/broker-01",
}

#: hand-made requests, and clients that send the form of puts without checksum
NOT_CANONICAL = ("raw-", "-ruby-", "-python2-", "-dotnet-")


def streams(direction: str) -> Iterator[tuple[str, str, list[bytes]]]:
    """Name for a test, name of the file, chunks, for every recorded connection with bytes in this
    direction."""
    for path in sorted(SESSIONS.glob("*/*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        chunks = [
            bytes.fromhex(line["hex"])
            for line in lines
            if line["dir"] == direction and "hex" in line
        ]
        if chunks:
            name = f"{path.parent.name}/{path.stem}"
            yield name.replace("/", " "), name, chunks


@generated("requests of", "The requests of {} are read, and written again.", streams("c2s"))
class RequestTests(SynchronousTestCase):
    """Client to broker, and master to slave."""

    def check(self, name: str, chunks: list[bytes]) -> None:
        """Decoded in the recorded chunks and in one piece; encoded as by the Java client where that
        sent it."""
        data = b"".join(chunks)
        outcome = decoded(chunks, LIMITS)
        self.assertEqual(decoded([data], LIMITS), outcome)
        self.assertEqual(name in REFUSED, outcome.refused)
        self.assertEqual(0, outcome.waiting)
        again = [encode(command) for command in outcome.commands]
        if not any(part in name for part in NOT_CANONICAL):
            self.assertEqual(data, b"".join(again))
        self.assertEqual(again, [encode(command) for command in decoded(again, LIMITS).commands])


@generated("replies of", "The replies of {} are read, and written the same.", streams("s2c"))
class ReplyTests(SynchronousTestCase):
    """Broker to client."""

    def check(self, name: str, chunks: list[bytes]) -> None:
        """Byte for byte."""
        data = b"".join(chunks)
        outcome = decoded(chunks, LIMITS)
        self.assertEqual(decoded([data], LIMITS), outcome)
        self.assertEqual(Outcome(outcome.commands), outcome)
        self.assertEqual(data, b"".join(map(encode, outcome.commands)))


class RecordTests(SynchronousTestCase):
    """The pieces of the log in the recorded replies."""

    def test_records_of_a_consumer(self) -> None:
        """A subscriber's fetches are whole records with right checksums, and the texts of the
        producer."""
        bodies = []
        for name, _, chunks in streams("s2c"):
            if name.startswith("11-consume-async"):
                for command in decoded(chunks, LIMITS).commands:
                    if isinstance(command, DataCommand):
                        messages = list(iterate_records(command.body, "test"))
                        self.assertEqual(
                            len(command.body), sum(message.record_bytes for message in messages)
                        )
                        bodies += [message.data for message in messages]
        self.assertEqual(20, len(bodies))
        self.assertIn(b"msg-0", bodies)

    def test_there_are_recordings(self) -> None:
        """The tests above are made from files; with an empty directory there would be none."""
        self.assertTrue(len(list(streams("c2s"))) >= 30)
        self.assertEqual(set(), REFUSED - {name for _, name, _ in streams("c2s")})
