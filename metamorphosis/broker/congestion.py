"""
The congestion control that sends to a client.

BBR, the default of many cloud images, paces each connection with timers of the kernel. A connection
to a client of the same host needs no pacing, and the timers cost more than all other work: a get of
1 MiB took 500 to 750 us of CPU time instead of 100. So the connection of a client on this host
changes from BBR to Reno, which costs no time without losses. An unprivileged process may do this as
well, because Reno is among the allowed ones by default. All other clients keep the congestion
control of the system or their route: BBR was chosen for them.

A client is on this host if both ends of its connection have the same address, or its own is a
loopback address, and the handshake was as short as within a machine. (Address translation can give
a client of another machine the address of this one.)

``[network] congestion-control`` overrides the rule: ``system``, or the name of one for all clients.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address, ip_address

from twisted.logger import Logger

BY_RULE = "auto"
UNTOUCHED = "system"

PACED = b"bbr"
"""Prefix of the names of congestion controls that pace with timers: bbr, bbr2, bbr3."""
UNPACED = "reno"

SHORT_HANDSHAKE = 1000
"""Microseconds. Within a machine a handshake takes 10 to 100, whatever the load is, because the
kernel runs both ends of it in one go."""

_LONGEST_NAME = 16  # TCP_CA_NAME_MAX
_ROUND_TRIP = struct.Struct("=68xI")  # tcpi_rtt of struct tcp_info


class CongestionControl:
    """
    Looks at each connection once, when it was accepted. Thread: reactor.

    :param wanted: ``auto`` for the rule, ``system`` to change nothing, or the name of the
        congestion control for all clients.
    """

    _log = Logger()

    def __init__(self, wanted: str = BY_RULE) -> None:
        self._wanted = wanted
        self._is_told = False  # the kernel's last refusal

    def choose(self, connection: socket.socket) -> None:
        """Set the one that suits the client, if the system's does not. Never fails."""
        if self._wanted == UNTOUCHED:
            return
        try:
            present = connection.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_CONGESTION, _LONGEST_NAME
            ).rstrip(b"\0")
            wanted = self._for(connection, present)
        except OSError:
            return  # the client has left already
        if wanted is not None and wanted != present:
            self._set(connection, wanted, present)

    def _for(self, connection: socket.socket, present: bytes) -> bytes | None:
        """The name of the one for this client; None: the present one is right."""
        if self._wanted != BY_RULE:
            return self._wanted.encode()
        is_here = present.startswith(PACED) and _is_on_this_host(connection)
        return UNPACED.encode() if is_here else None

    def _set(self, connection: socket.socket, wanted: bytes, present: bytes) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted)
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                self._log.warn(
                    "The kernel does not set congestion control {wanted} for clients ({error});"
                    " they keep {present}. See net.ipv4.tcp_allowed_congestion_control, and"
                    " congestion-control in metamorphosis.ini",
                    wanted=wanted.decode(),
                    present=present.decode(),
                    error=error.strerror,
                )


def _is_on_this_host(connection: socket.socket) -> bool:
    """
    :raises OSError: the connection is gone.
    """
    peer = connection.getpeername()[0]
    if peer != connection.getsockname()[0] and not _is_loopback(peer):
        return False
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.size)
    if len(information) < _ROUND_TRIP.size:
        return False
    (microseconds,) = _ROUND_TRIP.unpack(information)
    return bool(microseconds < SHORT_HANDSHAKE)


def _is_loopback(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
