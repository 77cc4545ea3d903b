"""
ZooKeeper over kazoo, as ``IRegistry``.

kazoo has its own threads. In them runs only one ``callFromThread`` of ours for each state change,
result and watch; all state below belongs to the reactor thread. kazoo retries the connection
without end and retries no operation.

Without a connection every operation fails at once with ``RegistryUnavailable``: no operation is
queued for later. The caller tries again at the next CONNECTED.

**A server that is behind the client.** A ZooKeeper that returns with an empty tree has a lower
transaction number than the client; it accepts each connection and cuts it. After a session timeout
of such refusals the client resets its number. A server that still has the session then resumes it,
and any other answers that it has expired, which gives a new session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from metamorphosis.cluster.kazoobridge import (
    ANSWER_SHARE,
    CONNECT_SECONDS,
    KazooThreads,
    kazoo_logger,
)
from metamorphosis.cluster.model import (
    ConnectionFault,
    SessionEvent,
    SessionState,
)
from metamorphosis.cluster.operations import OPERATION_SECONDS, KazooOperations
from metamorphosis.interfaces import IRegistry, IWorkerThreads
from metamorphosis.threads import start_daemon

CHECK_SECONDS = 1.0  # between checks of an absent ZooKeeper; shorter outages are not logged
REOPEN_SECONDS = 1.0  # from an unexpected end of kazoo's thread to the next client
CLOSE_SECONDS = 2.0  # limit of an orderly close; then the connection is cut
STOP_SECONDS = 8.0  # CLOSE_SECONDS, a connection attempt in flight, and a reserve


@implementer(IRegistry)
class ZooKeeperRegistry(KazooOperations):
    """
    One session with ZooKeeper, replaced by the next whenever it expires.

    :param reactor: receives the calls of kazoo's threads; the same reactor as ``clock``.
    :param connect: ``host:port,host:port/chroot``; a missing chroot is created with the first node.
    :param session_timeout: the timeout in ms that is requested from the server.
    :param meanwhile: the effect of an absent ZooKeeper, for the log.
    :raises ConfigError: ``connect`` cannot be understood.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        threads: IWorkerThreads,
        connect: str,
        session_timeout: int = 30000,
        operation_seconds: float = OPERATION_SECONDS,
        meanwhile: str = "clients are served",
    ) -> None:
        super().__init__(reactor, clock, connect, operation_seconds)
        self._threads = threads
        self._session_seconds = session_timeout / 1000
        self._meanwhile = meanwhile
        self._listeners: list[Callable[[SessionEvent], None]] = []
        self._kazoo_threads: KazooThreads | None = None
        self._session = 0
        # the next check of an absent ZooKeeper, or the next client
        self._timer: IDelayedCall | None = None
        self._complained = False
        self._reported: set[str] = set()
        self._refused_since: float | None = None

    # -- life cycle

    def start(self) -> Deferred[None]:
        """Start connecting; see ``IRegistry``."""
        self._open()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close the session, in order if that takes at most ``CLOSE_SECONDS``; see
        ``IRegistry``."""
        self._cancel_timer()
        stopped: Deferred[None] = self._discard()
        self._session = 0
        return stopped

    def abandon(self) -> None:
        """
        Close the session after the end of the reactor, without a result. Thread: any.
        """
        client, threads = self._client, self._kazoo_threads
        self._client = self._kazoo_threads = None
        if client is not None and threads is not None:
            threads.abort()
            start_daemon(partial(_close, client), "zookeeper-end")

    def _open(self) -> None:
        """Make a client without a session and let it connect."""
        self._timer = None
        ended = partial(self._reactor.callFromThread, self._thread_ended)
        answer_seconds = max(CONNECT_SECONDS, self._session_seconds * ANSWER_SHARE)
        threads = KazooThreads(lambda: ended(threads), answer_seconds)
        client = KazooClient(
            hosts=self._hosts,
            timeout=self._session_seconds,
            handler=threads,
            connection_retry=KazooRetry(
                max_tries=-1, delay=0.05, backoff=2, max_delay=1.0, max_jitter=0.1
            ),
            command_retry=KazooRetry(max_tries=0),
            logger=kazoo_logger(threads, partial(self._reactor.callFromThread, self._report)),
        )

        def state_changed(state: str) -> None:
            session = client.client_id[0] if state == KazooState.CONNECTED else 0
            self._reactor.callFromThread(self._state_changed, client, state, session)

        client.add_listener(state_changed)
        self._client, self._kazoo_threads = client, threads
        self._refused_since = None
        client.start_async()
        self._check_later()

    def _discard(self) -> Deferred[None]:
        """Close the present client, if any, within a bounded time."""
        client, threads = self._client, self._kazoo_threads
        self._client = self._kazoo_threads = None
        self._connected = False
        self._give_up()
        closed: Deferred[None] = Deferred()
        if client is None or threads is None:
            closed.callback(None)
            return closed
        cut = self._clock.callLater(CLOSE_SECONDS, threads.abort)
        limit = self._clock.callLater(STOP_SECONDS, lambda: done(None, TimeoutError("no end")))

        def done(_: None, error: BaseException | None) -> None:
            for timer in (cut, limit):
                if timer.active():
                    timer.cancel()
            if error is not None:
                self._log.warn("ZooKeeper client did not close in order: {error}", error=error)
            if not closed.called:
                closed.callback(None)

        self._threads.submit(partial(_close, client), done)
        return closed

    # -- what kazoo reports

    def _state_changed(self, client: object, state: str, session: int) -> None:
        """A state change of kazoo's client, ignored if that client was discarded. Thread: reactor,
        some time after the change."""
        if client is not self._client:
            return
        if state == KazooState.CONNECTED:
            self._became_connected(session)
            return
        self._connected = False
        if state == KazooState.LOST:
            self._session = 0
        self._check_later()
        lost = state == KazooState.LOST
        self._tell(SessionEvent(SessionState.LOST if lost else SessionState.SUSPENDED))

    def _became_connected(self, session: int) -> None:
        self._cancel_timer()
        new, self._session, self._connected = session != self._session, session, True
        self._refused_since = None
        self._reported.clear()
        if self._complained or new:
            self._complained = False
            self._log.info(
                "ZooKeeper at {connect} is connected, {kind} session {session:#x}",
                connect=self._connect,
                kind="new" if new else "same",
                session=session,
            )
        self._tell(SessionEvent(SessionState.CONNECTED, new))

    def _thread_ended(self, threads: KazooThreads) -> None:
        """kazoo's loop has ended at an unexpected error: continue with a new client."""
        if threads is not self._kazoo_threads:
            return
        self._report(f"ended: {threads.complaint}")
        self._cancel_timer()
        was_connected, self._session = self._connected, 0
        self._discard()
        self._timer = self._clock.callLater(REOPEN_SECONDS, self._open)
        if was_connected:
            self._tell(SessionEvent(SessionState.LOST))

    def _report(self, text: str) -> None:
        """Log an error of kazoo once until the next connection; some recur every second."""
        if text not in self._reported:
            self._reported.add(text)
            self._log.error("ZooKeeper client: {text}", text=text)

    def _tell(self, event: SessionEvent) -> None:
        for listener in list(self._listeners):
            listener(event)

    # -- an absent ZooKeeper

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _check_later(self) -> None:
        if self._timer is None:
            accepted = self._kazoo_threads.accepted if self._kazoo_threads else 0
            self._timer = self._clock.callLater(CHECK_SECONDS, self._check, accepted)

    def _check(self, accepted: int) -> None:
        """There was no session for a while: log it once, and check whether servers refuse the
        client's transaction number."""
        self._timer = None
        threads = self._kazoo_threads
        if threads is None:
            return
        if not self._complained:
            self._complained = True
            self._log.warn(
                "ZooKeeper at {connect} is not there ({reason}); still trying, {meanwhile}",
                connect=self._connect,
                reason=threads.fault.reason,
                meanwhile=self._meanwhile,
            )
        now = self._clock.seconds()
        if self._refused_since is None and threads.accepted > accepted:
            self._refused_since = now
        if self._refused_since is not None and now - self._refused_since > self._session_seconds:
            self._client.last_zxid = 0
        self._check_later()

    # -- the session

    def on_session(self, listener: Callable[[SessionEvent], None]) -> None:
        """See ``IRegistry``."""
        self._listeners.append(listener)

    def session_id(self) -> int:
        """See ``IRegistry``."""
        return self._session

    def fault(self) -> ConnectionFault | None:
        """See ``IRegistry``."""
        if self._connected or self._kazoo_threads is None:
            return None
        return self._kazoo_threads.fault


def _close(client: KazooClient) -> None:
    """Close a client: ``stop`` closes the session and joins kazoo's threads. Thread: a worker."""
    client.stop()
    client.close()
