"""
Seeded random streams. The law: whatever the bytes and however they are cut, the decoder delivers
the same commands and then waits for more or raises ``RemoteProtocolError``; nothing else ever
leaves it, and what it delivers can be written again.
"""

from __future__ import annotations

import os
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.wire.commands import (
    BooleanCommand,
    Command,
    DataCommand,
    GetCommand,
    OffsetCommand,
    PutCommand,
    QuitCommand,
    StatsCommand,
    SyncCommand,
    TransactionCommand,
    TransactionType,
    VersionCommand,
)
from metamorphosis.wire.decoding import FrameLimits
from metamorphosis.wire.encoding import encode
from metamorphosis.wire.transactionids import (
    NULL_TRANSACTION_ID,
    LocalTransactionId,
    TransactionId,
    XATransactionId,
)
from tests.support.feeding import Outcome, decoded, decoded_in_place
from tests.support.wirevectors import CANONICAL, READ_ONLY, REFUSED, WAITING

#: short, so that random input reaches them
LIMITS = FrameLimits(max_line_bytes=200, max_body_bytes=300)

#: random streams to try; the long form of this test sets more
STREAMS = int(os.environ.get("METAMORPHOSIS_FUZZ_STREAMS", "3000"))

FRAMES = [row[1] for row in (*CANONICAL, *READ_ONLY, *REFUSED, *WAITING) if len(row[1]) < 200]
WORDS = b"put get offset transaction result stats sync value version quit v q".split()
ALPHABET = b" \r\n\t0123456789+-:TXIDnulpgvsqtor\xff\xe6\x00"


def cut(random: Random, data: bytes) -> list[bytes]:
    """The bytes in chunks of random lengths."""
    chunks = []
    position = 0
    while position < len(data):
        size = random.choice((1, 2, 3, 7, 50, 500))
        chunks.append(data[position : position + size])
        position += size
    return chunks


def garbage(random: Random) -> bytes:
    """Random bytes, random tokens, or good frames that were damaged."""
    kind = random.randrange(3)
    if kind == 0:
        return bytes(random.choices(range(256), k=random.randrange(400)))
    if kind == 1:
        tokens = [random.choice(WORDS)]
        for _ in range(random.randrange(9)):
            tokens.append(bytes(random.choices(ALPHABET, k=random.randrange(6))))
        return b" ".join(tokens) + random.choice((b"\r\n", b"\n", b"\r", b""))
    data = bytearray(b"".join(random.choices(FRAMES, k=random.randrange(1, 5))))
    for _ in range(random.randrange(4)):
        at = random.randrange(len(data) + 1)
        if random.random() < 0.5:
            data[at:at] = bytes(random.choices(ALPHABET, k=random.randrange(1, 4)))
        else:
            del data[at : at + random.randrange(1, 4)]
    return bytes(data)


def number(random: Random, bits: int) -> int:
    """A number of a signed field, often one at an edge."""
    edge = 1 << (bits - 1)
    return random.choice((0, 1, -1, edge - 1, -edge, random.randrange(-edge, edge)))


def text(random: Random) -> str:
    """A token that may be empty or not be ASCII."""
    return "".join(random.choices("abcXYZ09-_.*/\\%测é\t\U0001f600", k=random.randrange(8)))


def transaction_id(random: Random) -> TransactionId:
    """Any of the three kinds."""
    local = LocalTransactionId(text(random), number(random, 32))
    branch = XATransactionId(
        number(random, 32), random.randbytes(random.randrange(5)), random.randbytes(2), text(random)
    )
    return random.choice((NULL_TRANSACTION_ID, local, branch))


def command(random: Random) -> Command:
    """Any command, with any content that can be sent."""

    def int32() -> int:
        return number(random, 32)

    def int64() -> int:
        return number(random, 64)

    body = random.randbytes(random.randrange(60))
    key = random.choice((None, transaction_id(random)))
    return random.choice(
        (
            lambda: PutCommand(text(random), int32(), body, int32(), int32(), key, int32()),
            lambda: SyncCommand(text(random), int32(), body, int32(), int64(), int32(), int32()),
            lambda: GetCommand(text(random), text(random), int32(), int64(), int32(), int32()),
            lambda: OffsetCommand(text(random), text(random), int32(), int64(), int32()),
            lambda: VersionCommand(int32()),
            lambda: StatsCommand("i" + text(random), int32()),
            QuitCommand,
            lambda: TransactionCommand(
                transaction_id(random),
                text(random),
                random.choice(list(TransactionType)),
                int32(),
                max(int32(), 0),
                random.choice((None, "q" + text(random), "0", "99", "-1")),
            ),
            lambda: BooleanCommand(int32(), body or None, int32()),
            lambda: DataCommand(body, int32()),
        )
    )()


class GarbageTests(SynchronousTestCase):
    """With fixed seeds, so that a failure comes again."""

    def test_garbage_is_decoded_or_refused_however_it_is_cut(self) -> None:
        """No stream of bytes makes the decoder fail in another way or depend on chunk borders."""
        seen = {"refused": 0, "waiting": 0, "decoded": 0}
        for seed in range(STREAMS):
            random = Random(seed)
            data = garbage(random)
            whole = decoded([data], LIMITS)
            self.assertEqual(whole, decoded(cut(random, data), LIMITS), f"seed {seed}")
            self.assertEqual(whole, decoded_in_place(bytearray(data), LIMITS), f"seed {seed}")
            seen["refused"] += whole.refused
            seen["waiting"] += whole.waiting > 0
            seen["decoded"] += len(whole.commands) > 0
            for found in whole.commands:
                self.assertFalse(decoded([encode(found)], LIMITS).refused, f"seed {seed}")
        # a generator that reaches only one outcome would prove nothing
        for outcome, count in seen.items():
            self.assertTrue(count > STREAMS // 10, f"{outcome}: {count} of {STREAMS}")

    def test_what_was_written_is_read_back(self) -> None:
        """Streams of random commands survive the way through bytes, in any chunks."""
        for seed in range(STREAMS // 10):
            random = Random(seed)
            commands = [command(random) for _ in range(10)]
            data = b"".join(map(encode, commands))
            self.assertEqual(Outcome(commands), decoded(cut(random, data)), f"seed {seed}")
            self.assertEqual(Outcome(commands), decoded_in_place(data), f"seed {seed}")
