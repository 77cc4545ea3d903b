"""
The contents of the znodes, as values, and the events of a registry. Pure: no Twisted, no kazoo.

Source: ``Broker``, ``TopicBroker``, ``TopicConfig``. All node data are bare UTF-8.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qs, urlsplit

from metamorphosis.wire.numbers import shown


@dataclass(frozen=True, slots=True)
class Broker:
    """
    A broker as it is published. Two are equal if id, host, port and slave id are equal.

    :ivar host: name or address; IPv6 literals without brackets.
    :ivar slave_id: ``None`` for a master.
    """

    broker_id: int
    host: str
    port: int
    slave_id: int | None = None

    @classmethod
    def parse(cls, broker_id: int, url: str) -> Broker:
        """
        The broker of ``meta://host:port``; of a query part only ``slaveId`` counts.

        :raises ValueError: the text is not such a URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            slave = parse_qs(parts.query).get("slaveId")
            slave_id = int(slave[0]) if slave else None
        except ValueError as error:  # its text may repeat the whole URL
            raise ValueError(f"broker URL {shown(url)}: meta://host:port expected") from error
        if parts.scheme != "meta" or not host or port is None:
            raise ValueError(f"broker URL {shown(url)}: meta://host:port expected")
        authority = parts.netloc.rpartition("@")[2]  # urlsplit's hostname is in lower case
        written = authority.rpartition(":")[0].strip("[]")
        return cls(broker_id, written, port, slave_id)

    @property
    def url(self) -> str:
        """``meta://host:port``, as in ZooKeeper; never with a query."""
        host = self.host
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"meta://{host}:{self.port}"

    @property
    def node_name(self) -> str:
        """The name of this broker's node below a topic: ``<id>-m`` or ``<id>-s<n>``."""
        kind = "m" if self.slave_id is None else f"s{self.slave_id}"
        return f"{self.broker_id}-{kind}"


@dataclass(frozen=True, slots=True)
class TopicBroker:
    """
    Data of a node below ``topics-pub`` and ``topics-sub``.

    :ivar broker: the node's own name; ``None`` if the writer left it out.
    """

    num_parts: int
    broker: str | None

    def encode(self) -> bytes:
        """
        Exactly two members, compact, ``numParts`` first: Java readers reject a node with any other
        member.
        """
        members = {"numParts": self.num_parts, "broker": self.broker}
        return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode("utf-8")

    @classmethod
    def parse(cls, data: bytes | None) -> TopicBroker:
        """
        Read the forms of all writers of the field: members in any order, white space, a numeric
        text as count.

        :raises ValueError: the data are missing, or not an object with a count.
        """
        try:
            members = json.loads(data or b"")
            broker = members.get("broker")
            return cls(int(members["numParts"]), None if broker is None else str(broker))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f'topic node {shown(data or b"")}: {{"numParts":n,"broker":"0-m"}} expected'
            ) from error


@dataclass(frozen=True, slots=True)
class TopicRegistration:
    """The part of a topic's configuration that is in ZooKeeper."""

    topic: str
    num_partitions: int
    accept_publish: bool = True
    accept_subscribe: bool = True


@dataclass(frozen=True, slots=True)
class NodeStat:
    """
    A node without its data.

    :ivar owner: id of the session whose end removes the node; 0 for a persistent node.
    :ivar version: counts changes of the data.
    :ivar children: the number of its children.
    :ivar modified_ms: the time of the last write to the data, ms since 1970 by the server's clock.
    """

    owner: int
    version: int
    children: int = 0
    modified_ms: int = 0


class SessionState(Enum):
    """The state of the session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"  # the connection is gone, the session may live on
    LOST = "lost"  # the session is over, its ephemeral nodes are gone


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """
    A change of the session's state. ``new_session``, only with CONNECTED: the session has no nodes
    yet.
    """

    state: SessionState
    new_session: bool = False


class WatchKind(Enum):
    """The change of a watched node."""

    CREATED = "created"
    DELETED = "deleted"
    CHANGED = "changed"
    CHILDREN = "children"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """
    A one-shot watch fired. All watches end silently with the connection: read again at each
    CONNECTED.
    """

    kind: WatchKind
    path: str


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """
    The reason why there is no connection.

    :ivar reason: the system's text, such as ``Connection refused``.
    :ivar refused: each attempt fails at once, because no program listens there or the name does not
        resolve: waiting helps only if a server is started, or the name is corrected.
    """

    reason: str
    refused: bool = False

    @classmethod
    def of(cls, error: BaseException) -> ConnectionFault:
        """The fault for the error of an attempt to connect."""
        refused = isinstance(error, ConnectionRefusedError | socket.gaierror)
        return cls(reason_of(error), refused)


def reason_of(error: BaseException) -> str:
    """
    The system's text of an error, without the addresses and numbers that libraries add to it.
    """
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
