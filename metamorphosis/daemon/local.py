"""
``twistd metaq --local``: broker and coordination service in one process.

The service starts before the broker and stops after it has unregistered. Both write their files
into neighbouring directories. Without a ``server.ini`` a default one is written and kept.

Source: ``ServerStartup``, ``EmbedZookeeperServer``. Differs: the original listens on every
interface, whatever ``zk.zkConnect`` says, and keeps its nodes in the directory for temporary files.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from importlib import resources
from typing import Any

from kazoo.hosts import collect_hosts
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.daemon.service import BrokerService
from metamorphosis.errors import ConfigError
from metamorphosis.replication.role import PLAIN, Role
from metamorphosis.zookeeper.service import ZooKeeperService, ZooKeeperSettings

SERVER_INI = "server.ini"
ZOOKEEPER = "zookeeper"
LOCAL_HOST = "localhost"

CHANGES = {
    "hostName=": "hostName=localhost",
    "serverPort=8123": "serverPort={port}",
    "dataPath=": "dataPath={data}",
    "zk.zkConnect=localhost:2181": "zk.zkConnect=localhost:{zookeeper_port}",
    # The time for clients to leave at a stop: short, because this broker is for experiments.
    "zk.zkSyncTimeMs=5000": "zk.zkSyncTimeMs=500",
}
"""Lines of the example configuration, and their replacements."""

READY = """The broker serves.
  Broker     {host}:{port}, topics {topics}
  ZooKeeper  {connect}, root {root}
  Data       {data}
  Settings   {path}
  Look       telnet {host} {port}, then: stats
  Stop       Ctrl-C, or kill -TERM {pid}"""


def default_server_ini(directory: str, port: int, zookeeper_port: int) -> str:
    """The example configuration for a broker of this machine with all its data in ``directory``."""
    example = resources.files("metamorphosis.config").joinpath("example.ini").read_text("utf-8")
    values = {
        "port": port,
        "zookeeper_port": zookeeper_port,
        "data": os.path.join(os.path.abspath(directory), "messages"),
    }
    changes = {line: change.format(**values) for line, change in CHANGES.items()}
    return "".join(f"{changes.get(line, line)}\n" for line in example.splitlines())


def write_server_ini(directory: str, text: str) -> str:
    """
    Write ``server.ini`` unless it exists; returns its path.

    :raises ConfigError: it cannot be written.
    """
    path = os.path.join(os.path.abspath(directory), SERVER_INI)
    try:
        os.makedirs(directory, exist_ok=True)
        if not os.path.exists(path):
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(f"{path}.new", path)  # so that a full disk leaves no partial file
    except OSError as error:
        raise ConfigError(f"Could not write {path} ({error.strerror})") from error
    return path


def zookeeper_settings(config: BrokerConfig) -> ZooKeeperSettings:
    """
    The address and the directory of this broker's coordination service.

    :raises ConfigError: ``zk.zkConnect`` is not a single address of the loopback interface, or the
        messages are in the directory of the service.
    """
    connect = config.zookeeper.connect
    servers, _ = collect_hosts(connect)
    interface = _loopback(servers[0][0]) if len(servers) == 1 else None
    if interface is None:
        raise ConfigError(
            f"{config.path}, [zookeeper] zk.zkConnect={connect}: with --local this must be one"
            f" address of the loopback interface, such as localhost:2181, because the"
            " embedded ZooKeeper listens there; leave --local out to use a ZooKeeper elsewhere"
        )
    directory = os.path.join(os.path.dirname(os.path.abspath(config.data_path)), ZOOKEEPER)
    for path in (config.data_path, *(topic.data_path for topic in config.topics.values())):
        if path and os.path.abspath(path) == directory:
            raise ConfigError(
                f"{config.path}, dataPath={path}: with --local this must not be called {ZOOKEEPER},"
                " because the embedded ZooKeeper keeps its files there; move the messages"
            )
    return ZooKeeperSettings(directory, int(servers[0][1]), interface, port_name="zk.zkConnect")


def _loopback(host: str) -> str | None:
    """The loopback address of a host name, IPv4 if there is one; None if it has others."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None
    addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found]
    if not addresses or not all(address.is_loopback for address in addresses):
        return None
    return str(min(addresses, key=lambda address: address.version))


class LocalBroker(BrokerService):
    """
    A broker for this machine that logs its addresses and first steps.

    Other machines cannot find it, because its ZooKeeper is on the loopback interface. Its own port
    is on that interface too, unless ``interface`` is set, or ``hostName`` names a host on another
    one.

    Differs: the original listens on every interface.
    """

    _log = Logger()

    def interface(self) -> str:
        """The address to listen on, empty: all."""
        told = super().interface()
        if told:
            return told
        return _loopback(self.config.host_name or LOCAL_HOST) or ""

    def host(self) -> str:
        """The host that clients find in ZooKeeper: one that they can reach."""
        if self.config.host_name or super().interface():
            return super().host()
        return LOCAL_HOST

    def started(self) -> None:
        """Log the addresses and the first steps."""
        super().started()
        config = self.config
        self._log.info(
            READY,
            host=config.host_name or "localhost",
            port=config.server_port,
            topics=", ".join(sorted(config.topics)),
            connect=config.zookeeper.connect,
            root=config.zookeeper.root,
            data=os.path.dirname(os.path.abspath(config.data_path)),
            path=config.path,
            pid=os.getpid(),
        )


class LocalService(Service):
    """
    A broker and its coordination service. Thread: reactor.

    :ivar zookeeper: starts first, stops last.
    """

    def __init__(self, broker: BrokerService, zookeeper: ZooKeeperService) -> None:
        self.broker = broker
        self.zookeeper = zookeeper

    def startService(self) -> None:
        """
        Start both.

        :raises StartRefused: the reason is in the log.
        """
        super().startService()
        self.zookeeper.startService()
        try:
            self.broker.startService()
        except BaseException:
            self.zookeeper.stopService()
            raise

    def stopService(self) -> Deferred[None]:
        """Stop the broker, then the coordination service; never fails."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.broker.stopService()
        await self.zookeeper.stopService()


def local_service(
    reactor: Any,
    config: BrokerConfig,
    settings: Settings,
    zookeeper: ZooKeeperSettings,
    role: Role = PLAIN,
) -> LocalService:
    """The broker of a configuration, and its coordination service."""
    broker = LocalBroker(reactor, config, settings, role)
    return LocalService(broker, ZooKeeperService(reactor, zookeeper))
