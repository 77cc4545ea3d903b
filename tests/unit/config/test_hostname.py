"""The host that is published."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

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
        """The first IPv4 address that is no loopback wins over every IPv6 address."""
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

    def test_not_configured(self) -> None:
        """This machine has an address of the form that a URL takes."""
        for address in interface_addresses():
            choose_address([address])
        host = published_host(BrokerConfig(0))
        self.assertTrue(is_java_host(host), host)


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
