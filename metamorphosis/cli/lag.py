"""
``metaq lag``: the unread bytes and messages of groups in each partition.

Bytes are exact. A broker does not know the number of messages between two offsets: they are counted
in the next 256 KiB, and the rest is estimated from them.
"""

from __future__ import annotations

import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console, Interrupted
from metamorphosis.cli.offsets import Positions, Row
from metamorphosis.cli.table import table
from metamorphosis.client.model import Partition
from metamorphosis.errors import MetaQError
from metamorphosis.message import HEADER, HEADER_BYTES

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

HEAD = ("GROUP", "TOPIC", "PARTITION", "BYTES", "MESSAGES", "COMMITTED", "OWNER", "STATE")

SAMPLE_BYTES = 256 << 10
"""Bytes read from each partition with unread messages."""


class Lag(NamedTuple):
    """
    A group in a partition.

    :ivar bytes: unread bytes; None: unknown.
    :ivar messages: unread messages; None: unknown, for example if the next one is longer than the
        sample, or damaged.
    :ivar exact: ``messages`` were counted to the end, not estimated.
    :ivar committed: the time of the last commit, ISO 8601 in UTC; None: never, or the position is
        not in ZooKeeper.
    """

    group: str
    topic: str
    partition: str
    bytes: int | None
    messages: int | None
    exact: bool
    committed: str | None
    owner: str | None
    state: tuple[str, ...]

    def cells(self) -> tuple[object, ...]:
        """For a table."""
        shown: object = self.messages
        if self.messages is not None and not self.exact:
            shown = f"~{self.messages}"
        place = self.group, self.topic, self.partition, self.bytes
        return (*place, shown, self.committed, self.owner, ",".join(self.state) or "ok")


async def lag(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Show the lag, once or repeatedly.

    :raises MetaQError: a request failed, or a lag is above its limit.
    """
    while True:
        faults = await _look(session, console, options)
        if options.watch is None:
            break
        for fault in faults:
            console.complain(fault)
        await console.stopped.wait(options.watch)
        if console.stopped.is_set:
            raise Interrupted("interrupted")
    for fault in faults[1:]:
        console.complain(fault)
    if faults:
        raise MetaQError(faults[0])


async def _look(session: SessionFactory, console: Console, options: Namespace) -> list[str]:
    """Show the present lag; returns the faults, and the partitions above a limit."""
    positions = Positions(session)
    try:
        rows = await positions.rows(options.group, options.topic, options.partition)
        found = [await _lag(positions, row) for row in rows]
        faults = list(positions.faults)
        if not rows and not faults:
            faults.append(await positions.nothing(options.group))
    finally:
        await positions.close()
    if options.json:
        for each in found:
            await console.print(each._asdict(), True)
    elif found:
        head = f"{time.strftime('%H:%M:%S')}\n" if options.watch is not None else ""
        await console.print(head + table(HEAD, [each.cells() for each in found]), False)
    return faults + list(_too_much(found, options.max, options.max_messages))


async def _lag(positions: Positions, row: Row) -> Lag:
    stored = positions.committed(row)
    committed = None if stored is None else _utc(stored)
    messages, exact = await _messages(positions.cluster, row, positions.broker_of(row))
    place = row.group, row.topic, row.partition, row.lag
    return Lag(*place, messages, exact, committed, row.owner, row.state)


async def _messages(cluster: Cluster, row: Row, url: str | None) -> tuple[int | None, bool]:
    """The unread messages, and whether the number is exact."""
    if not row.lag or row.end is None or url is None:
        return row.lag, row.lag == 0
    begin = row.end - row.lag
    number = Partition.parse(row.partition).number
    size = min(SAMPLE_BYTES, row.lag)
    try:
        sample = await cluster.piece(url, row.topic, number, begin, size)
    except MetaQError as error:
        cluster.faults.append(f"group {row.group}, partition {row.partition}: {error}")
        return None, False
    count, read = count_records(sample[: row.lag])  # more may have been stored meanwhile
    if not count:
        return None, False
    return (count, True) if read >= row.lag else (round(count * row.lag / read), False)


def count_records(sample: bytes) -> tuple[int, int]:
    """The number of whole records at the beginning of these bytes, and their total length."""
    count = position = 0
    while position + HEADER_BYTES <= len(sample):
        length: int = HEADER.unpack_from(sample, position)[0]
        end = position + HEADER_BYTES + length
        if length < 0 or end > len(sample):
            break
        count, position = count + 1, end
    return count, position


def _too_much(found: list[Lag], most: int | None, most_messages: int | None) -> list[str]:
    texts = []
    for each in found:
        for value, limit, unit in (
            (each.bytes, most, "bytes"),
            (each.messages, most_messages, "messages"),
        ):
            if limit is not None and value is not None and value > limit:
                texts.append(
                    f"group {each.group}, topic {each.topic}, partition {each.partition}:"
                    f" {value} {unit} left, more than {limit}"
                )
    return texts


def _utc(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
