"""Random commands and random garbage for decoders, from a seed."""

from __future__ import annotations

from random import Random

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
from metamorphosis.wire.transactionids import (
    NULL_TRANSACTION_ID,
    LocalTransactionId,
    TransactionId,
    XATransactionId,
)
from tests.support.wirevectors import CANONICAL, READ_ONLY, REFUSED, WAITING

#: short, so that random input reaches them
LIMITS = FrameLimits(max_line_bytes=200, max_body_bytes=300)

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
