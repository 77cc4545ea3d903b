"""
The server without sockets and disk: handshake, requests in the order of the wire, expiry, close.

A request is applied at once. ``on_change`` is called after every change and before a packet that
shows it is sent; a client's ``send`` keeps the packet until that change is on disk. Events are sent
before the reply to the request that caused them.

Source: ``ZooKeeperServer``, ``FinalRequestProcessor``.

Differs: ZooKeeper closes the connection of a session for every client that knows its id; here the
password is checked first. ZooKeeper cuts a client that has seen a later zxid at every attempt; here
its session counts as expired. An operation unknown to 3.4 is answered and the connection closed, as
in 3.8; a check outside of a multi is answered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from metamorphosis.zookeeper.acl import authenticate
from metamorphosis.zookeeper.codes import Code, Opcode, ZooKeeperError
from metamorphosis.zookeeper.jute import MalformedRequest, Reader
from metamorphosis.zookeeper.multi import MULTI
from metamorphosis.zookeeper.requests import CHANGES, READS, Change
from metamorphosis.zookeeper.sessions import PASSWORD_BYTES, Client, Session, Sessions
from metamorphosis.zookeeper.tree import Tree
from metamorphosis.zookeeper.watches import Watches

__all__ = ["Client", "Server", "Session"]

_REQUEST: Final = struct.Struct(">ii")
_REPLY: Final = struct.Struct(">iqi")
_OK: Final = int(Code.OK)  # looked up once a request
_ANSWER: Final = struct.Struct(f">iiqi{PASSWORD_BYTES}s")

_CHANGES: Final[dict[int, Change]] = {**CHANGES, Opcode.MULTI: MULTI}


class Server:
    """
    One ZooKeeper.

    :param on_change: called after each change, before a packet that shows it is sent.
    :ivar clock: seconds, monotonic.
    :ivar wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        tree: Tree,
        sessions: Sessions,
        on_change: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.tree = tree
        self.sessions = sessions
        self.watches = Watches()
        self._on_change = on_change
        self.clock = clock
        self.wall_clock = wall_clock
        sessions.renew_all(clock())

    def connect(self, client: Client, frame: bytes) -> None:
        """
        Take the first frame of a connection: create a session, or resume one.

        A client that has seen a later zxid than the newest one was connected before a backup was
        restored, or to another server. Its session is refused, so that it starts a new one; without
        a session its connection is cut, as is that of an unreadable frame.
        """
        reader = Reader(frame)
        try:
            reader.integer()  # the version of the protocol, 0 from all
            zxid, timeout, session_id = reader.long(), reader.integer(), reader.long()
            password = reader.buffer()
        except MalformedRequest:
            client.close()
            return
        knows_read_only = reader.position < len(frame)  # since 3.4, except its C client
        ahead = zxid > self.tree.zxid
        timeout = self.sessions.negotiated(timeout)
        if session_id == 0:
            if ahead:
                client.close()
                return
            session = self._new_session(timeout)
        else:
            found = None if ahead else self.sessions.find(session_id, password)
            if found is None:
                client.send(_answer(0, 0, bytes(PASSWORD_BYTES), knows_read_only))
                client.close()
                return
            session = found
            self._resume(session, timeout)
        session.client = client
        client.session = session
        client.send(_answer(timeout, session.id, session.password, knows_read_only))

    def _new_session(self, timeout: int) -> Session:
        time = self._begin()
        session = self.sessions.create(timeout, self.clock(), time)
        self._on_change()
        return session

    def _resume(self, session: Session, timeout: int) -> None:
        """Attach a session to its newest connection; an earlier one is dropped."""
        former = session.client
        if former is not None:
            self._drop(former)
        if self.sessions.resume(session, timeout, self.clock()):
            self._on_change()

    def receive(self, client: Client, frame: bytes) -> None:
        """
        Take a request; requests after the end of a session are ignored.

        :raises TooManyWatches: the request would add one; the caller closes the connection, as
            after any other exception, which is a fault of ours. The client is disconnected already.
        """
        session = client.session
        if session is None:
            return
        session.heard = self.clock()
        if len(frame) < _REQUEST.size:
            self._drop(client)
            return
        xid, opcode = _REQUEST.unpack_from(frame)
        code = _OK
        body = b""
        try:
            if opcode in _CHANGES:
                body = self._change(client, _CHANGES[opcode], Reader(frame, 8))
            elif opcode in READS:
                body = READS[opcode](self.tree, self.watches, client, Reader(frame, 8))
            else:
                self._connection_request(client, session, xid, opcode, frame)
                return
        except ZooKeeperError as error:
            code = error.code
        except MalformedRequest:
            code = Code.MARSHALLING_ERROR
        except Exception:
            self.disconnected(client)
            raise
        client.send(_REPLY.pack(xid, self.tree.zxid, code) + body)

    def _begin(self) -> int:
        time = int(self.wall_clock() * 1000)
        self.tree.begin(time)
        return time

    def _change(self, client: Client, change: Change, reader: Reader) -> bytes:
        """Apply a change; a failed one takes a zxid too."""
        read, apply = change
        tree = self.tree
        tree.begin(int(self.wall_clock() * 1000))
        try:
            return apply(tree, client, *read(reader))
        finally:
            self._changed()

    def _changed(self) -> None:
        self._on_change()
        events = self.tree.take_events()
        if events:
            self.watches.fire(events)

    def _connection_request(
        self, client: Client, session: Session, xid: int, opcode: int, frame: bytes
    ) -> None:
        """Take requests about the connection itself: authentication, its end, and unknown
        operations."""
        if opcode == Opcode.AUTH:
            known = authenticate(Reader(frame, 8), client.identities)
            client.send(_REPLY.pack(xid, 0, Code.OK if known else Code.AUTH_FAILED))
            if known:
                return
        elif opcode == Opcode.CLOSE_SESSION:
            self._end(session)
            client.send(_REPLY.pack(xid, self.tree.zxid, Code.OK))
        else:
            client.send(_REPLY.pack(xid, self.tree.zxid, Code.UNIMPLEMENTED))
        self._drop(client)

    def _end(self, session: Session) -> None:
        """Remove a session and its ephemeral nodes, under one zxid."""
        self._begin()
        self.tree.delete_ephemerals(session.id)
        self.sessions.remove(session)
        self._changed()

    def _drop(self, client: Client) -> None:
        self.disconnected(client)
        client.close()

    def disconnected(self, client: Client) -> None:
        """The connection has ended: remove its watches; the session stays. A second call has no
        effect."""
        self.watches.remove(client)
        session, client.session = client.session, None
        if session is not None and session.client is client:
            session.client = None

    def expire(self) -> None:
        """End the sessions that were silent for longer than their timeout. Called every tick."""
        for session in self.sessions.expired(self.clock()):
            self._end(session)
            if session.client is not None:
                self._drop(session.client)


def _answer(timeout: int, session_id: int, password: bytes, knows_read_only: bool) -> bytes:
    """The answer to a handshake, in the length that the client expects."""
    answer = _ANSWER.pack(0, timeout, session_id, PASSWORD_BYTES, password)
    return answer + b"\0" if knows_read_only else answer
