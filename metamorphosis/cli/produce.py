"""
``metaq produce``: each line of the input, or one file, becomes a message.

Many sends are pending at a time; messages of one partition are stored in the order of the lines.
After the first failure no further message is sent: the sent messages are then the first lines of
the input, apart from those that were pending at the failure. With transactions they are the first
lines without exception.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console, Interrupted, Ticker, UsageError, amount
from metamorphosis.cli.reachable import check_writable
from metamorphosis.client.model import Partition
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import CommitUnknown, MetaQError

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory
    from metamorphosis.client.producer.producer import Producer
    from metamorphosis.client.transactions.local import Transaction
    from metamorphosis.interfaces import Failed

IN_FLIGHT = 1000
"""Pending messages at a time."""

BYTES_IN_FLIGHT = 8 << 20


async def chosen_partition(session: SessionFactory, topic: str, text: str) -> Partition:
    """
    The partition of ``--partition``.

    :param text: ``<brokerId>-<number>``; or a number alone, with a single broker.
    :raises UsageError: the partition does not exist.
    """
    broker_id, hyphen, number = text.rpartition("-")
    if not number.isdecimal() or (hyphen and not broker_id.isdecimal()):
        raise UsageError(f"--partition {text}: <brokerId>-<number> expected, as in 0-3")
    if session.registry is None:
        return Partition(int(broker_id or 0), int(number))
    there = await session.get_partitions_for_topic(topic)
    found = [
        each
        for each in there
        if each.number == int(number) and (not hyphen or each.broker_id == int(broker_id))
    ]
    if len(found) == 1:
        return found[0]
    fault = "is on several brokers" if found else "does not exist"
    names = ", ".join(map(str, there)) or "none"
    raise UsageError(f"--partition {text}: it {fault}; partitions of {topic}: {names}")


class Sending:
    """The sends of one run. Thread: the loop's."""

    def __init__(
        self, console: Console, producer: Producer, partition: Partition | None, options: Namespace
    ) -> None:
        self.sent = 0
        self.failed = 0
        self.error: BaseException | None = None
        self._console = console
        self._runtime = console.runtime
        self._sender: Producer | Transaction = producer
        self._partition = partition
        self._topic: str = options.topic
        self._attribute: str | None = options.attribute
        self._key: str | bytes | None = options.key
        self._separator = encoded_argument(options.key_separator)
        self._interval = 1 / options.rate if options.rate else 0.0
        self._began = self._runtime.seconds()
        self._taken = 0  # messages whose send was begun
        self._bytes_sent = 0
        self._flying = 0
        self._flying_bytes = 0
        self._room = Event(self._runtime)

    @property
    def over(self) -> bool:
        """Whether no more messages are to be sent."""
        return self.error is not None or self._console.stopped.is_set

    async def send(self, body: bytes) -> None:
        """Begin one send, as rate and limits allow."""
        while self._flying >= IN_FLIGHT or self._flying_bytes >= BYTES_IN_FLIGHT:
            await self._room.wait()
        if self._interval:
            due = self._began + self._taken * self._interval
            delay = due - self._runtime.seconds()
            if delay > 0:
                await self._console.stopped.wait(delay)
        if self.over:
            return
        self._taken += 1
        line = self._taken
        try:
            key, body = self._parted(body)
        except UsageError as error:
            self._failure(line, error)
            return
        size = len(body)
        future = self._sender.send(
            self._topic, body, self._attribute, key=key, partition=self._partition
        )
        self._flying += 1
        self._flying_bytes += size

        def stored(_: object) -> None:
            self._stored(size)
            self._landed(size)

        def refused(failure: Failed) -> None:
            self._failure(line, failure.value)
            self._landed(size)

        self._runtime.api.add_callbacks(future, stored, refused)

    def _parted(self, line: bytes) -> tuple[str | bytes | None, bytes]:
        """
        Key and body of a line.

        :raises UsageError: the line has no key.
        """
        if not self._separator:
            return self._key, line
        key, found, body = line.partition(self._separator)
        if not found:
            text = self._separator.decode("utf-8", "replace")
            raise UsageError(f"there is no {text!r} after a key")
        return key, body

    async def finish(self) -> None:
        """Wait for pending sends; each has its own time limit."""
        while self._flying:
            await self._room.wait()

    def _stored(self, size: int) -> None:
        self.sent += 1
        self._bytes_sent += size

    def _landed(self, size: int) -> None:
        self._flying -= 1
        self._flying_bytes -= size
        self._room.pulse()

    def _failure(self, line: int, error: BaseException) -> None:
        self.failed += 1
        if self.error is None:
            self.error = error
            self.line = line
            self._console.stopped.pulse()
            self._console.lines.close()

    def fault(self, file: str | None) -> str:
        """The text about messages that were not sent, with the number of sent ones."""
        what = f"line {self.line}" if file is None else file
        more = f" and {self.failed - 1} more" if self.failed > 1 else ""
        return f"{what}{more} not sent, {self.sent} sent"

    def show(self) -> None:
        """Show the progress."""
        self._console.progress(self.amount)

    @property
    def amount(self) -> str:
        """The text about sent messages."""
        return amount(self.sent, self._bytes_sent, self._runtime.seconds() - self._began)


class SendingInTransactions(Sending):
    """
    Every N messages are one transaction, and the rest at the end. Each is begun and committed after
    the previous one, so that the stored messages are always the first lines of the input.
    """

    def __init__(
        self, console: Console, producer: Producer, partition: Partition | None, options: Namespace
    ) -> None:
        super().__init__(console, producer, partition, options)
        self._producer = producer
        self._most: int = options.transaction
        self._transaction: Any = None
        self._in_it = 0  # messages
        self._size = 0  # of those that the broker has accepted
        self._unknown = False  # the outcome of the last one is unknown

    async def send(self, body: bytes) -> None:
        """Send a message, and commit after every N."""
        if self._transaction is None:
            self._transaction = self._sender = self._producer.transaction()
        taken = self._taken
        await super().send(body)
        self._in_it += self._taken - taken
        if self._in_it == self._most:
            await self._commit()

    async def finish(self) -> None:
        """Commit the rest; after an interrupt or a failure roll it back."""
        await super().finish()
        if self._transaction is not None and not self.over:
            await self._commit()
        elif self._transaction is not None:
            await self._transaction.close()

    def fault(self, file: str | None) -> str:
        """The text about the failed transaction, with the number of committed messages."""
        fate = "may be stored or not" if self._unknown else "not stored"
        what = f"lines {self.sent + 1} to {self._taken}" if file is None else file
        return f"{what} {fate}, {self.sent} stored"

    def _stored(self, size: int) -> None:
        self._size += size

    async def _commit(self) -> None:
        try:
            await self._transaction.commit()
        except MetaQError as error:
            self._unknown = isinstance(error, CommitUnknown)
            if self.error is None or self._unknown:
                self._failure(self._taken, error)
        else:
            self.sent += self._in_it
            self._bytes_sent += self._size
        self._transaction = None
        self._in_it = self._size = 0


async def produce(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Send all messages.

    :raises MetaQError: some were not sent; the text has the number of sent ones.
    """
    whole = None if options.file is None else read_file(options.file)
    cluster, partition = Cluster(session), None
    if session.registry is not None:  # in direct mode the broker itself refuses an unknown topic
        await cluster.has(options.topic)
    if options.partition is not None:
        partition = await chosen_partition(session, options.topic, options.partition)
    if session.registry is not None:
        await check_writable(session, cluster, options.topic, partition)
    producer = await session.create_producer(options.topic, in_order=not options.unordered)
    kind = Sending
    if options.transaction is not None:
        if partition is None and session.registry is None:
            raise UsageError(
                "--transaction with --broker needs --partition: a broker does not"
                " choose it within a transaction"
            )
        kind = SendingInTransactions
    sending = kind(console, producer, partition, options)
    ticker = Ticker(console, sending.show)
    try:
        async for body in bodies(console, sending, whole):
            await sending.send(body)
        await sending.finish()
    finally:
        ticker.stop()
    console.clear_progress(sending.amount)
    if sending.error is not None:
        raise MetaQError(f"{sending.fault(options.file)}: {sending.error}")
    if console.stopped.is_set:
        raise Interrupted(f"interrupted; {sending.sent} sent")


def encoded_argument(text: str | None) -> bytes:
    """The bytes of an argument."""
    return b"" if text is None else text.encode("utf-8", "surrogateescape")


async def bodies(console: Console, sending: Sending, whole: bytes | None) -> AsyncIterator[bytes]:
    """The messages to send, until an error ends the command."""
    if whole is not None:
        yield whole
        return
    while not sending.over:
        lines = await console.lines.next()
        if not lines:
            return
        for line in lines:
            if sending.over:
                return
            yield line


def read_file(path: str) -> bytes:
    """
    The content of a file.

    :raises UsageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"--file {path}: {error.strerror}") from None
