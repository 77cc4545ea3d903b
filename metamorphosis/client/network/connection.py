"""
One broker: requests leave together at the end of the turn, replies go to their waiters, one sweep
looks after the time limits and the heartbeat.

Source: ``RemotingClientWrapper``, gecko's ``DefaultConnection``.

Differs: a request whose bytes never left gets ``NOT_SENT`` when the connection breaks, and not the
504 of those under way: it can be repeated without doubt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from metamorphosis.client.network.flow import Event, Watchers, wait_unless_refused
from metamorphosis.client.network.heartbeat import Heartbeat
from metamorphosis.client.network.links import Link, Log, Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import LOST, NOT_SENT, TIMED_OUT, Reply, ReplyReader
from metamorphosis.client.settings import ClientConfig
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.interfaces import IRuntime
from metamorphosis.wire.commands import Request
from metamorphosis.wire.encoding import encode

SWEEP_SECONDS = 0.05
"""The shortest time between two sweeps: limits that differ by less are dealt with together."""

WRITE_BYTES = 1 << 14
"""So much is not kept until the end of the turn: the broker has something to do meanwhile. With 64
messages of 1 KiB under way a third more got through than with one write a turn."""

NEVER = float("inf")


class BrokerConnection:
    """
    The ``Receiver`` of one broker's link, for the life of all links to it. Thread: the loop's.

    :ivar url: ``meta://host:port``.
    :ivar is_connected: requests have somewhere to go.
    :ivar fault: why there is no connection; None while there is one, and before the first attempt
        has failed.
    :ivar writable: False while more than ``max_scheduled_written_bytes`` wait for the socket.
    :ivar changes: told whenever the connection has come or gone.
    :ivar answered: the present link, or the last one, brought a sensible reply.
    :ivar unknown_replies: replies nobody waited for, late ones among them.
    :ivar received_at: when the last bytes came, seconds.
    :ivar reading_paused: nothing is taken from the socket.
    :ivar garbage: links closed because no broker sends what came.
    """

    def __init__(
        self,
        runtime: IRuntime,
        url: str,
        config: ClientConfig,
        log: Log,
        lost: Callable[[BrokerConnection], None],
    ) -> None:
        """:param lost: called when a link has ended."""
        self.url = url
        self.is_connected = False
        self.fault: ConnectionFault | None = None
        self.writable = True
        self.answered = False
        self.unknown_replies = 0
        self.garbage = 0
        self._runtime = runtime
        self._log = log
        self._lost = lost
        self._config = config
        self._high_water = config.max_scheduled_written_bytes
        self._write_at = min(WRITE_BYTES, self._high_water)
        self._link: Link | None = None
        self._socket: Link | None = None  # the same, and until it is really closed
        self._closed = False
        self._idle: Callable[[], None] | None = None  # wants to know when nobody waits
        self._heartbeat = Heartbeat(self, config)
        self.changes = Watchers()
        self._up = Event(runtime)
        self._down = Event(runtime)
        self._down.set()
        self._drained = Event(runtime)
        self._reader = ReplyReader(config.max_reply_line_bytes, config.max_reply_bytes)
        self._waiting: dict[int, tuple[Waiter, float]] = {}  # opaque: waiter, deadline
        self._out: dict[int, bytes] = {}  # opaque: frame, of what has not been written
        self._queued = 0  # bytes in _out
        self._sending_paused = False
        self.reading_paused = False
        self._reading = False  # in data_received, which flushes at its end
        self._now = 0.0  # when the turn began
        self.received_at = 0.0
        self._wake_at = NEVER
        self._timer: Any = None

    # -- requests

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """
        Send a frame at the end of this turn, or when ``WRITE_BYTES`` have come together; ``waiter``
        gets the answer, or what became of it with the reason as body, later than this call returns.

        :param opaque: that of the frame, from ``next_opaque``.
        :param timeout: seconds.
        """
        out = self._out
        if not out or self._sending_paused:
            if self._link is None:
                self._runtime.call_soon(waiter, NOT_SENT, self._why())
                return
            self._now = self._runtime.seconds()
            if not self._reading and not out:
                self._runtime.call_soon(self._flush)
        deadline = self._now + timeout
        self._waiting[opaque] = waiter, deadline
        out[opaque] = frame
        self._queued += len(frame)
        if self._queued > self._write_at:
            self._flush()
            if self._queued > self._high_water:
                self.writable = False
        if deadline < self._wake_at:
            self.wake(deadline)

    def call(self, command: Request, timeout: float) -> Awaitable[tuple[int, bytes]]:
        """
        Send a command, whose opaque is replaced; the future of status and body never fails.

        :raises LocalProtocolError: a field holds what the wire cannot carry.
        """
        opaque = next_opaque()
        frame = encode(replace(command, opaque=opaque))  # type: ignore[arg-type]
        api = self._runtime.api
        future = api.create_future()

        def waiter(status: int, body: bytes) -> None:
            if not api.is_called(future):
                api.resolve(future, (status, body))

        self.request(opaque, frame, waiter, timeout)
        return future  # type: ignore[no-any-return]

    def ready(self, timeout: float) -> Awaitable[bool]:
        """Whether there is a connection within so many seconds."""
        return self._up.wait(timeout)

    async def reached(self, timeout: float, patience: float) -> bool:
        """The same, but only ``patience`` seconds if every attempt is refused."""
        return await wait_unless_refused(self._up, timeout, patience, lambda: self.fault)

    def drained(self) -> Awaitable[bool]:
        """Fires when the connection is ``writable``, or lost."""
        if self.writable:
            self._drained.set()
        else:
            self._drained.clear()
        return self._drained.wait()

    def pause_reading(self) -> None:
        """Take nothing from the socket; limits of requests under way go on."""
        self.reading_paused = True
        if self._link is not None:
            self._link.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self.reading_paused = False
        self.received_at = self._runtime.seconds()
        if self._link is not None:
            self._link.resume_reading()

    def _flush(self) -> None:
        """One write for the turn's requests."""
        out = self._out
        if not out or self._sending_paused or self._link is None:
            return
        frames = b"".join(out.values())
        out.clear()
        self._queued = 0
        self._link.write(frames)
        if not self.writable and not self._sending_paused:
            self._become_writable()

    def _become_writable(self) -> None:
        self.writable = True
        self._drained.pulse()

    # -- Receiver

    def connected(self, link: Link) -> None:
        """See ``Receiver``."""
        if self._closed:
            link.abort()
            return
        self._link = self._socket = link
        self._reader = ReplyReader(self._config.max_reply_line_bytes, self._config.max_reply_bytes)
        self.is_connected = True
        self.fault = None
        self.answered = False
        self._sending_paused = False
        self.received_at = self._runtime.seconds()
        if self.reading_paused:
            link.pause_reading()
        self._down.clear()
        self._heartbeat.begin()
        self._up.set()
        self.changes.tell()

    def room(self) -> memoryview | None:
        """See ``Receiver``."""
        return self._reader.room()

    def received(self, count: int) -> None:
        """See ``Receiver``."""
        if self._link is not None:
            self.received_at = self._now = self._runtime.seconds()
            self._handle(self._reader.received(count))

    def data_received(self, data: bytes) -> None:
        """See ``Receiver``."""
        if self._link is not None:
            self.received_at = self._now = self._runtime.seconds()
            self._handle(self._reader.receive(data))

    def _handle(self, replies: list[Reply]) -> None:
        """What came with one chunk; requests made meanwhile leave at its end."""
        if replies:
            self.answered = True
            self._reading = True
            try:
                self._answer(replies)
            finally:
                self._reading = False
        fault = self._reader.fault
        if fault is not None and self._link is not None:
            self.garbage += 1
            self._log.error("Broker {url}: {fault}; closing", url=self.url, fault=fault)
            self.fail(fault)
        elif self._out:
            self._flush()
        if self._idle is not None:
            self._tell_idle()

    def disconnected(self, reason: str) -> None:
        """See ``Receiver``."""
        self._socket = None
        self._down.set()
        if self._link is not None:
            self._end(reason)
        self._lost(self)

    def pause_sending(self) -> None:
        """See ``Receiver``."""
        self._sending_paused = True

    def resume_sending(self) -> None:
        """See ``Receiver``."""
        self._sending_paused = False
        self._flush()
        if not self._sending_paused and not self.writable:
            self._become_writable()

    def _answer(self, replies: list[Reply]) -> None:
        """Hand replies to their waiters; one that raises is logged and holds up no other."""
        pop = self._waiting.pop
        rest = iter(replies)
        while True:
            try:
                for status, body, opaque in rest:
                    found = pop(opaque, None)
                    if found is not None:
                        found[0](status, body)
                    elif self._link is not None:
                        self.unknown_replies += 1
                return
            except Exception:
                self._log.failure("The waiter of a reply of {url} failed", url=self.url)

    # -- end

    def on_idle(self, idle: Callable[[], None] | None) -> None:
        """
        Call ``idle`` as soon as every request has been answered, or given up for its time limit;
        None: not any more. It is called now if nothing is under way.
        """
        self._idle = idle
        if idle is not None:
            self._tell_idle()

    def _tell_idle(self) -> None:
        idle = self._idle
        if idle is not None and not self._waiting:
            self._idle = None
            idle()

    def close(self) -> None:
        """For good, as soon as what was requested has left; whoever waits gets ``LOST``."""
        self._closed = True
        self._up.abandon()
        link = self._link
        if link is not None:
            self._flush()
            link.close()
            self._end("closed")

    @property
    def has_socket(self) -> bool:
        """Whether there is one, be it closing."""
        return not self._down.is_set

    def cut(self) -> None:
        """Close the socket now, whatever waits for it."""
        if self._socket is not None:
            self._socket.abort()

    def gone(self, timeout: float) -> Awaitable[bool]:
        """Whether there is no socket any more within so many seconds."""
        return self._down.wait(timeout)

    @property
    def has_link(self) -> bool:
        """Whether there is a link; false before its socket is really closed."""
        return self._link is not None

    def fail(self, reason: str) -> None:
        """The link is of no use: end it now."""
        if self._link is not None:
            self._link.abort()
            self._end(reason)

    def _end(self, reason: str) -> None:
        """No more requests on this link: answer everyone."""
        self._link = None
        self.is_connected = False
        self.fault = ConnectionFault(reason)
        self._up.clear()
        if not self._closed:
            self._log.warn("Broker {url}: {reason}", url=self.url, reason=reason)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_at = NEVER
        out, self._out = self._out, {}
        waiting, self._waiting = self._waiting, {}
        self._queued = 0
        self._sending_paused = False
        self._become_writable()
        self.changes.tell()
        for opaque, (waiter, _) in waiting.items():
            self._tell(waiter, NOT_SENT if opaque in out else LOST)

    def _why(self) -> bytes:
        """Why there is no connection, for those who asked for one."""
        return b"" if self.fault is None else self.fault.reason.encode("utf-8", "replace")

    def _tell(self, waiter: Waiter, status: int) -> None:
        try:
            waiter(status, self._why())
        except Exception:
            self._log.failure("The waiter of a request to {url} failed", url=self.url)

    # -- time

    def wake(self, when: float) -> None:
        """Sweep then, or earlier if that is planned."""
        if when >= self._wake_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = when
        delay = max(when - self._runtime.seconds(), SWEEP_SECONDS)
        self._timer = self._runtime.call_later(delay, self._sweep)

    def wake_now(self) -> None:
        """Sweep as soon as sweeps may follow each other."""
        self.wake(self._runtime.seconds())

    def _sweep(self) -> None:
        """Answer those whose time is over, see to the heartbeat, plan the next sweep."""
        self._timer = None
        self._wake_at = NEVER
        now = self._runtime.seconds()
        late = [each for each, (_, deadline) in self._waiting.items() if deadline <= now]
        for opaque in late:
            found = self._waiting.pop(opaque, None)
            if found is None:
                continue  # the link was closed by a waiter before
            frame = self._out.pop(opaque, None)
            if frame is not None:
                self._queued -= len(frame)
            self._tell(found[0], TIMED_OUT if frame is None else NOT_SENT)
        if self._link is None:
            return
        self._heartbeat.beat_if_silent(now)
        if self._link is not None:
            limits = (deadline for _, deadline in self._waiting.values())
            self.wake(min(limits, default=NEVER))
        if self._idle is not None:
            self._tell_idle()
