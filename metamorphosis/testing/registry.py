"""
ZooKeeper in memory, for tests: the same guarantees as ``ZooKeeperRegistry`` (the contract tests run
on both), without delay and threads, and with faults on demand.

``MemoryTree`` is the server and ``MemoryRegistry`` one client. Several registries on one tree are
several processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from metamorphosis.cluster.model import (
    ConnectionFault,
    NodeStat,
    SessionEvent,
    SessionState,
    WatchEvent,
    WatchKind,
)
from metamorphosis.errors import NodeExists, NoNode, NotEmpty, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry

T = TypeVar("T")
Watch = Callable[[WatchEvent], None]


@dataclass(slots=True)
class MemoryNode:
    """A node; ``owner`` is 0 for a persistent one."""

    data: bytes | None
    owner: int = 0
    version: int = 0
    children: set[str] = field(default_factory=set)
    modified_ms: int = 0


@dataclass(slots=True)
class MemoryTree:
    """
    Nodes by path, and the watches of all sessions on them.

    :ivar nodes: for tests to inspect; ``/`` always exists.
    :ivar watches: (path, whether of the children) -> (owner, callback).
    :ivar now_ms: the clock of the server, set by a test.
    """

    nodes: dict[str, MemoryNode] = field(default_factory=lambda: {"/": MemoryNode(b"")})
    watches: dict[tuple[str, bool], list[tuple[int, Watch]]] = field(default_factory=dict)
    sessions: itertools.count[int] = field(default_factory=lambda: itertools.count(0x1000))
    now_ms: int = 0

    def child_names(self, path: str) -> list[str]:
        """Names of the children, sorted."""
        return sorted(self.find(path).children)

    def create(self, path: str, data: bytes | None, owner: int) -> None:
        """Create a node and its missing parents."""
        if path in self.nodes:
            raise NodeExists(path)
        parent = path.rpartition("/")[0] or "/"
        if parent not in self.nodes:
            self.create(parent, None, 0)
        if self.nodes[parent].owner:
            raise RegistryError(f"{path}: ephemeral nodes have no children")
        self.nodes[path] = MemoryNode(data, owner, modified_ms=self.now_ms)
        self.nodes[parent].children.add(path.rpartition("/")[2])
        self._fire(path, False, WatchKind.CREATED)
        self._fire(parent, True, WatchKind.CHILDREN)

    def find(self, path: str) -> MemoryNode:
        """The node, or ``NoNode``."""
        try:
            return self.nodes[path]
        except KeyError:
            raise NoNode(path) from None

    def stat(self, path: str) -> NodeStat:
        """The node's stat, or ``NoNode``."""
        node = self.find(path)
        return NodeStat(node.owner, node.version, len(node.children), node.modified_ms)

    def set_data(self, path: str, data: bytes) -> None:
        """Overwrite the data."""
        node = self.find(path)
        node.data, node.version = data, node.version + 1
        node.modified_ms = self.now_ms
        self._fire(path, False, WatchKind.CHANGED)

    def delete(self, path: str) -> None:
        """Delete a node without children."""
        if self.find(path).children:
            raise NotEmpty(path)
        parent, _, name = path.rpartition("/")
        del self.nodes[path]
        self.nodes[parent or "/"].children.discard(name)
        self._fire(path, False, WatchKind.DELETED)
        self._fire(path, True, WatchKind.DELETED)
        self._fire(parent or "/", True, WatchKind.CHILDREN)

    def end_session(self, session: int) -> None:
        """Remove the ephemeral nodes of a session."""
        for path in sorted(path for path, node in self.nodes.items() if node.owner == session):
            self.delete(path)

    def forget_watches(self, session: int) -> None:
        """Remove the watches of a lost connection."""
        for key, watches in self.watches.items():
            self.watches[key] = [each for each in watches if each[0] != session]

    def _fire(self, path: str, of_children: bool, kind: WatchKind) -> None:
        for _, watch in self.watches.pop((path, of_children), []):
            watch(WatchEvent(kind, path))


@implementer(IRegistry)
class MemoryRegistry:
    """
    A client of a ``MemoryTree``.

    :ivar calls: (operation, path) of all calls, in order.
    :ivar faults: called with (operation, path) before each operation; an error that it returns is
        the outcome.
    :ivar outage: the value of ``fault`` while there is no connection.
    :ivar reachable: whether ``start`` connects; otherwise the test calls ``resume``.
    """

    def __init__(self, tree: MemoryTree | None = None, reachable: bool = True) -> None:
        self.tree = MemoryTree() if tree is None else tree
        self.reachable = reachable
        self.outage: ConnectionFault | None = None
        self.calls: list[tuple[str, str]] = []
        self.faults: Callable[[str, str], Exception | None] = lambda operation, path: None
        self._listeners: list[Callable[[SessionEvent], None]] = []
        self._session = 0
        self._connected = False
        self._held: list[tuple[Callable[[], None], Deferred[Any]]] | None = None

    # -- IRegistry

    def start(self) -> Deferred[None]:
        """See ``IRegistry``."""
        if self.reachable:
            self.resume()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See ``IRegistry``."""
        if self._session and self._connected:
            self.tree.forget_watches(self._session)
            self.tree.end_session(self._session)
        self._session, self._connected = 0, False
        return succeed(None)

    def on_session(self, listener: Callable[[SessionEvent], None]) -> None:
        """See ``IRegistry``."""
        self._listeners.append(listener)

    def session_id(self) -> int:
        """See ``IRegistry``."""
        return self._session

    def fault(self) -> ConnectionFault | None:
        """See ``IRegistry``."""
        return None if self._connected else self.outage

    def create(self, path: str, data: bytes | None, ephemeral: bool) -> Deferred[None]:
        """See ``IRegistry``."""
        owner = self._session if ephemeral else 0
        return self._run("create", path, lambda: self.tree.create(path, data, owner))

    def get(self, path: str, watch: Watch | None = None) -> Deferred[tuple[bytes | None, NodeStat]]:
        """See ``IRegistry``."""

        def get() -> tuple[bytes | None, NodeStat]:
            found = self.tree.find(path).data, self.tree.stat(path)
            self._watch(path, False, watch)
            return found

        return self._run("get", path, get)

    def set_data(self, path: str, data: bytes) -> Deferred[None]:
        """See ``IRegistry``."""
        return self._run("set_data", path, lambda: self.tree.set_data(path, data))

    def delete(self, path: str) -> Deferred[None]:
        """See ``IRegistry``."""
        return self._run("delete", path, lambda: self.tree.delete(path))

    def exists(self, path: str, watch: Watch | None = None) -> Deferred[NodeStat | None]:
        """See ``IRegistry``."""

        def exists() -> NodeStat | None:
            self._watch(path, False, watch)
            return self.tree.stat(path) if path in self.tree.nodes else None

        return self._run("exists", path, exists)

    def children(self, path: str, watch: Watch | None = None) -> Deferred[list[str]]:
        """See ``IRegistry``."""

        def children() -> list[str]:
            names = self.tree.child_names(path)
            self._watch(path, True, watch)
            return names

        return self._run("children", path, children)

    # -- accidents

    def suspend(self) -> None:
        """Lose the connection; the session and its nodes stay, held calls are dropped."""
        self.tree.forget_watches(self._session)
        self._connected = False
        self._tell(SessionEvent(SessionState.SUSPENDED))
        self._drop_held()

    def resume(self) -> None:
        """Connect (again), with the old session if it has not ended."""
        new = self._session == 0
        if new:
            self._session = next(self.tree.sessions)
        self._connected = True
        self._tell(SessionEvent(SessionState.CONNECTED, new))

    def lose(self) -> None:
        """
        End the session by the server; its nodes are removed, held calls are dropped.
        """
        self._drop_held()
        session, self._session, self._connected = self._session, 0, False
        self.tree.forget_watches(session)
        self.tree.end_session(session)
        self._tell(SessionEvent(SessionState.LOST))

    def expire(self) -> None:
        """End the session and begin the next one."""
        self.lose()
        self.resume()

    def crash(self) -> int:
        """
        Kill the process; its session, whose id is returned, and its nodes stay until
        ``tree.end_session``.
        """
        session, self._session, self._connected = self._session, 0, False
        self.tree.forget_watches(session)
        self._listeners.clear()
        return session

    def hold(self) -> None:
        """Hold all further operations until ``release``."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Run the held calls, in order."""
        held, self._held = self._held or [], None
        for perform, _ in held:
            perform()

    # -- inside

    def _run(self, operation: str, path: str, work: Callable[[], T]) -> Deferred[T]:
        self.calls.append((operation, path))
        if not self._connected:
            return fail(RegistryUnavailable("not connected"))
        answer: Deferred[T] = Deferred()

        def perform() -> None:
            fault = self.faults(operation, path)
            try:
                if fault is not None:
                    raise fault
                result = work()
            except RegistryError:
                answer.errback()
            else:
                answer.callback(result)

        if self._held is None:
            perform()
        else:
            self._held.append((perform, answer))
        return answer

    def _drop_held(self) -> None:
        held, self._held = self._held or [], None
        for _, answer in held:
            answer.errback(RegistryUnavailable("connection lost"))

    def _watch(self, path: str, of_children: bool, watch: Watch | None) -> None:
        if watch is not None:
            watches = self.tree.watches.setdefault((path, of_children), [])
            watches.append((self._session, watch))

    def _tell(self, event: SessionEvent) -> None:
        for listener in list(self._listeners):
            listener(event)
