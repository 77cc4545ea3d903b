"""
The requests to one broker: they leave together at the end of the turn, replies go to their waiters,
one sweep fails requests whose time limit is over, and sends heartbeats.

Source: ``RemotingClientWrapper``, gecko's ``DefaultConnection``.

Differs: a request whose bytes never left gets ``NOT_SENT`` when the connection breaks, and not the
504 of those under way: it can be repeated safely.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.heartbeat import Heartbeat
from metamorphosis.client.network.linklife import LinkLife
from metamorphosis.client.network.links import Log, Waiter
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import LOST, NOT_SENT, TIMED_OUT, Reply, ReplyReader
from metamorphosis.client.network.requestorder import RequestOrder
from metamorphosis.client.network.sweeps import NEVER, Sweeps
from metamorphosis.client.settings import ClientConfig
from metamorphosis.interfaces import IRuntime
from metamorphosis.wire.commands import Request
from metamorphosis.wire.encoding import encode

WRITE_BYTES = 1 << 14
"""More bytes than this are written before the end of the turn, so that the broker can begin with
them. With 64 messages of 1 KiB under way, throughput was a third higher than with one write a
turn."""


class BrokerConnection(LinkLife):
    """
    The ``Receiver`` of one broker's links, for the life of all of them. Thread: the loop's.

    One long class, because every method works on the requests that wait or are to be written.

    :ivar writable: False while more than ``max_scheduled_written_bytes`` wait for the socket.
    :ivar answered: a well-formed reply came on the present link, or on the last one.
    :ivar unknown_replies: replies without a waiter, late ones among them.
    :ivar keeps_order: whether the broker is known to execute requests in their order; asks it if
        that is not known.
    :ivar garbage: links closed because the bytes that came were no replies.
    """

    def __init__(
        self,
        runtime: IRuntime,
        url: str,
        config: ClientConfig,
        log: Log,
        lost: Callable[[BrokerConnection], None],
    ) -> None:
        """:param lost: called when a socket is closed."""
        super().__init__(runtime, url, log)
        self.writable = True
        self.answered = False
        self.unknown_replies = 0
        self.garbage = 0
        self._lost = lost
        self._config = config
        self._high_water = config.max_scheduled_written_bytes
        self._write_at = min(WRITE_BYTES, self._high_water)
        self._idle: Callable[[], None] | None = None  # called when no waiter is left
        self._sweeps = Sweeps(runtime, self._sweep)
        self._heartbeat = Heartbeat(self, self._sweeps, config)
        self._order = RequestOrder(self, config.stats_timeout_ms / 1000)
        self.keeps_order = self._order.is_kept
        self._drained = Event(runtime)
        self._reader = ReplyReader(config.max_reply_line_bytes, config.max_reply_bytes)
        self._waiting: dict[int, tuple[Waiter, float]] = {}  # opaque: waiter, deadline
        self._out: dict[int, bytes] = {}  # opaque: frame, of what has not been written
        self._queued = 0  # bytes in _out
        self._sending_paused = self._reading = False  # reading flushes at its end
        self._now = 0.0  # when the turn began

    # -- requests

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """
        Send a frame at the end of this turn, or when ``WRITE_BYTES`` have come together. ``waiter``
        gets the answer, or a status of this side with the reason as body, after this call returned.

        :param opaque: that of the frame, from ``next_opaque``.
        :param timeout: seconds.
        """
        out = self._out
        if (not out or self._sending_paused) and not self._begin_turn():
            self._runtime.call_soon(waiter, NOT_SENT, self._why(), opaque)
            return
        deadline = self._now + timeout
        self._waiting[opaque] = waiter, deadline
        out[opaque] = frame
        self._queued += len(frame)
        if self._queued > self._write_at:
            self._flush()
            if self._queued > self._high_water:
                self.writable = False
        if deadline < self._sweeps.planned:
            self._sweeps.plan(deadline)

    def request_all(self, frames: dict[int, bytes], waiter: Waiter, timeout: float) -> None:
        """
        The same for several frames, which leave in their order.

        :param frames: opaque -> frame.
        :param waiter: gets the answer to each of them.
        :param timeout: seconds, of each.
        """
        out = self._out
        if (not out or self._sending_paused) and not self._begin_turn():
            for opaque in frames:
                self._runtime.call_soon(waiter, NOT_SENT, self._why(), opaque)
            return
        deadline = self._now + timeout
        self._waiting.update(dict.fromkeys(frames, (waiter, deadline)))
        out.update(frames)
        self._queued += sum(map(len, frames.values()))
        if self._queued > self._write_at:
            self._flush()
            if self._queued > self._high_water:
                self.writable = False
        if deadline < self._sweeps.planned:
            self._sweeps.plan(deadline)

    def _begin_turn(self) -> bool:
        """The first request of a turn comes: see that it leaves; whether there is a link."""
        if self._link is None:
            return False
        self._now = self._runtime.seconds()
        if not self._reading and not self._out:
            self._runtime.call_soon(self._flush)
        return True

    def drop(self, opaque: int) -> bool:
        """Do not wait for an answer any more: whether the request was written."""
        self._waiting.pop(opaque, None)
        frame = self._out.pop(opaque, None)
        if frame is not None:
            self._queued -= len(frame)
        return frame is None

    def wait_longer(self, opaque: int, waiter: Waiter, timeout: float) -> None:
        """Wait on for the answer to a request whose waiter was told ``TIMED_OUT``."""
        deadline = self._runtime.seconds() + timeout
        self._waiting[opaque] = waiter, deadline
        self._sweeps.plan(deadline)

    def call(self, command: Request, timeout: float) -> Awaitable[tuple[int, bytes]]:
        """
        Send a command, whose opaque is replaced; the future of status and body never fails.

        :raises LocalProtocolError: a field holds what the wire cannot carry.
        """
        opaque = next_opaque()
        frame = encode(replace(command, opaque=opaque))  # type: ignore[arg-type]
        api = self._runtime.api
        future: Awaitable[tuple[int, bytes]] = api.create_future()

        def waiter(status: int, body: bytes, opaque: int) -> None:
            if not api.is_called(future):
                api.resolve(future, (status, body))

        self.request(opaque, frame, waiter, timeout)
        return future

    def drained(self) -> Awaitable[bool]:
        """Fires when the connection is ``writable``, or lost."""
        if self.writable:
            self._drained.set()
        else:
            self._drained.clear()
        return self._drained.wait()

    def _flush(self) -> None:
        """One write for the turn's requests."""
        out = self._out
        if not out or self._sending_paused or self._link is None:
            return
        frames = b"".join(out.values())
        out.clear()
        self._queued = 0
        self._link.write(frames)

    def _become_writable(self) -> None:
        self.writable = True
        self._drained.pulse()

    # -- Receiver

    def _begun(self) -> None:
        """See ``LinkLife``."""
        self._reader = ReplyReader(self._config.max_reply_line_bytes, self._config.max_reply_bytes)
        self.answered = False
        self._sending_paused = False
        self._heartbeat.begin()
        self._order.begin()

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
        """The replies of one chunk; requests that their waiters make leave at its end."""
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
            self._fail_for_garbage(fault)
        elif self._out:
            self._flush()
        if self._idle is not None:
            self._tell_idle()

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
                        found[0](status, body, opaque)
                    elif self._link is not None:
                        self._unknown(status, body, opaque)
                return
            except Exception:
                self._log.failure("The waiter of a reply of {url} failed", url=self.url)

    def _unknown(self, status: int, body: bytes, opaque: int) -> None:
        """A reply without a waiter: late, or never asked for."""
        self.unknown_replies += 1

    # -- end

    def on_idle(self, idle: Callable[[], None] | None) -> None:
        """
        Call ``idle`` as soon as every request has been answered, or given up for its time limit;
        None: do not call it. It is called now if nothing is under way.
        """
        self._idle = idle
        if idle is not None:
            self._tell_idle()

    def _tell_idle(self) -> None:
        idle = self._idle
        if idle is not None and not self._waiting:
            self._idle = None
            idle()

    def _ended(self) -> None:
        """See ``LinkLife``."""
        self._sweeps.cancel()
        out, self._out = self._out, {}
        waiting, self._waiting = self._waiting, {}
        self._queued = 0
        self._become_writable()
        self.changes.tell()
        for opaque, (waiter, _) in waiting.items():
            self._tell(waiter, NOT_SENT if opaque in out else LOST, opaque)

    def _gone(self) -> None:
        """See ``LinkLife``."""
        self._lost(self)

    def _why(self) -> bytes:
        """Why there is no connection, as the body of a ``Waiter``."""
        return b"" if self.fault is None else self.fault.reason.encode("utf-8", "replace")

    def _tell(self, waiter: Waiter, status: int, opaque: int) -> None:
        try:
            waiter(status, self._why(), opaque)
        except Exception:
            self._log.failure("The waiter of a request to {url} failed", url=self.url)

    # -- time

    def _sweep(self) -> None:
        """Answer requests whose time limit is over, send a heartbeat if one is due, plan the next
        sweep."""
        now = self._runtime.seconds()
        late = [each for each, (_, deadline) in self._waiting.items() if deadline <= now]
        for opaque in late:
            found = self._waiting.pop(opaque, None)
            if found is None:
                continue  # the link was closed by a waiter before
            self._tell(found[0], TIMED_OUT if self.drop(opaque) else NOT_SENT, opaque)
        if self._link is None:
            return
        self._heartbeat.beat_if_silent(now)
        if self._link is not None:
            limits = (deadline for _, deadline in self._waiting.values())
            self._sweeps.plan(min(limits, default=NEVER))
        if self._idle is not None:
            self._tell_idle()
