"""
The four-letter words that monitoring sends instead of a handshake: ``ruok stat srvr mntr cons dump
envi conf isro wchs wchc wchp crst srst``.

The texts, names and types are those of ZooKeeper 3.4.14, recorded and compared word by word
(``tests/unit/zookeeper/test_words.py``).

Source: ``NIOServerCnxn``. Differs: ``envi`` has one line about Python in place of nine about Java;
``dump`` gives the wall time at which sessions expire, not the time since the start of the machine;
there is no trace mask (``gtmk``, ``stmk``).
"""

from __future__ import annotations

import getpass
import os
import platform
import resource
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from metamorphosis import __version__
from metamorphosis.zookeeper.codes import Opcode
from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.members import HANDSHAKE, Latency, Member, Members
from metamorphosis.zookeeper.requests import CHANGES
from metamorphosis.zookeeper.server import Server
from metamorphosis.zookeeper.watches import NODE

VERSION: Final = f"3.4.6-metamorphosis-{__version__}"
"""Clients derive the features of the server from the leading digits."""

OPERATIONS: Final = {
    Opcode.CREATE_SESSION: "SESS",
    Opcode.CREATE: "CREA",
    Opcode.DELETE: "DELE",
    Opcode.EXISTS: "EXIS",
    Opcode.GET_DATA: "GETD",
    Opcode.SET_DATA: "SETD",
    Opcode.GET_ACL: "GETA",
    Opcode.SET_ACL: "SETA",
    Opcode.GET_CHILDREN: "GETC",
    Opcode.GET_CHILDREN2: "GETC",
    Opcode.SYNC: "SYNC",
    Opcode.PING: "PING",
    Opcode.CHECK: "CHEC",
    Opcode.MULTI: "MULT",
    Opcode.CREATE2: "CREA",
    Opcode.SET_WATCHES: "SETW",
}
"""The name in ``cons`` of the last operation of a connection."""

_REQUEST: Final = struct.Struct(">ii")  # xid, operation
_REPLY: Final = struct.Struct(">iqi")  # xid, zxid, error
_NO_ZXID: Final = 0xFFFF_FFFF_FFFF_FFFF


def configuration(port: int, directory: str, tick: int, max_connections: int) -> dict[str, object]:
    """The answer to ``conf``; ``tick`` in milliseconds."""
    return {
        "clientPort": port,
        "dataDir": directory,
        "dataLogDir": directory,
        "tickTime": tick,
        "maxClientCnxns": max_connections,
        "minSessionTimeout": 2 * tick,
        "maxSessionTimeout": 20 * tick,
        "serverId": 0,
    }


class Words:
    """
    The answers about one server. Thread: reactor.

    :param conf: the names and values in the answer to ``conf``.
    """

    def __init__(
        self,
        conf: Mapping[str, object],
        server: Server,
        commits: Commits,
        members: Members,
    ) -> None:
        self._conf = conf
        self._server = server
        self._commits = commits
        self._members = members
        self._texts: dict[bytes, Callable[[], Iterable[str]]] = {
            b"srvr": self._srvr,
            b"stat": self._stat,
            b"mntr": lambda: (f"{name}\t{value}" for name, value in self._figures()),
            b"cons": lambda: (*map(self._connection, self._members.connections), ""),
            b"dump": self._dump,
            b"envi": lambda: ("Environment:", *_pairs(_environment())),
            b"conf": lambda: _pairs(self._conf.items()),
            b"crst": self._reset_connections,
            b"srst": self._reset,
            b"wchs": self._watch_summary,
            b"wchc": self._watches_by_session,
            b"wchp": self._watches_by_path,
            b"ruok": lambda: ("imok",),
            b"isro": lambda: ("rw",),
        }

    def answer(self, word: bytes) -> bytes | None:
        """The answer to the first four bytes of a connection; None if they are no such word."""
        lines = self._texts.get(word)
        if lines is None:
            return None
        text = "\n".join(lines())
        return (text if word in (b"ruok", b"isro") else f"{text}\n").encode()

    def _srvr(self) -> Iterator[str]:
        yield f"Zookeeper version: {VERSION}"
        yield from self._counts()

    def _stat(self) -> Iterator[str]:
        yield f"Zookeeper version: {VERSION}"
        yield "Clients:"
        yield from map(_short, self._members.connections)
        yield ""
        yield from self._counts()

    def _counts(self) -> Iterator[str]:
        figures = dict(self._figures())
        least, average, most = _milliseconds(self._members.latency)
        yield f"Latency min/avg/max: {least}/{average}/{most}"
        yield f"Received: {figures['zk_packets_received']}"
        yield f"Sent: {figures['zk_packets_sent']}"
        yield f"Connections: {figures['zk_num_alive_connections']}"
        yield f"Outstanding: {figures['zk_outstanding_requests']}"
        yield f"Zxid: {self._server.tree.zxid:#x}"
        yield "Mode: standalone"
        yield f"Node count: {figures['zk_znode_count']}"

    def _figures(self) -> Iterator[tuple[str, object]]:
        """The answer to ``mntr``."""
        members, tree = self._members, self._server.tree
        connections = members.connections
        least, average, most = _milliseconds(members.latency)
        yield "zk_version", VERSION
        yield "zk_avg_latency", average
        yield "zk_max_latency", most
        yield "zk_min_latency", least
        yield "zk_packets_received", members.received
        yield "zk_packets_sent", members.sent
        yield "zk_num_alive_connections", len(connections)
        yield "zk_outstanding_requests", sum(one.waiting for one in connections)
        yield "zk_server_state", "standalone"
        yield "zk_znode_count", len(tree.nodes) + 1  # ZooKeeper has its root twice
        yield "zk_watch_count", sum(len(one.watching) for one in connections)
        yield "zk_ephemerals_count", sum(map(len, tree.ephemerals.values()))
        yield "zk_approximate_data_size", tree.data_size
        yield "zk_open_file_descriptor_count", len(os.listdir("/proc/self/fd"))
        yield "zk_max_file_descriptor_count", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield "zk_fsync_threshold_exceed_count", self._commits.slow

    @staticmethod
    def _connection(connection: Member) -> str:
        """A line of ``cons``."""
        session, traffic = connection.session, connection.traffic
        if session is None:
            return _short(connection)
        operation, xid, zxid = _last(connection)
        least, average, most = _milliseconds(traffic.latency)
        fields = (
            f"sid={session.id:#x}",
            f"lop={operation}",
            f"est={traffic.established}",
            f"to={session.timeout}",
            *([] if xid is None else [f"lcxid={xid:#x}"]),
            f"lzxid={zxid:#x}",
            f"lresp={int(traffic.answered * 1000)}",
            f"llat={int(traffic.latency.last * 1000)}",
            f"minlat={least}",
            f"avglat={average}",
            f"maxlat={most}",
        )
        return f"{_short(connection)[:-1]},{','.join(fields)})"

    def _dump(self) -> Iterator[str]:
        """The expiry times of sessions, and their ephemeral nodes."""
        ephemerals = self._server.tree.ephemerals
        yield "SessionTracker dump:"
        yield from self._expiries()
        yield "ephemeral nodes dump:"
        yield f"Sessions with Ephemerals ({len(ephemerals)}):"
        for number in sorted(ephemerals):
            yield f"{number:#x}:"
            yield from (f"\t{path}" for path in sorted(ephemerals[number]))

    def _expiries(self) -> Iterator[str]:
        """Sessions by the second at which they would expire."""
        offset = self._server.wall_clock() - self._server.clock()
        sets: dict[int, list[int]] = {}
        for session in self._server.sessions.by_id.values():
            second = int(session.heard + session.timeout / 1000 + offset) + 1
            sets.setdefault(second, []).append(session.id)
        yield f"Session Sets ({len(sets)}):"
        for second in sorted(sets):
            when = time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(second))
            yield f"{len(sets[second])} expire at {when}:"
            yield from (f"\t{number:#x}" for number in sorted(sets[second]))

    def _reset_connections(self) -> tuple[str]:
        self._members.reset_connections()
        return ("Connection stats reset.",)

    def _reset(self) -> tuple[str]:
        self._members.reset()
        return ("Server stats reset.",)

    def _watched(self) -> Iterator[tuple[str, list[Member]]]:
        """The paths whose data or existence is watched; ZooKeeper lists no others."""
        for (kind, path), clients in self._server.watches.watched.items():
            if kind == NODE:
                yield path, [one for one in self._members.connections if one in clients]

    def _watch_summary(self) -> Iterator[str]:
        watched = dict(self._watched())
        connections = {one for clients in watched.values() for one in clients}
        yield f"{len(connections)} connections watching {len(watched)} paths"
        yield f"Total watches:{sum(map(len, watched.values()))}"

    def _watches_by_session(self) -> Iterator[str]:
        for connection in self._members.connections:
            paths = [path for kind, path in sorted(connection.watching) if kind == NODE]
            if paths and connection.session is not None:
                yield f"{connection.session.id:#x}"
                yield from (f"\t{path}" for path in paths)
        yield ""

    def _watches_by_path(self) -> Iterator[str]:
        for path, connections in self._watched():
            yield path
            for connection in connections:
                if connection.session is not None:
                    yield f"\t{connection.session.id:#x}"
        yield ""


def _pairs(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    return (f"{name}={value}" for name, value in pairs)


def _milliseconds(latency: Latency) -> tuple[int, int, int]:
    """Least, average, most: whole numbers, which monitors parse as such."""
    average = latency.total / max(latency.count, 1)
    return int(latency.least * 1000), int(average * 1000), int(latency.most * 1000)


def _environment() -> Iterator[tuple[str, object]]:
    yield "zookeeper.version", VERSION
    yield "host.name", platform.node()
    yield "python.version", platform.python_version()
    yield "os.name", platform.system()
    yield "os.arch", platform.machine()
    yield "os.version", platform.release()
    yield "user.name", _user()
    yield "user.home", os.path.expanduser("~")
    yield "user.dir", os.getcwd()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user in a container may have no name
        return str(os.getuid())


def _short(connection: Member) -> str:
    """A line of ``stat``."""
    peer = connection.address
    host, port = getattr(peer, "host", ""), getattr(peer, "port", 0)
    shown = f"[{host}]" if ":" in host else host
    traffic = connection.traffic
    return (
        f" /{shown}:{port}[{int(connection.session is not None)}](queued={connection.waiting},"
        f"recved={traffic.received},sent={traffic.sent})"
    )


def _last(connection: Member) -> tuple[str, int | None, int]:
    """Operation, xid and zxid of the last request; a change that failed is not named."""
    traffic = connection.traffic
    request, numbered, reply = traffic.last_request, traffic.last_numbered, traffic.last_reply
    xid = _REQUEST.unpack(numbered)[0] if len(numbered) == _REQUEST.size else None
    if request is HANDSHAKE:
        return OPERATIONS[Opcode.CREATE_SESSION], xid, traffic.first_zxid
    operation = _REQUEST.unpack(request)[1] if len(request) == _REQUEST.size else None
    zxid, error = _REPLY.unpack(reply)[1:] if len(reply) == _REPLY.size else (_NO_ZXID, 0)
    failed = error and operation in CHANGES
    return "NA" if failed else OPERATIONS.get(operation or 0, "NA"), xid, zxid
