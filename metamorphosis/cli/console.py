"""
The terminal of a command of ``metaq``: input that does not block the loop, output that waits for
its reader, progress on a terminal, an end by signal.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TextIO

from metamorphosis.client.network.flow import Event
from metamorphosis.errors import MetaQError
from metamorphosis.interfaces import IRuntime, IWorkerThreads, Timer
from metamorphosis.terminal import encoded, shows_everything

CHUNK = 64 * 1024
"""Bytes read at a time."""

LONGEST_LINE = 64 << 20
"""Longest line of the input: a broker's default limit of a message."""

PROGRESS_SECONDS = 0.5


class UsageError(MetaQError):
    """The command line is contradictory."""


class OutputClosed(MetaQError):
    """The reader of our output has closed it."""


class Interrupted(MetaQError):
    """Ctrl-C, or another signal that asks for the end."""


class Console:
    """
    Standard input, output and error of one command. Thread: the loop's.

    :ivar stopped: set by a signal; every other wait ends with it.
    :ivar interactive: standard error is a terminal.
    :param read: blocks; returns the next bytes of the input, empty at its end. Thread: worker.
    :param write: blocks until the bytes are written. Thread: worker.
    """

    def __init__(
        self,
        runtime: IRuntime,
        read: Callable[[], bytes] | None = None,
        write: Callable[[bytes], None] | None = None,
        errors: TextIO | None = None,
        interactive: bool | None = None,
    ) -> None:
        self.runtime = runtime
        self.errors: TextIO = errors or sys.stderr or open(os.devnull, "w", encoding="utf-8")
        self.interactive = self.errors.isatty() if interactive is None else interactive
        self.stopped = Event(runtime)
        self.lines = Lines(self, _read_stdin if read is None else read)
        self._write = _write_stdout if write is None else write
        self._writer: IWorkerThreads | None = None
        self._listeners: list[Callable[[], object]] = []
        self._shown = 0

    def on_stop(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` at ``stop``."""
        self._listeners.append(listener)

    def stop(self) -> None:
        """Let the command finish its work and end."""
        self.stopped.set()
        self.lines.close()
        for listener in self._listeners:
            listener()

    def write(self, data: bytes) -> Awaitable[None]:
        """
        A future that fires when ``data`` are written; writes keep their order.

        :raises OutputClosed: the reader has closed the output.
        """
        api = self.runtime.api
        future: Awaitable[None] = api.create_future()
        if self._writer is None:
            self._writer = self.runtime.threads(1, "stdout")

        def written(_: object, error: BaseException | None) -> None:
            if error is None:
                api.resolve(future, None)
            elif isinstance(error, OSError):
                closed = error.errno in (errno.EPIPE, errno.ECONNRESET)
                what = (
                    "the output was closed by its reader" if closed else f"output: {error.strerror}"
                )
                api.reject(future, OutputClosed(what) if closed else MetaQError(what))
            else:
                api.reject(future, error)

        self._writer.submit(lambda: self._write(data), written)
        return future

    def print(self, value: object, as_json: bool) -> Awaitable[None]:
        """Write a value as one JSON line, or as text."""
        text = json_text(value) if as_json else str(value)
        return self.write(encoded(f"{text}\n"))

    # Lines for standard error

    def complain(self, text: object) -> None:
        """Write one line about a fault."""
        self.clear_progress()
        self._say(f"metaq: {' '.join(str(text).split())}\n")

    def progress(self, text: str) -> None:
        """Show the progress in place of the last one; on a terminal only."""
        if self.interactive:
            self._say(f"\r{text}{' ' * (self._shown - len(text))}")
            self._shown = len(text)

    def clear_progress(self, last: str = "") -> None:
        """Remove the line of progress; ``last`` stays."""
        if self.interactive and (self._shown or last):
            self.progress(last)
            self._say("\n" if last else "\r")
            self._shown = 0

    def _say(self, text: str) -> None:
        try:
            self.errors.write(text)
            self.errors.flush()
        except OSError:
            self.interactive = False  # standard error is closed


class Lines:
    """The lines of the input; a worker reads one chunk ahead."""

    def __init__(self, console: Console, read: Callable[[], bytes]) -> None:
        self._console = console
        self._read = read
        self._threads: IWorkerThreads | None = None
        self._news = Event(console.runtime)
        self._chunk: bytes | None = None
        self._error: BaseException | None = None
        self._rest = bytearray()
        self._ended = False

    def close(self) -> None:
        """End the input."""
        self._ended = True
        self._news.pulse()

    async def next(self) -> Sequence[bytes]:
        """
        The lines that are complete with the next chunk, without their ends; empty at the end of
        the input, or after ``close``.

        :raises OSError: the input cannot be read.
        :raises UsageError: a line is too long.
        """
        while not self._ended:
            chunk = await self._next_chunk()
            if chunk is None:
                break
            *lines, rest = chunk.split(b"\n")
            if not chunk:
                self._ended = True
                return [bytes(self._rest)] if self._rest else ()
            if lines:
                lines[0] = bytes(self._rest) + lines[0]
                self._rest.clear()
            self._rest += rest
            if len(self._rest) > LONGEST_LINE:
                raise UsageError(f"a line of the input is longer than {LONGEST_LINE} bytes")
            if lines:
                return lines
        return ()

    async def _next_chunk(self) -> bytes | None:
        if self._threads is None:
            # Never stopped: its thread may wait for a terminal without end.
            self._threads = self._console.runtime.threads(1, "stdin")
            self._threads.submit(self._read, self._arrived)
        while self._chunk is None and self._error is None:
            if self._ended:
                return None
            await self._news.wait()
        if self._error is not None:
            raise self._error
        chunk, self._chunk = self._chunk, None
        if chunk:
            self._threads.submit(self._read, self._arrived)
        return chunk

    def _arrived(self, chunk: bytes | None, error: BaseException | None) -> None:
        self._chunk, self._error = chunk, error
        self._news.pulse()


class Ticker:
    """Calls a function twice a second, on a terminal."""

    def __init__(self, console: Console, show: Callable[[], None]) -> None:
        self._console = console
        self._show = show
        self._timer: Timer | None = None
        if console.interactive:
            self._tick()

    def _tick(self) -> None:
        self._show()
        self._timer = self._console.runtime.call_later(PROGRESS_SECONDS, self._tick)

    def stop(self) -> None:
        """End the calls."""
        if self._timer is not None:
            self._timer.cancel()


def json_text(value: object) -> str:
    """A value as one line of JSON that the terminal can show."""
    text = json.dumps(value, ensure_ascii=not shows_everything())
    return text.encode("utf-8", "replace").decode("utf-8")


def amount(count: int, size: int, seconds: float) -> str:
    """The text about an amount: messages, bytes, and a rate."""
    rate = f", {count / seconds:,.0f}/s" if seconds > 0 else ""
    return f"{count:,} message{'' if count == 1 else 's'}, {size / 1e6:,.1f} MB{rate}"


def _read_stdin() -> bytes:
    return os.read(0, CHUNK)


def _write_stdout(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
