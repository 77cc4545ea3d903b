"""
The host under which the broker is published in ZooKeeper.

Source: ``RemotingUtils.getLocalHost`` of metamorphosis-commons.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterable

from metamorphosis.config.model import BrokerConfig

#: ``ioctl`` request for the IPv4 address of a network interface, Linux.
_SIOCGIFADDR = 0x8915
_IF_INET6 = "/proc/net/if_inet6"

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_TOP_LABEL = "[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_JAVA_NAME = re.compile(rf"{_LABEL}|({_LABEL}\.)*{_TOP_LABEL}\.?|{_BYTE}(\.{_BYTE}){{3}}", re.ASCII)


def is_java_host(host: str) -> bool:
    """
    Whether ``java.net.URI`` accepts this as a host; otherwise Java clients cannot use the broker.
    """
    if ":" not in host:
        return _JAVA_NAME.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def published_host(config: BrokerConfig) -> str:
    """
    ``hostName`` if it is set; else the first IPv4 address of an interface, else the last IPv6
    address, in brackets, both unless loopback; else the address of the local host name. Called
    once, so that the broker keeps one address.
    """
    return config.host_name or own_address()


def own_address() -> str:
    """The result of ``published_host`` without a ``hostName``; clients use it in their names."""
    return choose_address(interface_addresses()) or _address_of_host_name()


def choose_address(addresses: Iterable[str]) -> str | None:
    """The address that the original would publish, of those of all interfaces in their order."""
    last_ipv6 = None
    for text in addresses:
        address = ipaddress.ip_address(text)
        if address.is_loopback:
            continue
        if address.version == 4:
            return text
        last_ipv6 = f"[{text}]"
    return last_ipv6


def interface_addresses() -> list[str]:
    """
    Addresses of the network interfaces, those of the interface that was added last first, as a JVM
    on Linux lists them.

    Empty on systems other than Linux.
    """
    ipv6 = _ipv6_addresses()
    found = []
    for _, name in sorted(socket.if_nameindex(), reverse=True):
        ipv4 = _ipv4_address(name)
        found += ([ipv4] if ipv4 else []) + ipv6.get(name, [])
    return found


def _ipv4_address(interface: str) -> str | None:
    """The interface's first IPv4 address."""
    try:
        from fcntl import ioctl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            reply = ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except (ImportError, OSError):
        return None
    return socket.inet_ntoa(reply[20:24])


def _ipv6_addresses() -> dict[str, list[str]]:
    """
    IPv6 addresses by interface in a JVM's order, the newest first; a link-local one carries its
    zone.
    """
    found: dict[str, list[str]] = {}
    try:
        with open(_IF_INET6, encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return found
    for digits, _, _, _, _, interface in reversed(rows):
        address = ipaddress.IPv6Address(int(digits, 16))
        zone = f"%{interface}" if address.is_link_local else ""
        found.setdefault(interface, []).append(f"{address}{zone}")
    return found


def _address_of_host_name() -> str:
    """The address of the system's name; the loopback address when it does not resolve."""
    try:
        address = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError:
        return "127.0.0.1"
    return f"[{address}]" if ":" in str(address) else str(address)
