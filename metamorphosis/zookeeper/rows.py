"""
Nodes and sessions as rows of the database, and back.

A row that is read is checked field by field, because the file may have been edited or damaged: the
fault is then one line at the start, not a traceback during a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.nodes import Node, is_valid, parent_of
from metamorphosis.zookeeper.sessions import PASSWORD_BYTES, Session

COLUMNS: Final = {
    "node": (
        *("id", "path", "data", "acl", "czxid", "ctime", "mzxid", "mtime", "pzxid"),
        *("version", "creates", "aversion", "owner"),
    ),
    "session": ("id", "password", "timeout"),
    "state": ("name", "value"),
    "probe": ("space",),
}
"""The columns of each table, in their order."""

_NUMBERS: Final = (int,) * 9
_MAX_TIMEOUT: Final = (1 << 31) - 1
_SHOWN: Final = 80  # characters of a bad value


class BadRow(ValueError):
    """
    A row has a value that this program never writes.

    :param where: table and row.
    """

    def __init__(self, where: str, column: str, value: object, expected: str) -> None:
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        super().__init__(f"{where}, column {column}: {shown} is not {expected}")


def node_row(number: int, path: str, node: Node) -> tuple[object, ...]:
    """
    The row of a node.

    :param number: its id in the table.
    """
    return (
        number,
        path,
        node.data,
        None if node.acl is OPEN else _acl_text(node.acl),
        node.czxid,
        node.ctime,
        node.mzxid,
        node.mtime,
        node.pzxid,
        node.version,
        node.creates,
        node.aversion,
        node.owner,
    )


def node_of(row: tuple[Any, ...]) -> Node:
    """
    The node of a row.

    :raises BadRow: a value is not valid.
    """
    _, path, data, acl, *numbers = row
    if not isinstance(path, str) or not (path == "/" or is_valid(path)):
        raise BadRow("table node", "path", path, "the path of a node")
    where = f"table node, path {path!r}"
    if data is not None and type(data) is not bytes:
        raise BadRow(where, "data", data, "a BLOB")
    if tuple(map(type, numbers)) != _NUMBERS:
        for column, number in zip(COLUMNS["node"][4:], numbers):
            if type(number) is not int:
                raise BadRow(where, column, number, "an INTEGER")
    if acl is None:
        return Node(data, OPEN, *numbers)
    try:
        return Node(data, _acl(acl), *numbers)
    except (ValueError, TypeError):
        raise BadRow(where, "acl", acl, "a list of [permissions, scheme, id]") from None


def session_row(session: Session) -> tuple[object, ...]:
    """The row of a session."""
    return session.id, session.password, session.timeout


def session_of(row: tuple[object, ...]) -> Session:
    """
    The session of a row.

    :raises BadRow: a value is not valid.
    """
    number, password, timeout = row
    where = f"table session, id {number!r}"
    if type(number) is not int or not number:
        raise BadRow("table session", "id", number, "the number of a session")
    if type(password) is not bytes or len(password) != PASSWORD_BYTES:
        raise BadRow(where, "password", password, f"a BLOB of {PASSWORD_BYTES} bytes")
    if type(timeout) is not int or not 0 < timeout <= _MAX_TIMEOUT:
        raise BadRow(where, "timeout", timeout, "a number of milliseconds")
    return Session(number, password, timeout)


def state_value(name: str, row: tuple[object, ...] | None) -> int:
    """
    A number of the table ``state``.

    :param row: None if it is missing.
    :raises BadRow: it is missing, or not a number.
    """
    value = None if row is None else row[0]
    if type(value) is not int or value < 0:
        raise BadRow(f"table state, name {name!r}", "value", value, "a number")
    return value


def check_relations(nodes: Mapping[str, Node], sessions: Mapping[int, Session]) -> None:
    """
    Check that each node has its parent and each ephemeral node its session.

    :raises ValueError: one has not; the text names it.
    """
    for path, node in nodes.items():
        if path != "/" and parent_of(path) not in nodes:
            raise ValueError(f"node {path} has no parent")
        if node.owner and node.owner not in sessions:
            raise ValueError(f"node {path} belongs to session {node.owner:#x}, which is missing")


@lru_cache(1000)
def _acl_text(acl: Acl) -> str:
    return json.dumps(acl)


@lru_cache(1000)
def _acl(text: str) -> Acl:
    entries = json.loads(text)
    acl: list[tuple[int, str, str]] = []
    for permissions, scheme, name in entries:
        if not (type(permissions) is int and type(scheme) is str and type(name) is str):
            raise ValueError(text)
        acl.append((permissions, scheme, name))
    if type(entries) is not list:
        raise ValueError(text)
    return tuple(acl)
