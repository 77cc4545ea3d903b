"""
The nodes in memory: sequence numbers, ephemerals, zxids, and the changes since the last call.

A request that changes the tree calls ``begin`` once, which gives it a zxid, and then the changes;
they raise before they change anything. The caller checks permissions.

Source: ``DataTree``, ``PrepRequestProcessor``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.codes import Code, EventType, ZooKeeperError
from metamorphosis.zookeeper.nodes import Node, int32, is_valid, parent_of

#: kind of the event, path, and ACL of the node
Event = tuple[int, str, Acl]

#: nodes that exist from the beginning and stay
FIXED: Final = ("/", "/zookeeper", "/zookeeper/quota")


class Tree:
    """
    All nodes.

    :param nodes: the stored nodes, by path; children are derived from the paths.
    :param zxid: the last zxid ever used.
    :ivar nodes: the nodes by path; read-only.
    :ivar ephemerals: the paths owned by each session; read-only.
    :ivar data_size: bytes of all data and characters of all paths, about the memory of the nodes.
    """

    def __init__(self, nodes: dict[str, Node] | None = None, zxid: int = 0) -> None:
        self.nodes: dict[str, Node] = {} if nodes is None else nodes
        self.zxid = zxid
        self.ephemerals: dict[int, set[str]] = {}
        self.data_size = 0
        self._time = 0
        self._changes: dict[str, Node | None] = {}
        self._events: list[Event] = []
        self._undo: list[Callable[[], None]] | None = None
        for path in FIXED:
            if path not in self.nodes:
                self.nodes[path] = self._changes[path] = Node(b"", OPEN, 0, 0, 0, 0, 0)
        for path, node in self.nodes.items():
            self._admit(path, node)

    def _admit(self, path: str, node: Node) -> None:
        if node.acl == OPEN:
            node.acl = OPEN
        if path != "/":
            self.nodes[parent_of(path)].children[path[path.rindex("/") + 1 :]] = None
        if node.owner:
            self.ephemerals.setdefault(node.owner, set()).add(path)
        self.data_size += len(path) + len(node.data or b"")

    def find(self, path: str) -> Node:
        """
        The node of a path; the empty path is the root too.

        :raises ZooKeeperError: NO_NODE.
        """
        try:
            return self.nodes[path or "/"]
        except KeyError:
            raise ZooKeeperError(Code.NO_NODE) from None

    def begin(self, time: int) -> None:
        """
        A request begins, and takes the next zxid even if it fails.

        :param time: milliseconds since 1970.
        """
        self.zxid += 1
        self._time = time

    def create(
        self, path: str, data: bytes | None, acl: Acl, owner: int = 0, sequential: bool = False
    ) -> str:
        """
        Add a node.

        :param path: with a slash; for a sequential node the part before its number.
        :param owner: the session of an ephemeral node, or 0.
        :returns: the path of the node.
        :raises ZooKeeperError: NO_NODE (the parent), BAD_ARGUMENTS, NODE_EXISTS,
            NO_CHILDREN_FOR_EPHEMERALS.
        """
        parent_path = path[: path.rindex("/")] or "/"
        parent = self.find(parent_path)
        if sequential:
            path += f"{int32(parent.creates):010d}"
        if path in self.nodes:
            raise ZooKeeperError(Code.NODE_EXISTS)
        if not is_valid(path):
            raise ZooKeeperError(Code.BAD_ARGUMENTS)
        if parent.owner:
            raise ZooKeeperError(Code.NO_CHILDREN_FOR_EPHEMERALS)
        if self._undo is not None:
            self._undo.append(partial(self._uncreate, path, parent_path, parent.pzxid))
        zxid, time = self.zxid, self._time
        node = Node(data, acl, zxid, time, zxid, time, zxid, 0, 0, 0, owner)
        parent.children[path[path.rindex("/") + 1 :]] = None
        parent.creates += 1
        parent.pzxid = zxid
        self.nodes[path] = self._changes[path] = node
        self._changes[parent_path] = parent
        if owner:
            self.ephemerals.setdefault(owner, set()).add(path)
        self.data_size += len(path) + len(data or b"")
        self._events += (
            (EventType.CREATED, path, acl),
            (EventType.CHILDREN_CHANGED, parent_path, parent.acl),
        )
        return path

    def delete(self, path: str, version: int = -1) -> None:
        """
        Remove a node.

        :param version: the version that it must have, or -1.
        :raises ZooKeeperError: NO_NODE, BAD_VERSION, NOT_EMPTY.
        """
        node = self.find(path)
        check_version(node.version, version)
        if node.children:
            raise ZooKeeperError(Code.NOT_EMPTY)
        parent_path = parent_of(path)
        parent = self.nodes[parent_path]
        if self._undo is not None:
            self._undo.append(partial(self._undelete, path, node, parent_path, parent.pzxid))
        self._remove(path, node, parent)
        parent.pzxid = self.zxid
        self._changes[path] = None
        self._changes[parent_path] = parent
        self._events += (
            (EventType.DELETED, path, node.acl),
            (EventType.CHILDREN_CHANGED, parent_path, parent.acl),
        )

    def _remove(self, path: str, node: Node, parent: Node) -> None:
        del self.nodes[path]
        del parent.children[path[path.rindex("/") + 1 :]]
        if node.owner:
            owned = self.ephemerals[node.owner]
            owned.remove(path)
            if not owned:
                del self.ephemerals[node.owner]
        self.data_size -= len(path) + len(node.data or b"")

    def delete_ephemerals(self, session: int) -> None:
        """Remove all nodes of a session that ends."""
        for path in sorted(self.ephemerals.get(session, ())):
            self.delete(path)

    def set_data(self, path: str, data: bytes | None, version: int = -1) -> Node:
        """
        Set the data of a node.

        :param version: the version that it must have, or -1.
        :raises ZooKeeperError: NO_NODE, BAD_VERSION.
        """
        node = self.find(path)
        check_version(node.version, version)
        if self._undo is not None:
            before = node.data, node.version, node.mzxid, node.mtime
            self._undo.append(partial(self._unset, path, node, *before))
        self.data_size += len(data or b"") - len(node.data or b"")
        node.data = data
        node.version += 1
        node.mzxid = self.zxid
        node.mtime = self._time
        self._changes[path] = node
        self._events.append((EventType.DATA_CHANGED, path, node.acl))
        return node

    def set_acl(self, path: str, acl: Acl, version: int = -1) -> Node:
        """
        Set the ACL of a node; no event is sent.

        :param version: the version of the ACL that it must have, or -1.
        :raises ZooKeeperError: NO_NODE, BAD_VERSION.
        """
        node = self.find(path)
        check_version(node.aversion, version)
        node.acl = acl
        node.aversion += 1
        self._changes[path] = node
        return node

    def all_or_nothing(self) -> None:
        """Record how to undo the changes from now on, until ``keep`` or ``take_back``."""
        self._undo = []

    def keep(self) -> None:
        """Keep the changes since ``all_or_nothing``."""
        self._undo = None

    def take_back(self) -> None:
        """Undo the changes since ``all_or_nothing``; only the zxid stays used."""
        undo, self._undo = self._undo, None
        for step in reversed(undo or []):
            step()
        self._events.clear()

    def _uncreate(self, path: str, parent_path: str, pzxid: int) -> None:
        parent = self.nodes[parent_path]
        self._remove(path, self.nodes[path], parent)
        parent.creates -= 1
        parent.pzxid = pzxid
        self._changes[path] = None

    def _undelete(self, path: str, node: Node, parent_path: str, pzxid: int) -> None:
        self.nodes[path] = self._changes[path] = node
        self._admit(path, node)
        self.nodes[parent_path].pzxid = pzxid

    def _unset(
        self, path: str, node: Node, data: bytes | None, version: int, mzxid: int, mtime: int
    ) -> None:
        self.data_size += len(data or b"") - len(node.data or b"")
        node.data, node.version, node.mzxid, node.mtime = data, version, mzxid, mtime

    def take_events(self) -> list[Event]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def take_changes(self) -> dict[str, Node | None]:
        """
        The nodes that changed since the last call, None for deleted ones. They are the live
        objects: read them before the next request.
        """
        changes, self._changes = self._changes, {}
        return changes


def check_version(current: int, expected: int) -> None:
    """
    Check the version that a request expects.

    :raises ZooKeeperError: BAD_VERSION: a version was expected, and it is not the current one.
    """
    if expected != -1 and expected != int32(current):
        raise ZooKeeperError(Code.BAD_VERSION)
