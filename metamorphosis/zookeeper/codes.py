"""
The numbers of the protocol, and the error that has one of them.

Source: ``KeeperException.Code``, ``ZooDefs``, ``Watcher.Event``, ``CreateMode``.
"""

from __future__ import annotations

import enum
from typing import Final


class Code(enum.IntEnum):
    """Errors as they are sent to clients."""

    OK = 0
    RUNTIME_INCONSISTENCY = -2  # in a failed multi: the operations after the one that failed
    MARSHALLING_ERROR = -5
    UNIMPLEMENTED = -6
    BAD_ARGUMENTS = -8
    NO_NODE = -101
    NO_AUTH = -102
    BAD_VERSION = -103
    NO_CHILDREN_FOR_EPHEMERALS = -108
    NODE_EXISTS = -110
    NOT_EMPTY = -111
    INVALID_ACL = -114
    AUTH_FAILED = -115


class ZooKeeperError(Exception):
    """
    A request that cannot be granted; the client gets the code, the connection stays.

    :ivar code: the code in the header of the reply.
    """

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code.name} ({self.code.value})"


class Opcode:
    """Operations of a client."""

    CREATE: Final = 1
    DELETE: Final = 2
    EXISTS: Final = 3
    GET_DATA: Final = 4
    SET_DATA: Final = 5
    GET_ACL: Final = 6
    SET_ACL: Final = 7
    GET_CHILDREN: Final = 8
    SYNC: Final = 9
    PING: Final = 11
    GET_CHILDREN2: Final = 12
    CHECK: Final = 13
    MULTI: Final = 14
    CREATE2: Final = 15
    AUTH: Final = 100
    SET_WATCHES: Final = 101
    CREATE_SESSION: Final = -10  # of a handshake, which has no number on the wire
    CLOSE_SESSION: Final = -11
    ERROR: Final = -1  # in the reply to a multi


class EventType:
    """Events of a watched node."""

    CREATED: Final = 1
    DELETED: Final = 2
    DATA_CHANGED: Final = 3
    CHILDREN_CHANGED: Final = 4


#: the state in every event of a server: the client is connected
SYNC_CONNECTED: Final = 3

#: the xid and the zxid in the header of an event
NOTIFICATION: Final = -1


class Permission:
    """Bits of an ACL entry."""

    READ: Final = 1
    WRITE: Final = 2
    CREATE: Final = 4
    DELETE: Final = 8
    ADMIN: Final = 16
    ALL: Final = 31


class CreateFlag:
    """Bits of the flags of a create; no others exist in 3.4."""

    EPHEMERAL: Final = 1
    SEQUENTIAL: Final = 2
