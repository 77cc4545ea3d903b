"""The host that is published."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import hostname
from metamorphosis.config.hostname import (
    choose_address,
    interface_addresses,
    is_java_host,
    published_host,
)
from metamorphosis.config.model import BrokerConfig


class ChoiceTests(SynchronousTestCase):
    """Which of the interfaces' addresses."""

    def test_first_ipv4(self) -> None:
        """The first IPv4 address that is not a loopback wins over every IPv6 address."""
        addresses = ["::1", "127.0.0.1", "fd00::1", "10.0.0.1", "10.0.0.2"]
        self.assertEqual(choose_address(addresses), "10.0.0.1")

    def test_last_ipv6(self) -> None:
        """Without IPv4 it is the last IPv6 address, in brackets."""
        self.assertEqual(choose_address(["fd00::1", "fe80::1%eth0", "::1"]), "[fe80::1%eth0]")

    def test_only_loopback(self) -> None:
        """Loopback addresses are none."""
        self.assertIsNone(choose_address(["127.0.0.1", "127.1.2.3", "::1"]))

    def test_configured(self) -> None:
        """A configured name is taken as it is."""
        self.assertEqual(published_host(BrokerConfig(0, host_name="broker-1")), "broker-1")

    def test_no_interface(self) -> None:
        """Without any address it is that of the host name, of the form that a URL takes."""
        self.patch(hostname, "interface_addresses", list)
        host = published_host(BrokerConfig(0))
        self.assertTrue(host and is_java_host(host), host)

    def test_not_configured(self) -> None:
        """This machine has an address of the form that a URL takes."""
        for address in interface_addresses():
            choose_address([address])
        host = published_host(BrokerConfig(0))
        self.assertTrue(is_java_host(host), host)


class InterfaceTests(SynchronousTestCase):
    """The addresses of this machine."""

    if sys.platform != "linux":
        skip = "only Linux lists its interfaces this way"

    def test_ipv6_table(self) -> None:
        """Addresses come in a JVM's order, the newest first; link-local ones carry their zone."""
        path = self.mktemp()
        with open(path, "w") as table:
            table.write("fd000000000000000000000000000002 04 40 00 82     nic0\n")
            table.write("00000000000000000000000000000001 01 80 10 80       lo\n")
            table.write("fe8000000000000000fc00fffe000001 04 40 20 80     nic0\n")
        self.patch(hostname, "_IF_INET6", path)
        interfaces = [(1, "lo"), (2, "nic0")]
        self.patch(hostname.socket, "if_nameindex", lambda: interfaces)
        self.patch(hostname, "_ipv4_address", {"lo": "127.0.0.1", "nic0": "10.0.0.1"}.get)
        self.assertEqual(
            interface_addresses(),
            ["10.0.0.1", "fe80::fc:ff:fe00:1%nic0", "fd00::2", "127.0.0.1", "::1"],
        )

    def test_without_ipv6(self) -> None:
        """A system without IPv6 has no table of its addresses."""
        self.patch(hostname, "_IF_INET6", self.mktemp())
        self.assertFalse([address for address in interface_addresses() if ":" in address])

    def test_loopback(self) -> None:
        """The real interfaces of this machine have the loopback address among theirs."""
        self.assertIn("127.0.0.1", interface_addresses())


class JavaHostTests(SynchronousTestCase):
    """What java.net.URI takes for a host."""

    def test_good(self) -> None:
        """Names with letters, digits and hyphens, and addresses."""
        names = ("a", "broker-1", "b1.example.com", "1a", "a.", "123")
        for host in (*names, "10.0.0.1", "[::1]", "[fe80::1%eth0]", "::1"):
            self.assertTrue(is_java_host(host), host)

    def test_bad(self) -> None:
        """Underscores, blanks, and names whose last part begins with a digit."""
        names = ("a_b", "a b", "-a", "a-", "a.1b", "1.2.3", "300.1.1.1", "a..b")
        for host in (*names, "a:b", "a/b", "ä"):
            self.assertFalse(is_java_host(host), host)
