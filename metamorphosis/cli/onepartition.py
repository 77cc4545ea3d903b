"""
``metaq consume --partition``: reads the messages of one partition without a group. No position is
stored: the last line of standard error has the next offset after a failure.
"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from metamorphosis.cli.arguments import Start, StartKind
from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console, Ticker, UsageError
from metamorphosis.cli.output import Output, passed_over_text
from metamorphosis.cli.produce import chosen_partition
from metamorphosis.client.consumer.reading import TopicReader
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.fetch.passing import PassesOver
from metamorphosis.client.fetch.reader import PartitionReader
from metamorphosis.client.fetch.timesearch import TimeSearch
from metamorphosis.errors import MetaQError, Moved, NotFound

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory
    from metamorphosis.client.fetch.records import FetchedRecords

FETCH_BYTES = 1 << 20
STRETCH = 1024
"""Messages written at a time."""
PAUSE_SECONDS = 0.2
"""Pause at the end of the log before the next request."""


async def read_partition(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Write messages until the requested end.

    :raises Interrupted: a signal has ended it.
    :raises MetaQError: it cannot continue; the text has the next offset.
    """
    cluster = Cluster(session)
    await cluster.has(options.topic)
    partition = await chosen_partition(session, options.topic, options.partition)
    output = Output(console, options)
    console.on_stop(output.over.set)
    topic = TopicReader(session, options.topic)
    ticker = Ticker(console, output.show)
    try:
        seconds = session.config.publish_connect_timeout_ms / 1000
        reader = await topic.partition(partition, seconds)
        search = await topic.time_search(partition, seconds)
        offset = await first_offset(reader, search, options.start)
        if options.start.kind is StartKind.OFFSET:
            await _check_offset(cluster, reader, offset)
        reading = Reading(session, reader, output)
        await reading.run(offset)
    finally:
        ticker.stop()
        topic.close()
    output.end(passed_over_text(reading.passed_over))


async def first_offset(reader: PartitionReader, search: TimeSearch, start: Start) -> int:
    """
    The first offset to read.

    :raises InvalidArgument: ``start`` is a time, and the messages are a Java broker's.
    """
    if start.kind is StartKind.OFFSET:
        return start.value
    try:
        if start.kind is StartKind.LATEST:
            return await reader.max_offset()
        if start.kind in (StartKind.TIME, StartKind.AGE):
            return await search.find(start.milliseconds(time.time()))
        return await reader.min_offset()
    except NotFound:  # it has no message yet
        return 0


async def _check_offset(cluster: Cluster, reader: PartitionReader, offset: int) -> None:
    """
    Check an offset given by the user.

    :raises UsageError: no message begins there.
    """
    partition = reader.partition
    try:
        low, high = await reader.min_offset(), await reader.max_offset()
    except NotFound:
        low = high = 0
    if not low <= offset <= high:
        raise UsageError(f"--from {offset}: partition {partition} goes from {low} to {high}")
    url = (await cluster.brokers()).get(partition.broker_id)
    if offset == high or url is None:
        return
    if not await cluster.message_begins(url, reader.topic, partition.number, offset, high):
        raise UsageError(f"--from {offset}: no message begins there in partition {partition}")


class Reading(PassesOver):
    """Reads one partition until the output has enough. Thread: the loop's."""

    def __init__(self, session: SessionFactory, reader: PartitionReader, output: Output) -> None:
        super().__init__(session.runtime, session.log)
        self._reader = reader
        self._output = output

    async def run(self, offset: int) -> None:
        """
        Read and write messages.

        :param offset: of the first message.
        :raises MetaQError: it cannot continue.
        """
        while not self._output.over.is_set and not self._output.is_idle:
            try:
                records = await self._records(offset)
                following = offset if records is None else await self._write(records)
            except MetaQError as error:
                done = f"{self._output.count} consumed, --from {offset} goes on"
                raise MetaQError(f"{error}; {done}") from error
            if following == offset:
                await self._output.over.wait(PAUSE_SECONDS)
            offset = following

    async def _records(self, offset: int) -> FetchedRecords | None:
        """The records at an offset, or after messages removed by retention or a filter."""
        while True:
            try:
                return await self._reader.records(offset, FETCH_BYTES)
            except Moved as moved:
                target = int(str(moved))
                if target <= offset:
                    return None
                offset = target

    async def _write(self, records: FetchedRecords) -> int:
        """Write messages; returns the offset after the last one that was written or skipped."""
        while messages := records.read(STRETCH):
            try:
                await self._output.take(messages)
            except Rollback as rest:
                return rest.message.offset if rest.message is not None else messages[0].offset
        if records.damage is None:
            return records.next_offset
        passed = await self._reader.pass_over(records)
        self.passed_over(passed)
        return passed.next_offset
