"""Seeded requests for two brokers that are to answer alike: mostly right, some slightly wrong."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence

TOPICS: dict[str, dict[str, object]] = {
    "a": {},
    "b": {"numPartitions": 3, "stat": "true"},
    "dyn*": {},
    "ro": {"acceptPublish": "false"},
}
SIZES = (0, 1, 5, 20, 100, 1000, 30000)
PARTITIONS = {"a": 1, "b": 3, "dynamic": 1, "ro": 1}


TRANSACTIONS = ["null", "TX:s:1", "TX::1", "TX:s:1:", "TX:s:-1", "TX:s:2147483648", "TX:s"]
TRANSACTIONS += ["TX:s:x", "XID:1:0A:0b:u", "XID:1:::", "XID:1:0:0:u", "XID:1:abc:d:u"]
TRANSACTIONS += ["XID:1:0g:00:u", "XID:1:00:00", "XID:x:00:00:u", "XID:-1:00:00:u:v"]
TRANSACTIONS += ["xid:1:00:00:u", "X", ""]


class Requests:
    """
    An endless mixture. Opaques never repeat: the original does not answer a ``stats config`` twice.

    Left out is what the two may answer differently by design: a random choice among several
    partitions, puts in transactions, bodies beyond ``maxTransferSize``, and the digits of a counter
    of time.
    """

    def __init__(self, seed: int, sizes: Sequence[int] = SIZES, reads: bool = True) -> None:
        """``sizes`` of bodies; without ``reads`` nothing shows when the broker flushes."""
        self.random = random.Random(seed)
        self.sizes = sizes
        self.reads = reads
        self.opaque = -(2**31)
        self.ends = dict.fromkeys(
            ((topic, number) for topic, count in PARTITIONS.items() for number in range(count)), 0
        )

    def __iter__(self) -> Iterator[bytes]:
        """Request after request."""
        kinds = [(self.put, 45), (self.version, 3), (self.sync, 1), (self.transaction, 4)]
        if self.reads:
            kinds += [(self.get, 30), (self.offset, 8), (self.stats, 6)]
        makers, weights = zip(*kinds)
        while True:
            self.opaque += 1
            request = self.random.choices(makers, weights)[0]()
            yield self.spoil(request) if self.random.random() < 0.07 else request

    def partition(self) -> tuple[str, int]:
        """Where to: mostly a partition that exists."""
        if self.random.random() < 0.9:
            return self.random.choice(list(self.ends))
        topic = self.random.choice(["a", "b", "nosuch", "", "dynx", "a-1", "\u00fc"])
        # no random partition where there are several
        return topic, self.random.choice([0, 7, -2, 2147483647] + ([-1] if topic != "b" else []))

    def put(self) -> bytes:
        """All forms without a transaction; the checksum is right, absent, -1 or wrong."""
        topic, number = self.partition()
        size = self.random.choice(self.sizes)
        flag = self.random.choice([0, 0, 0, 1, -1, 2147483647])
        body = self.random.randbytes(size)
        if flag == 1:
            body = b"\0\0\0\4attr" + body
        checksum = self.random.choices(
            [[], [zlib.crc32(body) & 0x7FFFFFFF], [-1], [12345]], [30, 50, 10, 10]
        )[0]
        tokens = ["put", topic, number, len(body), flag, *checksum, self.opaque]
        if (topic, number) in self.ends and checksum != [12345]:
            self.ends[topic, number] += 20 + len(body)
        return " ".join(map(str, tokens)).encode() + b"\r\n" + body

    def position(self, place: tuple[str, int]) -> int:
        """An offset: inside, at the ends, beyond, or absurd."""
        end = self.ends.get(place, 0)
        inside = self.random.randint(0, end)
        return self.random.choice(
            [0, inside, inside, inside, end - 1, end, end + 1, -1, 2**63 - 1, -(2**63), 10**12]
        )

    def get(self) -> bytes:
        """Any offset and size."""
        place = self.partition()
        size = self.random.choice([1, 19, 20, 100, 5000, 65536, 1048576, 2147483647, 0, -1])
        group = self.random.choice(["g", "g", "", "g@1"])
        position = self.position(place)
        return f"get {place[0]} {group} {place[1]} {position} {size} {self.opaque}\r\n".encode()

    def offset(self) -> bytes:
        """Any offset."""
        place = self.partition()
        return f"offset {place[0]} g {place[1]} {self.position(place)} {self.opaque}\r\n".encode()

    def version(self) -> bytes:
        """With all the freedom of the original's decoder."""
        verb = self.random.choice(["version", "v", "vx"])
        junk = self.random.choice(["", "", " junk"])
        return f"{verb} {self.opaque}{junk}\r\n".encode()

    def stats(self) -> bytes:
        """Every item, and names that are none."""
        items = ["", "topics", "offsets", "realtime", "help", "a", "b", "dynamic", "nosuch"]
        items += ["config", "reset", "Topics"]
        return f"stats {self.random.choice(items)} {self.opaque}\r\n".encode()

    def sync(self) -> bytes:
        """Refused by a broker that is no synchronous slave."""
        return f"sync a 0 5 0 99 {self.opaque}\r\nhello".encode()

    def transaction(self) -> bytes:
        """Keys, types and optional tokens of every form; only whether they are read is compared."""
        key = self.random.choice(TRANSACTIONS)
        kind = self.random.choice(
            "BEGIN PREPARE COMMIT_ONE_PHASE COMMIT_TWO_PHASE ROLLBACK RECOVER FORGET begin".split()
        )
        # A timeout of a few seconds would end in the test: on one side before a request, on the
        # other after it.
        options = self.random.choice(
            ["", "", " 300", " 0", " u", " 300 u", " -1", " 300 7", " u 300", " "]
        )
        return f"transaction {key} s {kind}{options} {self.opaque}\r\n".encode()

    def spoil(self, request: bytes) -> bytes:
        """
        One fault in the line. What a spoiled put stores is not tracked; offsets are then only less
        likely to hit.
        """
        line, _, body = request.partition(b"\r\n")
        tokens = line.split(b" ")
        place = self.random.randrange(len(tokens))
        fault = self.random.randrange(8)
        if fault == 0:
            del tokens[place]
        elif fault == 1:
            tokens.insert(place, self.random.choice([b"", b"7", b"x"]))
        elif fault == 2:
            numbers = [b"1x", b"+1", b"007", b"0x1", b"1_0", b"2147483648", b"\xc3\xa9", b" 1"]
            tokens[place] = self.random.choice(numbers)
        elif fault == 3:
            tokens[0] = tokens[0].upper()
        elif fault == 4:
            tokens[0] = b"\t" + tokens[0]
        elif fault == 5:
            return b" " * self.random.randrange(3) + b"\r\n"
        elif fault == 6:
            return line + b"\n" + body + b"\r\n"
        elif fault == 7:
            tokens.append(b"")
        return fitting(b" ".join(tokens), body)


def fitting(line: bytes, body: bytes) -> bytes:
    """
    Line and body; the body without what a changed length token leaves over, for that would be a
    second, malformed request, and whether the original still answers the first one is a matter of
    luck. A length beyond every limit is lowered: ours closes, the original waits for ever.
    """
    tokens = line.split(b" ")
    length = tokens[3] if len(tokens) > 3 else b""
    if tokens[0] == b"put" and length.isascii() and length.isdigit():
        tokens[3] = length if int(length) < 1 << 24 else b"%d" % (1 << 24)
        body = body[: int(length)]
    return b" ".join(tokens) + b"\r\n" + body
