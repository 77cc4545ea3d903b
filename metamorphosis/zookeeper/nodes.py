"""
A node and its Stat; the check of paths.

Source: ``DataNode``, ``StatPersisted``, ``PathUtils``.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Final

from metamorphosis.zookeeper.acl import Acl

_STAT: Final = struct.Struct(">qqqqiiiqiiq")

#: control characters, private use, surrogates (so everything beyond the basic plane, as Java has
#: two of them there), specials; names that are empty, "." or ".."; a slash at the end
_BAD_PATH: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\U0010ffff]|//|/\\.\\.?(?:/|\\Z)|(?<=.)/\\Z"
)


@dataclass(slots=True, eq=False)
class Node:
    """
    The data stored under one path.

    :ivar data: None and empty are different values.
    :ivar ctime: milliseconds since 1970, as ``mtime``.
    :ivar creates: the number of children ever created here, from which sequential nodes get their
        numbers; deletions do not lower it. (ZooKeeper's stored cversion.)
    :ivar owner: the session of an ephemeral node, else 0.
    :ivar children: their names, in the order of creation; not stored, but derived from the paths.
    """

    data: bytes | None
    acl: Acl
    czxid: int
    ctime: int
    mzxid: int
    mtime: int
    pzxid: int
    version: int = 0
    creates: int = 0
    aversion: int = 0
    owner: int = 0
    children: dict[str, None] = field(default_factory=dict)

    def stat(self) -> bytes:
        """The Stat for clients. Its cversion counts each creation and each deletion of a child."""
        data = self.data
        children = len(self.children)
        try:
            return _STAT.pack(
                self.czxid,
                self.mzxid,
                self.ctime,
                self.mtime,
                self.version,
                2 * self.creates - children,
                self.aversion,
                self.owner,
                len(data) if data else 0,
                children,
                self.pzxid,
            )
        except struct.error:
            return self._wrapped_stat()

    def _wrapped_stat(self) -> bytes:
        """The Stat when a count exceeds 32 bits: it wraps to negative numbers, as in ZooKeeper."""
        return _STAT.pack(
            self.czxid,
            self.mzxid,
            self.ctime,
            self.mtime,
            int32(self.version),
            int32(2 * self.creates - len(self.children)),
            int32(self.aversion),
            self.owner,
            len(self.data or b""),
            len(self.children),
            self.pzxid,
        )


def int32(number: int) -> int:
    """The number as a signed 32-bit integer."""
    return (number + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def is_valid(path: str) -> bool:
    """Whether a node may have this path."""
    if not path.startswith("/"):
        return False
    if path.isascii() and path.isprintable() and "//" not in path and "/." not in path:
        return path == "/" or not path.endswith("/")  # as the expression, in a quarter of its time
    return _BAD_PATH.search(path) is None


def parent_of(path: str) -> str:
    """The path of the parent of any node except the root."""
    return path[: path.rindex("/")] or "/"
