"""The output of ``metaq consume``, and its end."""

from __future__ import annotations

from argparse import Namespace

from metamorphosis.cli.console import Console, Interrupted, amount
from metamorphosis.cli.formats import Format, body_line, json_line, raw_body
from metamorphosis.client.delivery.subscription import Rollback
from metamorphosis.client.fetch.passing import PassedOverMessages
from metamorphosis.client.model import ReceivedMessage
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import MetaQError


class Output:
    """
    Writes messages until ``--max`` are written, or none has arrived for the time of ``--idle``.

    :ivar over: set at the end of the output.
    :ivar error: the fault that ended the output.
    """

    def __init__(self, console: Console, options: Namespace) -> None:
        self.count = 0
        self.size = 0
        self.error: MetaQError | None = None
        self.over = Event(console.runtime)
        self._console = console
        self._runtime = console.runtime
        self._most: int | None = options.max
        self._idle: float | None = options.idle
        self._bytes_of = _format(options)
        self._taken = 0
        self._began = self._latest = self._runtime.seconds()

    async def take(self, messages: list[ReceivedMessage]) -> None:
        """Write a batch of messages; a listener of batches."""
        wanted = messages
        if self._most is not None:
            wanted = messages[: self._most - self._taken]
        if self.error is not None or not wanted:
            raise Rollback(messages[0])
        self._taken += len(wanted)
        self._latest = self._runtime.seconds()
        data = b"".join(map(self._bytes_of, wanted))
        try:
            await self._console.write(data)
        except MetaQError as error:
            self.error = error
            self.over.set()
            raise Rollback(messages[0]) from error
        self._latest = self._runtime.seconds()
        self.count += len(wanted)
        self.size += len(data)
        if self.count == self._most:
            self.over.set()
        if len(wanted) < len(messages):
            raise Rollback(messages[len(wanted)])

    async def finish(self) -> None:
        """Wait until it is over."""
        while not self.over.is_set:
            left = None
            if self._idle is not None:
                left = self._latest + self._idle - self._runtime.seconds()
                if left <= 0:
                    return
            await self.over.wait(left)

    @property
    def is_idle(self) -> bool:
        """Whether no message has arrived for the time of ``--idle``."""
        silence = self._runtime.seconds() - self._latest
        return self._idle is not None and silence >= self._idle

    def end(self, remarks: str) -> None:
        """
        The last line, and the end of the command.

        :param remarks: further text about the messages, with a comma before it.
        :raises Interrupted: a signal has ended it.
        :raises MetaQError: the output failed, or there are remarks.
        """
        self._console.clear_progress(self.amount)
        if self.error is not None:
            raise self.error
        outcome = f"{self.count} consumed{remarks}"
        if self._console.stopped.is_set:
            raise Interrupted(f"interrupted; {outcome}")
        if remarks:
            raise MetaQError(outcome)

    def show(self) -> None:
        """Show the progress."""
        self._console.progress(self.amount)

    @property
    def amount(self) -> str:
        """The text about written messages."""
        return amount(self.count, self.size, self._runtime.seconds() - self._began)


def _format(options: Namespace) -> Format:
    if options.format is not None:
        chosen: Format = options.format
        return chosen
    if options.json:
        return json_line
    return raw_body if options.raw else body_line


def passed_over_text(messages: PassedOverMessages) -> str:
    """The text about messages that could not be read."""
    reasons = []
    if messages.damaged:
        reasons.append(f"{messages.damaged} passed over because they are damaged")
    if messages.too_long:
        reasons.append(
            f"{messages.too_long} passed over because they are too long: --max-body-bytes takes"
            " longer ones"
        )
    return "".join(f", {each}" for each in reasons)
