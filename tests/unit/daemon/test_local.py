"""``twistd metaq --local``: the configuration it writes, where the service is, and the order."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import serverini
from metamorphosis.config.hostname import own_address
from metamorphosis.config.model import BrokerConfig, Settings, ZooKeeperConfig
from metamorphosis.daemon import local
from metamorphosis.daemon.process import StartRefused
from metamorphosis.daemon.service import BrokerService
from metamorphosis.errors import ConfigError


class ServerIniTests(SynchronousTestCase):
    """The ``server.ini`` of the first start."""

    def setUp(self) -> None:
        self.directory = os.path.join(os.path.abspath(self.mktemp()), "new")

    def write(self, port: int = 8123, zookeeper_port: int = 2181) -> str:
        """Its path."""
        text = local.default_server_ini(self.directory, port, zookeeper_port)
        return local.write_server_ini(self.directory, text)

    def test_is_good(self) -> None:
        """It has no fault and no warning, and says what the README says."""
        config = serverini.load(self.write())
        self.assertEqual(config.warnings, ())
        self.assertEqual((config.server_port, config.zookeeper.connect), (8123, "localhost:2181"))
        self.assertEqual(config.data_path, os.path.join(self.directory, "messages"))
        self.assertEqual((config.host_name, config.zookeeper.sync_time), ("localhost", 500))
        self.assertEqual(list(config.topics), ["meta-test", "test"])

    def test_ports(self) -> None:
        """Both can be chosen."""
        config = serverini.load(self.write(9123, 3181))
        self.assertEqual((config.server_port, config.zookeeper.connect), (9123, "localhost:3181"))

    def test_every_change_applies(self) -> None:
        """Each line that is replaced is in the example."""
        example = os.path.join(os.path.dirname(serverini.__file__), "example.ini")
        with open(example, encoding="utf-8") as file:
            lines = file.read().splitlines()
        self.assertEqual([line for line in local.CHANGES if lines.count(line) != 1], [])

    def test_comments_stay(self) -> None:
        """The file explains each key to its editor."""
        with open(self.write(), encoding="utf-8") as file:
            self.assertGreater(file.read().count("\n; "), 10)

    def test_is_kept(self) -> None:
        """An existing file is not touched."""
        path = self.write()
        with open(path, "w", encoding="utf-8") as file:
            file.write("mine")
        self.assertEqual(self.write(1, 2), path)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine")
        self.assertEqual(os.listdir(self.directory), ["server.ini"])

    def test_cannot_be_written(self) -> None:
        """The path is named."""
        self.directory = "/proc/no/such"
        error = self.assertRaises(ConfigError, self.write)
        self.assertIn("/proc/no/such/server.ini", str(error))


class SettingsTests(SynchronousTestCase):
    """Where the service of a broker is."""

    def settings(self, connect: str, data: str = "/data/messages") -> Any:
        """Of a configuration."""
        zookeeper = ZooKeeperConfig(connect=connect)
        config = BrokerConfig(0, data_path=data, zookeeper=zookeeper, path="/etc/server.ini")
        return local.zookeeper_settings(config)

    def test_loopback(self) -> None:
        """Names and addresses of the loopback interface, with and without a chroot."""
        for connect, interface, port in (
            ("127.0.0.1:2181", "127.0.0.1", 2181),
            ("localhost:3181/chroot", "127.0.0.1", 3181),
            ("localhost", "127.0.0.1", 2181),
            ("127.1.2.3:1", "127.1.2.3", 1),
            ("[::1]:2181", "::1", 2181),
        ):
            found = self.settings(connect)
            self.assertEqual((found.interface, found.port), (interface, port), connect)
            self.assertEqual(found.port_name, "zk.zkConnect")

    def test_name_with_two_addresses(self) -> None:
        """IPv4 is what every client tries."""
        both = [(0, 0, 0, "", ("::1", 0, 0, 0)), (0, 0, 0, "", ("127.0.0.1", 0))]
        self.patch(socket, "getaddrinfo", lambda *args, **kwargs: both)
        self.assertEqual(self.settings("localhost:2181").interface, "127.0.0.1")

    def test_data_beside_the_messages(self) -> None:
        """Not among them: a Java broker does not like other directories there."""
        self.assertEqual(self.settings("localhost:2181").directory, "/data/zookeeper")
        relative = self.settings("localhost:2181", "meta").directory
        self.assertEqual(relative, os.path.abspath("zookeeper"))

    def test_messages_in_its_place(self) -> None:
        """Refused before a file is made: neither half could read the other's directory."""
        for path in ("/data/zookeeper", "/data/zookeeper/"):
            error = self.assertRaises(ConfigError, self.settings, "localhost:2181", path)
            self.assertIn(f"/etc/server.ini, dataPath={path}:", str(error))

    def test_elsewhere(self) -> None:
        """Anything else is refused; file, key and what would be right are named."""
        for connect in (
            "localhost:2181,localhost:2182",
            "10.1.2.3:2181",
            "0.0.0.0:2181",
            "no.such.host.invalid:2181",
        ):
            error = self.assertRaises(ConfigError, self.settings, connect)
            for text in ("/etc/server.ini", f"zk.zkConnect={connect}:", "localhost:2181"):
                self.assertIn(text, str(error))

    def test_name_of_this_machine_outside(self) -> None:
        """A name that also has an outside address is refused: the service would listen there."""
        both = [(0, 0, 0, "", ("127.0.0.1", 0)), (0, 0, 0, "", ("10.0.0.1", 0))]
        self.patch(socket, "getaddrinfo", lambda *args, **kwargs: both)
        self.assertRaises(ConfigError, self.settings, "myhost:2181")


class InterfaceTests(SynchronousTestCase):
    """Where the broker of ``--local`` listens, and what clients are told."""

    def check(self, host_name: str | None, told: str, interface: str, host: str) -> None:
        """With these values of ``hostName`` and ``interface``."""
        config = BrokerConfig(0, host_name=host_name)
        broker = local.LocalBroker(MemoryReactorClock(), config, Settings(interface=told))
        self.assertEqual((broker.interface(), broker.host()), (interface, host))

    def test_loopback(self) -> None:
        """Unless told otherwise; what is published can be reached there."""
        self.check(None, "", "127.0.0.1", "localhost")
        self.check("localhost", "", "127.0.0.1", "localhost")
        self.check("127.0.0.2", "", "127.0.0.2", "127.0.0.2")

    def test_told_otherwise(self) -> None:
        """By our own setting, or by a host that others see."""
        self.check("localhost", "0.0.0.0", "0.0.0.0", "localhost")
        self.check("10.1.2.3", "", "", "10.1.2.3")
        self.check(None, "127.0.0.1", "127.0.0.1", own_address())

    def test_without_local(self) -> None:
        """Any other broker listens on every interface."""
        config = BrokerConfig(0, host_name="localhost")
        service = BrokerService(MemoryReactorClock(), config, Settings())
        self.assertEqual(service.interface(), "")


class Half(Service):
    """A service that tells when it starts, and stops when the test says so."""

    def __init__(self, name: str, journal: list[str], fails: bool = False) -> None:
        self.part = name
        self.journal = journal
        self.fails = fails
        self.stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Note it."""
        super().startService()
        self.journal.append(f"{self.part} starts")
        if self.fails:
            raise StartRefused("no")

    def stopService(self) -> Deferred[None]:
        """Note it."""
        super().stopService()
        self.journal.append(f"{self.part} stops")
        return self.stopped


class OrderTests(SynchronousTestCase):
    """The order of starts and stops."""

    def setUp(self) -> None:
        self.journal: list[str] = []

    def make(self, broker_fails: bool = False) -> tuple[local.LocalService, Half, Half]:
        """The service and its halves."""
        broker = Half("broker", self.journal, broker_fails)
        zookeeper = Half("zookeeper", self.journal)
        service = local.LocalService(broker, zookeeper)  # type: ignore[arg-type]  # doubles
        return service, broker, zookeeper

    def test_order(self) -> None:
        """ZooKeeper starts before the broker, and stops when the broker has stopped."""
        service, broker, zookeeper = self.make()
        service.startService()
        stopped = service.stopService()
        self.assertEqual(self.journal, ["zookeeper starts", "broker starts", "broker stops"])
        broker.stopped.callback(None)
        self.assertEqual(self.journal[3:], ["zookeeper stops"])
        self.assertNoResult(stopped)
        zookeeper.stopped.callback(None)
        self.successResultOf(stopped)

    def test_broker_refuses(self) -> None:
        """ZooKeeper does not stay behind."""
        service, *_ = self.make(broker_fails=True)
        self.assertRaises(StartRefused, service.startService)
        self.assertEqual(self.journal[2:], ["zookeeper stops"])
