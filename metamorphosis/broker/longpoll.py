"""
Gets that found nothing to read and are held, as they asked, until there is data.

Differs: the original answers such a get 404 at once, and its consumers ask again after a delay that
grows to seconds. Here a get with one more token, the longest wait in ms, is held
(``docs/protocol.md``); a get without it is answered as by the original.

A held get is answered from the log as it then is: when its partition has been flushed beyond its
offset, when its time is over, and earlier at any event that could change the answer (a reload, a
closed partition, the broker or the connection about to close). It has no place in the queue of
replies, so it delays no other reply, and its own reply leaves after those to earlier requests of
its connection. It costs a few hundred bytes; gets beyond the limits are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.broker.session import HeldGet
from metamorphosis.seldom import Seldom

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from metamorphosis.broker.session import Partition, Session
    from metamorphosis.store.messagestore import MessageStore
    from metamorphosis.wire.commands import GetCommand

TICK = 0.05
"""Gets whose time ends within the same interval of this length, in seconds, share one timer; each
may be answered late by as much."""

MOST_PER_CONNECTION = 1000
"""Limit of held gets of one connection; a client holds one for each partition of its topics on this
broker."""

MOST = 100_000
"""Limit of held gets in all: about 50 MB."""


class LongPolls:
    """
    The held gets of a broker, by partition, by the end of their time, and by connection
    (``Session.held``). Thread: reactor.

    :param longest: the longest time in seconds that a get is held, whatever it asks for; 0: no get
        is held.
    :param answer: answers a get whose wait has ended, from the present log.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        longest: float,
        answer: Callable[[HeldGet], None],
    ) -> None:
        self._clock = clock
        self._longest = longest
        self._answer = answer
        self._failures = Seldom(clock.seconds)
        self._count = 0
        self._partitions: dict[Partition, dict[HeldGet, None]] = {}
        self._ticks: dict[int, tuple[IDelayedCall, dict[HeldGet, None]]] = {}
        self._stopped = False

    def __len__(self) -> int:
        return self._count

    def hold(self, command: GetCommand, session: Session, store: MessageStore | None) -> bool:
        """
        Keep a get that has found nothing; False if it must be answered now.

        :param store: None if the partition has none yet.
        """
        seconds = min(command.wait_ms / 1000, self._longest)
        if seconds <= 0 or self._stopped:
            return False
        if len(session.held or ()) >= MOST_PER_CONNECTION or self._count >= MOST:
            return False
        tick = int((self._clock.seconds() + seconds) / TICK) + 1
        held = HeldGet(command, session, tick)
        self._count += 1
        self._partitions.setdefault(held.partition, {})[held] = None
        self._at(tick)[held] = None
        if session.held is None:
            session.held = {}
            session.on_closing(self.release)
            session.on_lost(self.forget)
        session.held[held] = None
        if store is not None:
            store.await_flush(self.readable)
        return True

    def _at(self, tick: int) -> dict[HeldGet, None]:
        """The gets whose time ends at ``tick``."""
        if tick not in self._ticks:
            delay = tick * TICK - self._clock.seconds()
            self._ticks[tick] = (self._clock.callLater(delay, self._time_over, tick), {})
        return self._ticks[tick][1]

    # Events that end the wait

    def store_made(self, store: MessageStore) -> None:
        """A partition was created; gets may have waited for that."""
        if (store.topic, store.partition) in self._partitions:
            store.await_flush(self.readable)

    def readable(self, store: MessageStore) -> None:
        """``store`` was flushed (``MessageStore.on_readable``)."""
        end = store.max_offset
        partition = (store.topic, store.partition)
        for held in tuple(self._partitions.get(partition, ())):
            if held.command.offset < end:
                self._end(held)
        if partition not in self._partitions:
            store.on_readable = None

    def _time_over(self, tick: int) -> None:
        for held in tuple(self._ticks[tick][1]):
            self._end(held)
        self._ticks.pop(tick, None)

    def release(self, session: Session) -> None:
        """Answer the held gets of ``session``: its connection closes after its last reply."""
        for held in tuple(session.held or ()):
            self._end(held)

    def release_all(self) -> None:
        """Answer all held gets: the rules of reading have changed."""
        for waiting in tuple(self._partitions.values()):
            for held in tuple(waiting):
                self._end(held)

    def stop(self) -> None:
        """Answer all held gets, and hold no more."""
        self._stopped = True
        self.release_all()
        ticks, self._ticks = self._ticks, {}
        for call, _ in ticks.values():
            call.cancel()

    def forget(self, session: Session) -> None:
        """The connection has ended: drop its gets."""
        for held in tuple(session.held or ()):
            self._take(held)

    def _end(self, held: HeldGet) -> None:
        self._take(held)
        try:
            self._answer(held)
        except Exception:
            if self._failures.may_log():
                self._log.failure(
                    "Answering {command!r} failed (such lines left out: {left_out})",
                    command=held.command,
                    left_out=self._failures.left_out,
                )

    def _take(self, held: HeldGet) -> None:
        self._count -= 1
        gets = held.session.held
        assert gets is not None
        del gets[held]
        if not gets:
            held.session.held = None
        waiting = self._partitions[held.partition]
        del waiting[held]
        if not waiting:
            del self._partitions[held.partition]
        if held.tick in self._ticks:
            del self._ticks[held.tick][1][held]
