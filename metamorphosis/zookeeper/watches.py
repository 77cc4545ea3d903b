"""
The watches of all connections. A watch fires once and is removed; a client has at most one watch of
a kind on a path.

Source: ``WatchManager``, ``DataTree.setWatches``.

Differs: ZooKeeper has no limit on the watches of a connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Set
from typing import Final

from metamorphosis.zookeeper.acl import OPEN, Acl, allowed
from metamorphosis.zookeeper.codes import (
    NOTIFICATION,
    SYNC_CONNECTED,
    Code,
    EventType,
    Permission,
)
from metamorphosis.zookeeper.jute import pack_string
from metamorphosis.zookeeper.sessions import Client
from metamorphosis.zookeeper.tree import Event

_EVENT: Final = struct.Struct(">iqiii")

#: the two kinds: for the node (its data, its existence) and for its list of children
NODE: Final = False
CHILDREN: Final = True

#: limit in bytes for the watches of one connection, a quarter of a million ordinary ones
LIMIT: Final = 64 << 20

_EACH: Final = 200  # about the bytes that a watch takes beside its path

_NOBODY: Final[frozenset[Client]] = frozenset()


def pack_event(kind: int, path: str) -> bytes:
    """The frame of an event."""
    header = _EVENT.pack(NOTIFICATION, NOTIFICATION, Code.OK, kind, SYNC_CONNECTED)
    return header + pack_string(path)


class TooManyWatches(Exception):
    """The watches of one connection take more than ``LIMIT``."""

    def __init__(self) -> None:
        super().__init__(f"more than {LIMIT} bytes of watches")


class Watches:
    """All watches of all clients."""

    def __init__(self) -> None:
        self._clients: dict[tuple[bool, str], set[Client]] = {}
        self._sizes: dict[Client, int] = {}

    @property
    def watched(self) -> Mapping[tuple[bool, str], set[Client]]:
        """Watching clients, by kind (``CHILDREN`` or ``NODE``) and path; read-only."""
        return self._clients

    def add(self, kind: bool, path: str, client: Client) -> None:
        """
        Add a watch of a client.

        :raises TooManyWatches: its watches exceed ``LIMIT``.
        """
        key = kind, path
        if key in client.watching:
            return
        size = self._sizes.get(client, 0) + _EACH + len(path)
        if size > LIMIT:
            raise TooManyWatches
        self._sizes[client] = size
        client.watching.add(key)
        try:
            self._clients[key].add(client)
        except KeyError:
            self._clients[key] = {client}

    def remove(self, client: Client) -> None:
        """Remove all watches of a client that has disconnected."""
        for key in client.watching:
            clients = self._clients[key]
            clients.remove(client)
            if not clients:
                del self._clients[key]
        client.watching.clear()
        self._sizes.pop(client, None)

    def fire(self, events: Iterable[Event]) -> None:
        """Send each event to the connections that watch for it, once, and remove these watches."""
        if not self._clients:
            return
        for kind, path, acl in events:
            if kind == EventType.CHILDREN_CHANGED:
                clients = self._take(CHILDREN, path)
            elif kind == EventType.DELETED:
                clients = self._take(NODE, path) | self._take(CHILDREN, path)
            else:
                clients = self._take(NODE, path)
            if clients:
                self._tell(kind, path, acl, clients)

    def _take(self, kind: bool, path: str) -> Set[Client]:
        key = kind, path
        clients = self._clients.pop(key, _NOBODY)
        for client in clients:
            client.watching.remove(key)
            self._sizes[client] -= _EACH + len(path)
        return clients

    @staticmethod
    def _tell(kind: int, path: str, acl: Acl, clients: Iterable[Client]) -> None:
        """Send an event to the clients that may read the node; the watches of the others are
        removed too."""
        packet = pack_event(kind, path)
        for client in clients:
            if acl is OPEN or allowed(acl, Permission.READ, client.identities):
                client.send(packet)
