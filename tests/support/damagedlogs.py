"""
Randomly damaged logs, and the messages that each kind of consumer has to deliver from them: every
message that is whole and not too long, once, in order, and no message that was never sent.

``python -m tests.support.damagedlogs SECONDS [SEED]`` tries one after the other for so long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, NamedTuple

from metamorphosis.client.consumer.browser import TopicBrowser
from metamorphosis.client.factory import SessionFactory
from metamorphosis.client.fetch.boundaries import ID_SPAN
from metamorphosis.client.model import Partition, PassedOver, ReceivedMessage
from metamorphosis.client.settings import ClientConfig
from metamorphosis.message import HEADER, HEADER_BYTES, checksum, encode_record
from metamorphosis.testing.runtime import MemoryRuntime
from tests.support.memorybroker import Log, MemoryBroker

KINDS = ("listener", "batch", "manual", "iteration", "browser")
FIRST_ID = 1 << 60
PARTITION = Partition(0, 0)


class Delivered(NamedTuple):
    """A message as received by a consumer."""

    offset: int
    id: int
    flag: int
    body: bytes


class NothingRejected:
    """Replaces the recovery of rejected messages, and their files."""

    def listen(self, topic: str, group: str, take: object) -> None:
        """No message is delivered."""

    async def forget(self, topic: str, group: str, limit: object) -> None:
        """No message is kept."""

    async def close(self) -> None:
        """No file is open."""


class Reading:
    """
    One consumer and its results for one log.

    :ivar got: the delivered messages.
    :ivar passed: the skipped messages.
    :ivar position: its last position.
    :ivar gets: its requests to the broker, gets and offsets.
    :ivar log: its lines.
    """

    def __init__(
        self,
        kind: str,
        log: Log,
        max_size: int,
        max_body: int,
        limit: int = 1 << 20,
        grow: Callable[[], None] | None = None,
    ) -> None:
        self.got: list[Delivered] = []
        self.passed: list[PassedOver] = []
        self.position = -1
        self._log = log
        self._runtime = MemoryRuntime()
        self._broker = MemoryBroker(self._runtime, limit=limit)
        self._broker.logs["t", 0] = log
        self._session = SessionFactory(
            self._runtime,
            ClientConfig(broker="b:1", max_body_bytes=max_body, heartbeat_idle_ms=10**9),
        )
        self._session._recovery = NothingRejected()  # type: ignore[assignment]
        if kind == "browser":
            self._browse(max_size)
            if grow is not None:
                grow()
                self.got.clear()
                self.passed.clear()
                self._browse(max_size)
        else:
            self._consume(kind, max_size, grow)
        closing = self._session.close()
        self._broker.serve()
        self._runtime.result(closing)
        self.asked = self._broker.asked
        self.log = self._runtime.log

    def _take(self, message: ReceivedMessage) -> None:
        assert message.partition == PARTITION
        self.got.append(Delivered(message.offset, message.id, message.flag, message.body))

    def _browse(self, max_size: int) -> None:
        browser = TopicBrowser(self._session, "t", max_size)
        browser.on_passed_over(self.passed.append)

        async def browse() -> None:
            async for message in browser:
                self._take(message)

        future = self._runtime.start(browse())
        self._broker.serve()
        self._runtime.result(future)
        self._runtime.result(browser.close())

    def _consume(self, kind: str, max_size: int, grow: Callable[[], None] | None) -> None:
        consumer = self._session.create_consumer("g", long_poll_ms=0, max_delay_fetch_time_ms=1000)
        consumer.on_passed_over(self.passed.append)

        def one(message: ReceivedMessage) -> None:
            self._take(message)

        def batch(messages: list[ReceivedMessage]) -> None:
            for message in messages:
                self._take(message)

        def manual(message: ReceivedMessage) -> None:
            self._take(message)
            consumer.ack(message)

        listener: Any = {"listener": one, "batch": batch, "manual": manual, "iteration": None}[kind]
        consumer.subscribe(
            "t", max_size, listener, batch=kind == "batch", auto_ack=kind != "manual"
        )
        started = consumer.complete_subscribe()
        self._broker.serve()
        self._runtime.result(started)
        if kind == "iteration":

            async def iterate() -> None:
                async for message in consumer:
                    self._take(message)

            self._runtime.start(iterate())
        self._let_read(consumer)
        if grow is not None:
            grow()
            self._let_read(consumer)
        self.position = consumer.assignment["t", PARTITION].offset
        closing = consumer.close()
        self._broker.serve()
        self._runtime.result(closing)

    def _let_read(self, consumer: Any) -> None:
        """Let the consumer read until its position has not changed for a long time."""
        still, before = 0, None
        while still < 14:
            self._broker.serve()
            now = len(self.got), len(self.passed), consumer.assignment["t", PARTITION].offset
            still = 0 if now != before else still + 1
            if now[2] == self._log.end and still:
                return
            before = now
            self._runtime.advance(1.1)


class Stored(NamedTuple):
    """
    A record as it was put.

    :ivar inside: its body contains other records.
    """

    offset: int
    id: int
    flag: int
    body: bytes
    inside: bool = False

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.offset + HEADER_BYTES + len(self.body)


class DamagedLog:
    """
    A log with its damages.

    :ivar log: in its present state at the broker.
    :ivar records: as they were put.
    :ivar torn: the last record is incomplete.
    :ivar story: the steps, to analyse a fault.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.story: list[str] = []
        self.log = Log(chance.choice((0, 0, 777)))
        self.records: list[Stored] = []
        self.max_body = chance.choice((60, 300, 3000))
        self.max_size = chance.choice((64, self.max_body, 1000, 1 << 16))
        self.limit = chance.choice((100, 700, 1 << 20))
        self._aligned = chance.random() < 0.3
        self.torn = False
        for _ in range(chance.randrange(1, 25)):
            self.append()
        self.data = bytearray(self.log.data)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
            self._damage()
        if chance.random() < 0.1:
            self._tear()
        self.log.data = bytes(self.data)

    @property
    def longest(self) -> int:
        """The longest body that is accepted."""
        return max(self.max_body, self.max_size)

    def append(self) -> None:
        """Append a message, and sometimes begin a new segment."""
        chance, log = self.chance, self.log
        if self.records and chance.random() < 0.1:
            log.roll()
        inside = False
        if self._aligned:
            body = chance.randbytes(chance.choice((12, 44, 44, 108)))
        elif chance.random() < 0.15:
            body = b""
        elif chance.random() < 0.1:
            body = chance.randbytes(self.longest + chance.choice((1, 50, 2000)))
        elif chance.random() < 0.05:
            inside = True
            body = b"".join(
                encode_record(n, 0, chance.randbytes(chance.randrange(1, 30))) for n in range(3)
            ) + b"\xff" * chance.randrange(1, 30)
        elif chance.random() < 0.1:
            body = bytes(chance.randrange(1, 50))
        else:
            body = chance.randbytes(chance.choice((1, 5, 20, 100, self.longest)))
        number = FIRST_ID + len(self.records)
        flag = chance.choice((0, 0, 0, 1))
        self.records.append(Stored(log.end, number, flag, body, inside))
        log.data += encode_record(number, flag, body)

    # -- damages

    def _damage(self) -> None:
        chance = self.chance
        stored = chance.choice(self.records)
        start = stored.offset - self.log.start
        harm = chance.choice(
            (self._bit, self._bit, self._length, self._hole, self._smash, self._field)
        )
        self.story.append(f"{harm.__name__[1:]} in {stored.offset}")
        harm(start, stored.end - stored.offset)

    def _bit(self, start: int, size: int) -> None:
        place = start + self.chance.choice((self.chance.randrange(8), self.chance.randrange(size)))
        self.data[place] ^= 1 << self.chance.randrange(8)

    def _length(self, start: int, size: int) -> None:
        """Change its length, possibly so that it ends where another message begins."""
        chance = self.chance
        other = chance.choice(self.records)
        here = start + self.log.start
        claimed = chance.choice(
            (
                other.offset - here - HEADER_BYTES,
                other.end - here - HEADER_BYTES,
                chance.randrange(-10, 5000),
                chance.choice((-1, 1 << 20, 1 << 27, (1 << 31) - 1, -(1 << 31))),
            )
        )
        self.data[start : start + 4] = (claimed & 0xFFFFFFFF).to_bytes(4, "big")

    def _hole(self, start: int, size: int) -> None:
        begin = start + self.chance.choice((0, self.chance.randrange(size)))
        end = min(begin + self.chance.choice((4, 20, size, 300)), len(self.data))
        self.data[begin:end] = bytes(end - begin)

    def _smash(self, start: int, size: int) -> None:
        begin = start + self.chance.randrange(size)
        for place in range(begin, min(begin + self.chance.choice((1, 4, 40)), len(self.data))):
            self.data[place] ^= self.chance.randrange(1, 256)

    def _field(self, start: int, size: int) -> None:
        field = self.chance.choice(((0, 4), (4, 8), (8, 16), (16, 20)))
        for place in range(*field):
            self.data[start + place] = self.chance.randrange(256)

    def _tear(self) -> None:
        last = self.records[-1]
        del self.data[
            last.offset - self.log.start + self.chance.randrange(1, last.end - last.offset) :
        ]
        self.torn = True
        self.story.append("torn")

    # -- expected results

    def _now(self, stored: Stored) -> tuple[int, int, int, int, bytes]:
        """The present bytes of a record."""
        start = stored.offset - self.log.start
        piece = bytes(self.data[start : stored.end - self.log.start])
        return (
            *HEADER.unpack(piece[:HEADER_BYTES].ljust(HEADER_BYTES, b"?")),
            piece[HEADER_BYTES:],
        )

    def harmed(self, stored: Stored) -> int:
        """The number of wrong ones of length, checksum and body, and whether the header is gone."""
        length, check, number, flag, body = self._now(stored)
        wrong = (
            length != len(stored.body),
            check != checksum(stored.body),
            body != stored.body,
            not (length or check or number or flag),
        )
        torn = stored.end - self.log.start > len(self.data)
        if not stored.body:  # its checksum is no better than zeros
            return max(2 * any(wrong), torn)
        return max(sum(wrong), torn)

    def is_readable(self, stored: Stored) -> bool:
        """Whether a record has to be delivered."""
        return not self.harmed(stored) and len(stored.body) <= self.longest

    def faults(self, reading: Reading) -> list[str]:
        """The differences between delivered and expected messages."""
        found = []
        places = {each.offset: each for each in self.records}
        offsets = [each.offset for each in reading.got]
        if sorted(set(offsets)) != offsets:
            found.append(f"out of order, or twice: {offsets}")
        for each in reading.got:
            stored = places.get(each.offset)
            if stored is not None and self.is_readable(stored):
                _, _, number, flag, _ = self._now(stored)
                if each != (stored.offset, number, flag, stored.body):
                    found.append(f"{each} is not {stored}")
            elif not self._may_come(each):
                found.append(f"{each} was never sent")
        for stored in self.records:
            if self.is_readable(stored) and stored.offset not in set(offsets):
                if not self._may_be_missed(stored):
                    found.append(f"{stored} is missing")
        if reading.position != -1 and not self._may_stand(reading.position):
            found.append(f"it stands at {reading.position}, not at {self.log.end}")
        return found

    def _may_stand(self, position: int) -> bool:
        """
        At the end, or where nothing readable is left and something may be that is not there as a
        whole yet.
        """
        left = [each for each in self.records if each.offset >= position and each.body]
        return position == self.log.end or not any(map(self.is_readable, left))

    def _may_come(self, message: Delivered) -> bool:
        """
        Zeros that look like an empty message; and messages that were sent inside of another one, if
        the log has more than one fault, or a fault in one that is too long.
        """
        if not message.body:
            return True
        stored = max(each for each in self.records if each.offset <= message.offset)
        faults = sum(map(self._is_wrong, self.records))
        too_long = bool(self.harmed(stored)) and len(stored.body) > self.longest
        return stored.inside and (faults + too_long > 1 or self.torn)

    def _may_be_missed(self, stored: Stored) -> bool:
        """
        An empty message between two that cannot be read, or one behind such a message, if its id or
        the next one is wrong, or it is the last of its segment; and what a message with two faults
        claims to hold.
        """
        index = self.records.index(stored)
        border = self.log.segment_end(stored.offset)
        if not stored.body:
            solid = [each for each in self.records if each.body or self.harmed(each)]
            before = [each for each in solid if each.offset < stored.offset][-1:]
            behind = [each for each in solid if stored.offset < each.offset < border][:1]
            alone = not behind or not self.is_readable(behind[0])
            if before and not self.is_readable(before[0]):
                near = [each for each in self.records if stored.offset <= each.offset < border]
                if alone or any(self._now(each)[2] != each.id for each in near):
                    return True
        return any(self._claims(each, stored, border) for each in self.records[:index])

    def _claims(self, harmed: Stored, stored: Stored, border: int) -> bool:
        """
        Whether a message with two faults claims to hold another one and to end exactly where a
        third one begins, or the segment ends, and no id tells that this is wrong: either of the two
        is wrong, and still they fit together; or those of all readable ones in between are.
        """
        length, _, own = self._now(harmed)[:3]
        claimed = harmed.offset + HEADER_BYTES + length
        if claimed < stored.end or (self.harmed(harmed) < 2 and not self._hides_its_end(harmed)):
            return False
        held = [each for each in self.records if harmed.offset < each.offset < claimed]
        if all(self._now(each)[2] != each.id for each in held if self.is_readable(each)):
            return claimed == border or any(each.offset == claimed for each in self.records)
        if claimed == border:
            return own != harmed.id
        for each in self.records:
            following = self._now(each)[2]
            if each.offset == claimed and own < following < own + ID_SPAN:
                return own != harmed.id or following != each.id
        return False

    def _hides_its_end(self, harmed: Stored) -> bool:
        """
        Whether a message with a wrong length is longer than accepted, and the one behind it cannot
        be read either: nothing then shows that its checksum fits there.
        """
        behind = [each for each in self.records if each.offset == harmed.end]
        is_long = len(harmed.body) > self.longest and self._now(harmed)[0] != len(harmed.body)
        return is_long and bool(behind) and self.harmed(behind[0]) > 0

    def _is_wrong(self, stored: Stored) -> int:
        """``harmed``, and whether the id is another one, which no reader can see."""
        return self.harmed(stored) + (self._now(stored)[2] != stored.id)


def run(seed: int) -> list[str]:
    """The faults of one log and one kind of consumer."""
    chance = Random(seed)
    damaged = DamagedLog(chance)
    kind = KINDS[seed % len(KINDS)]
    reading = Reading(kind, damaged.log, damaged.max_size, damaged.max_body, damaged.limit)
    found = damaged.faults(reading)
    return [f"seed {seed}, {kind}, {damaged.story}: {each}" for each in found]


def main() -> None:
    """See the module."""
    seconds = float(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()) << 20
    end = time.monotonic() + seconds
    for seed in count(first):
        for fault in run(seed):
            print(fault, flush=True)
            raise SystemExit(1)
        if time.monotonic() > end:
            print(f"{seed - first + 1} damaged logs from seed {first} on, nothing found")
            return


if __name__ == "__main__":
    main()
