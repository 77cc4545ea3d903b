"""
The operations, one function each. Reads take a reader and return the body of the reply. Changes are
a pair of functions, one that reads the arguments and one that applies them, so that a multi can
read all its operations before it applies the first.

The order of the checks is ZooKeeper's, because it decides which error a client gets.

Source: ``PrepRequestProcessor``, ``FinalRequestProcessor`` of 3.8, where 3.4 and 3.8 differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from metamorphosis.zookeeper.acl import (
    Wish,
    allowed,
    check,
    granted,
    pack_acl,
    read_acl,
    without_digests,
)
from metamorphosis.zookeeper.codes import (
    Code,
    CreateFlag,
    EventType,
    Opcode,
    Permission,
    ZooKeeperError,
)
from metamorphosis.zookeeper.jute import Reader, pack_buffer, pack_string, pack_strings
from metamorphosis.zookeeper.nodes import Node, is_valid, parent_of
from metamorphosis.zookeeper.sessions import Client
from metamorphosis.zookeeper.tree import FIXED, Tree, check_version
from metamorphosis.zookeeper.watches import CHILDREN, NODE, Watches, pack_event

Read = Callable[[Tree, Watches, Client, Reader], bytes]
#: the function that reads the arguments, and the one that applies them
Change = tuple[Callable[[Reader], tuple[object, ...]], Callable[..., bytes]]


# Reads


def ping(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """Answer a ping; the request itself shows that the client is alive."""
    return b""


def sync(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """Answer at once: a single server is always up to date. Any path is accepted."""
    return pack_string(reader.text())


def exists(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """The Stat; a watch on a node that does not exist fires at its creation."""
    path = reader.string()
    if "\0" in path:
        raise ZooKeeperError(Code.BAD_ARGUMENTS)
    if reader.boolean():
        watches.add(NODE, path, client)
    return tree.find(path).stat()


def get_data(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """The data and the Stat."""
    path = reader.string()
    watch = reader.boolean()
    node = tree.find(path)
    check(node.acl, Permission.READ, client.identities)
    if watch:
        watches.add(NODE, path, client)
    return pack_buffer(node.data) + node.stat()


def get_acl(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """The ACL and the Stat; digests only for clients that may set the ACL."""
    node = tree.find(reader.string())
    acl = node.acl
    check(acl, Permission.READ | Permission.ADMIN, client.identities)
    if not allowed(acl, Permission.ADMIN, client.identities):
        acl = without_digests(acl)
    return pack_acl(acl) + node.stat()


def get_children(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """The names of the children, in an unspecified order."""
    return pack_strings(_listed(tree, watches, client, reader).children)


def get_children2(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """The names of the children, and the Stat."""
    node = _listed(tree, watches, client, reader)
    return pack_strings(node.children) + node.stat()


def _listed(tree: Tree, watches: Watches, client: Client, reader: Reader) -> Node:
    path = reader.string()
    watch = reader.boolean()
    node = tree.find(path)
    check(node.acl, Permission.READ, client.identities)
    if watch:
        watches.add(CHILDREN, path, client)
    return node


def set_watches(tree: Tree, watches: Watches, client: Client, reader: Reader) -> bytes:
    """
    Set the watches of a client that has reconnected: those that would have fired meanwhile fire
    now, the others are set.
    """
    zxid = reader.long()
    data, exist, children = reader.strings(), reader.strings(), reader.strings()
    nodes = tree.nodes
    for path in data:
        node = nodes.get(path or "/")
        if node is None:
            client.send(pack_event(EventType.DELETED, path))
        elif node.mzxid > zxid:
            client.send(pack_event(EventType.DATA_CHANGED, path))
        else:
            watches.add(NODE, path, client)
    for path in exist:
        if (path or "/") in nodes:
            client.send(pack_event(EventType.CREATED, path))
        else:
            watches.add(NODE, path, client)
    for path in children:
        node = nodes.get(path or "/")
        if node is None:
            client.send(pack_event(EventType.DELETED, path))
        elif node.pzxid > zxid:
            client.send(pack_event(EventType.CHILDREN_CHANGED, path))
        else:
            watches.add(CHILDREN, path, client)
    return b""


# Changes


def _read_create(reader: Reader) -> tuple[str, bytes | None, Wish, int]:
    return reader.string(), reader.buffer(), read_acl(reader), reader.integer()


def _read_path_and_version(reader: Reader) -> tuple[str, int]:
    return reader.string(), reader.integer()


def _read_set_data(reader: Reader) -> tuple[str, bytes | None, int]:
    return reader.string(), reader.buffer(), reader.integer()


def _read_set_acl(reader: Reader) -> tuple[str, Wish, int]:
    return reader.string(), read_acl(reader), reader.integer()


def create(
    tree: Tree, client: Client, path: str, data: bytes | None, wish: Wish, flags: int
) -> bytes:
    """Create a node; returns its path, with a number at the end for a sequential node."""
    return pack_string(_created(tree, client, path, data, wish, flags))


def create2(
    tree: Tree, client: Client, path: str, data: bytes | None, wish: Wish, flags: int
) -> bytes:
    """Create a node; returns its path and its Stat."""
    path = _created(tree, client, path, data, wish, flags)
    return pack_string(path) + tree.nodes[path].stat()


def _created(
    tree: Tree, client: Client, path: str, data: bytes | None, wish: Wish, flags: int
) -> str:
    if not 0 <= flags <= 3 or "/" not in path or "\0" in path:
        raise ZooKeeperError(Code.BAD_ARGUMENTS)
    acl = granted(wish, client.identities)
    check(tree.find(parent_of(path)).acl, Permission.CREATE, client.identities)
    session = client.session
    owner = session.id if session is not None and flags & CreateFlag.EPHEMERAL else 0
    return tree.create(path, data, acl, owner, flags >= CreateFlag.SEQUENTIAL)


def delete(tree: Tree, client: Client, path: str, version: int) -> bytes:
    """Delete a node."""
    if "/" not in path or "\0" in path or path in FIXED:
        raise ZooKeeperError(Code.BAD_ARGUMENTS)
    check(tree.find(parent_of(path)).acl, Permission.DELETE, client.identities)
    tree.delete(path, version)
    return b""


def set_data(tree: Tree, client: Client, path: str, data: bytes | None, version: int) -> bytes:
    """Set the data; returns the Stat."""
    node = _changed(tree, path)
    check(node.acl, Permission.WRITE, client.identities)
    return tree.set_data(path, data, version).stat()


def set_acl(tree: Tree, client: Client, path: str, wish: Wish, version: int) -> bytes:
    """Set the ACL; returns the Stat."""
    if not is_valid(path):
        raise ZooKeeperError(Code.BAD_ARGUMENTS)
    acl = granted(wish, client.identities)
    check(tree.find(path).acl, Permission.ADMIN, client.identities)
    return tree.set_acl(path, acl, version).stat()


def check_node(tree: Tree, client: Client, path: str, version: int) -> bytes:
    """Check that the node exists and has the version."""
    node = _changed(tree, path)
    check(node.acl, Permission.READ, client.identities)
    check_version(node.version, version)
    return b""


def _changed(tree: Tree, path: str) -> Node:
    """The node of a path; an invalid path has none."""
    node = tree.nodes.get(path)
    if node is None:
        raise ZooKeeperError(Code.NO_NODE if is_valid(path) else Code.BAD_ARGUMENTS)
    return node


READS: Final[dict[int, Read]] = {
    Opcode.PING: ping,
    Opcode.SYNC: sync,
    Opcode.EXISTS: exists,
    Opcode.GET_DATA: get_data,
    Opcode.GET_ACL: get_acl,
    Opcode.GET_CHILDREN: get_children,
    Opcode.GET_CHILDREN2: get_children2,
    Opcode.SET_WATCHES: set_watches,
}

CHANGES: Final[dict[int, Change]] = {
    Opcode.CREATE: (_read_create, create),
    Opcode.CREATE2: (_read_create, create2),
    Opcode.DELETE: (_read_path_and_version, delete),
    Opcode.SET_DATA: (_read_set_data, set_data),
    Opcode.SET_ACL: (_read_set_acl, set_acl),
    Opcode.CHECK: (_read_path_and_version, check_node),
}
