"""
Sessions: ids, passwords, timeouts between 2 and 20 ticks, expiry on a monotonic clock, and the
changes since the last call.

Source: ``SessionTrackerImpl``, ``ZooKeeperServer``.

Differs: passwords are random and stored; ZooKeeper computes them from the id with a public
constant.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from metamorphosis.zookeeper.acl import Identity

PASSWORD_BYTES: Final = 16


class Client(Protocol):
    """
    The part of a connection that the server uses.

    :ivar session: its session; None before the handshake and after the end.
    :ivar identities: ``(scheme, id)``; begins with ``("ip", address)``.
    :ivar watching: kept by ``Watches``.
    """

    session: Session | None
    identities: list[Identity]
    watching: set[tuple[bool, str]]

    def send(self, packet: bytes) -> None:
        """Send a frame, given without its length, once the changes that it shows are on disk."""

    def close(self) -> None:
        """Close after the last packet."""


@dataclass(slots=True, eq=False)
class Session:
    """
    A session.

    :ivar timeout: the negotiated timeout in milliseconds.
    :ivar heard: the time of the last request, in seconds of the monotonic clock.
    :ivar client: its connection, or None.
    """

    id: int
    password: bytes
    timeout: int
    heard: float = 0.0
    client: Client | None = field(default=None, repr=False)


class Sessions:
    """
    All sessions.

    :param stored: the sessions from before the restart.
    :param tick: milliseconds; timeouts are 2 to 20 of them unless the next two are given.
    :ivar by_id: the sessions by id; read-only.
    """

    def __init__(
        self,
        stored: Iterable[Session] = (),
        tick: int = 2000,
        min_timeout: int | None = None,
        max_timeout: int | None = None,
    ) -> None:
        self.by_id: dict[int, Session] = {session.id: session for session in stored}
        self.min_timeout = 2 * tick if min_timeout is None else min_timeout
        self.max_timeout = 20 * tick if max_timeout is None else max_timeout
        self._last_id = 0
        self._changes: dict[int, Session | None] = {}

    def renew_all(self, now: float) -> None:
        """Restart the timeout of every session, after a restart of the server."""
        for session in self.by_id.values():
            session.heard = now

    def negotiated(self, timeout: int) -> int:
        """The timeout for a requested one; both in milliseconds."""
        return max(self.min_timeout, min(timeout, self.max_timeout))

    def create(self, timeout: int, now: float, time: int) -> Session:
        """
        A new session.

        :param timeout: the negotiated timeout.
        :param time: milliseconds since 1970, from which ids begin, as in ZooKeeper.
        """
        self._last_id = max(self._last_id + 1, (time << 16) & 0x00FFFFFFFFFFFFFF, 1)
        while self._last_id in self.by_id:
            self._last_id += 1
        session = Session(self._last_id, secrets.token_bytes(PASSWORD_BYTES), timeout, now)
        self.by_id[session.id] = self._changes[session.id] = session
        return session

    def find(self, session_id: int, password: bytes | None) -> Session | None:
        """The session, if there is one and the password is right."""
        session = self.by_id.get(session_id)
        if session is None or not hmac.compare_digest(session.password, password or b""):
            return None
        return session

    def resume(self, session: Session, timeout: int, now: float) -> bool:
        """
        A client resumes its session, with a newly negotiated timeout.

        :returns: whether the session has changed and must be stored.
        """
        session.heard = now
        if session.timeout == timeout:
            return False
        session.timeout = timeout
        self._changes[session.id] = session
        return True

    def remove(self, session: Session) -> None:
        """End a session."""
        del self.by_id[session.id]
        self._changes[session.id] = None

    def expired(self, now: float) -> list[Session]:
        """The sessions that were silent for longer than their timeout."""
        return [
            session
            for session in self.by_id.values()
            if (now - session.heard) * 1000 > session.timeout
        ]

    def prolong(self, seconds: float, now: float) -> None:
        """Leave the last ``seconds`` out of the silence of every session."""
        for session in self.by_id.values():
            session.heard = min(session.heard + seconds, now)

    def take_changes(self) -> dict[int, Session | None]:
        """The sessions that changed since the last call, None for those that ended."""
        changes, self._changes = self._changes, {}
        return changes
