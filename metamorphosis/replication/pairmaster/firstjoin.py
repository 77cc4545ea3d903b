"""
The correction of the consumers' positions before the first registration of a pair master
(``recoverOffset``): the broker was the slave until now, and the stored positions may belong to the
old master's log.

It waits only for a session with ZooKeeper, without which no registration is possible either;
positions that cannot be read or written are logged and left unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from metamorphosis.cluster.paths import Paths
from metamorphosis.replication.offsetrecovery import LocalLog, OffsetRecovery, log_recovered

if TYPE_CHECKING:
    from metamorphosis.interfaces import IRuntime
    from metamorphosis.replication.idsearch import Place, Position
    from metamorphosis.replication.role import Attached

SESSION_SECONDS: Final = 0.2
"""Between two checks for a session."""


class FirstJoin:
    """
    One correction before the first registration. Thread: reactor.

    :param recovers: ``recoverOffset``.
    :param done: called after each join of the pair, but not before the positions were corrected.
    """

    _log = Logger()

    def __init__(
        self, runtime: IRuntime, parts: Attached, recovers: bool, done: Callable[[], None]
    ) -> None:
        self._runtime = runtime
        self._parts = parts
        self._waits = recovers and parts.config.zookeeper.enable
        self._running = False
        self._done = done

    def joined(self) -> None:
        """The pair is joined."""
        if not self._waits:
            self._done()
        elif not self._running:
            self._running = True
            recovering = Deferred.fromCoroutine(self._recover())
            recovering.addErrback(lambda failure: self._log.failure("Recovering offsets", failure))
            recovering.addBoth(self._recovered)

    def _recovered(self, _: object) -> None:
        self._waits = False
        self._done()

    async def _recover(self) -> None:
        parts = self._parts
        while not parts.presence.registry.session_id():
            pause: Deferred[None] = Deferred()
            self._runtime.call_later(SESSION_SECONDS, pause.callback, None)
            await pause
        recovery = OffsetRecovery(
            parts.presence.registry,
            Paths(parts.config.zookeeper.root),
            parts.config.broker_id,
            [LocalLog(store.topic, store.partition, store.directory) for store in parts.stores],
            self._in_thread,
        )
        log_recovered(await recovery.run())

    def _in_thread(
        self, search: Callable[[], dict[Position, Place]]
    ) -> Deferred[dict[Position, Place]]:
        found: Deferred[dict[Position, Place]] = Deferred()

        def ended(places: dict[Position, Place] | None, error: BaseException | None) -> None:
            if error is not None:
                found.errback(error)
            else:
                found.callback(places or {})

        self._parts.threads.submit(search, ended)
        return found
