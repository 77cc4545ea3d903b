"""
The four-letter words that monitoring sends instead of a handshake: ``ruok stat srvr mntr cons dump
envi conf isro``.

The texts are those of ZooKeeper 3.4, as far as they mean something here.

Source: ``NIOServerCnxn``.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from metamorphosis import __version__

if TYPE_CHECKING:
    from metamorphosis.zookeeper.connection import ZooKeeperConnection
    from metamorphosis.zookeeper.factory import ZooKeeperFactory

VERSION: Final = f"3.4.6-metamorphosis-{__version__}"
"""Clients take the digits in front for what the server can do."""


class Words:
    """
    The answers about one server. Thread: reactor.

    :param configuration: what ``conf`` says.
    """

    def __init__(self, configuration: Mapping[str, object]) -> None:
        self._configuration = tuple(configuration.items())
        self._texts = {
            b"ruok": lambda _: "imok",
            b"isro": lambda _: "rw",
            b"srvr": lambda factory: _lines(self._server(factory)),
            b"stat": self._stat,
            b"mntr": lambda factory: _lines(f"{k}\t{v}" for k, v in _figures(factory)),
            b"cons": lambda factory: _lines((*map(_connection, factory.connections), "")),
            b"dump": lambda factory: _lines(_dump(factory)),
            b"envi": lambda _: _lines(("Environment:", *_pairs(_environment()))),
            b"conf": lambda _: _lines(_pairs(self._configuration)),
        }

    def answer(self, word: bytes, factory: ZooKeeperFactory) -> bytes | None:
        """The answer to the first four bytes of a connection; None if they are no such word."""
        text = self._texts.get(word)
        return None if text is None else text(factory).encode()

    def _stat(self, factory: ZooKeeperFactory) -> str:
        version, *rest = self._server(factory)
        clients = (_short(connection) for connection in factory.connections)
        return _lines((version, "Clients:", *clients, "", *rest))

    @staticmethod
    def _server(factory: ZooKeeperFactory) -> Iterator[str]:
        figures = dict(_figures(factory))
        yield f"Zookeeper version: {VERSION}"
        yield "Latency min/avg/max: {zk_min_latency}/{zk_avg_latency}/{zk_max_latency}".format(
            **figures
        )
        yield f"Received: {figures['zk_packets_received']}"
        yield f"Sent: {figures['zk_packets_sent']}"
        yield f"Connections: {figures['zk_num_alive_connections']}"
        yield f"Outstanding: {figures['zk_outstanding_requests']}"
        yield f"Zxid: {factory.server.tree.zxid:#x}"
        yield "Mode: standalone"
        yield f"Node count: {figures['zk_znode_count']}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _pairs(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    return (f"{name}={value}" for name, value in pairs)


def _figures(factory: ZooKeeperFactory) -> Iterator[tuple[str, object]]:
    """What ``mntr`` says; times in milliseconds."""
    latency, tree = factory.latency, factory.server.tree
    connections = factory.connections
    yield "zk_version", VERSION
    yield "zk_avg_latency", round(1000 * latency.total / max(latency.count, 1), 2)
    yield "zk_max_latency", round(1000 * latency.most, 2)
    yield "zk_min_latency", round(1000 * latency.least, 2)
    yield "zk_packets_received", factory.received + sum(one.received for one in connections)
    yield "zk_packets_sent", factory.sent + sum(one.sent for one in connections)
    yield "zk_num_alive_connections", len(connections)
    yield "zk_outstanding_requests", sum(one.waiting for one in connections)
    yield "zk_server_state", "standalone"
    yield "zk_znode_count", len(tree.nodes)
    yield "zk_watch_count", sum(len(one.watching) for one in connections)
    yield "zk_ephemerals_count", sum(map(len, tree.ephemerals.values()))
    yield "zk_approximate_data_size", tree.data_size
    yield "zk_open_file_descriptor_count", len(os.listdir("/proc/self/fd"))
    yield "zk_max_file_descriptor_count", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield "zk_global_sessions", len(factory.server.sessions.by_id)


def _environment() -> Iterator[tuple[str, object]]:
    yield "zookeeper.version", VERSION
    yield "host.name", platform.node()
    yield "python.version", platform.python_version()
    yield "os.name", platform.system()
    yield "os.arch", platform.machine()
    yield "os.version", platform.release()
    yield "user.dir", os.getcwd()


def _peer(connection: ZooKeeperConnection) -> str:
    peer = connection.transport.getPeer()
    host = f"[{peer.host}]" if ":" in peer.host else peer.host
    return f" /{host}:{peer.port}[{int(connection.session is not None)}]"


def _short(connection: ZooKeeperConnection) -> str:
    return (
        f"{_peer(connection)}(queued={connection.waiting},recved={connection.received},"
        f"sent={connection.sent})"
    )


def _connection(connection: ZooKeeperConnection) -> str:
    session = connection.session
    if session is None:
        return _short(connection)
    return f"{_short(connection)[:-1]},sid={session.id:#x},to={session.timeout})"


def _dump(factory: ZooKeeperFactory) -> Iterator[str]:
    """Sessions, and who owns which ephemeral nodes."""
    sessions, ephemerals = factory.server.sessions.by_id, factory.server.tree.ephemerals
    yield "SessionTracker dump:"
    yield f"Session Sets ({len(sessions)}):"
    for number in sorted(sessions):
        yield f"\t{number:#x}\ttimeout {sessions[number].timeout} ms"
    yield "ephemeral nodes dump:"
    yield f"Sessions with Ephemerals ({len(ephemerals)}):"
    for number in sorted(ephemerals):
        yield f"{number:#x}:"
        yield from (f"\t{path}" for path in sorted(ephemerals[number]))
