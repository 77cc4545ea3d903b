"""The choice of the congestion control for a client."""

from __future__ import annotations

import socket
import struct
from errno import ENOENT, ENOTCONN, EPERM

from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.congestion import SHORT_HANDSHAKE, CongestionControl

REMOTE = "192.0.2.7"
OWN = "192.0.2.1"


class Socket:
    """
    An accepted socket with options. :ivar present: its congestion control. :ivar refusal: the error
    when another one is set. :ivar chosen: those that were set.

    :ivar present: its congestion control.
    :ivar refusal: what the kernel says when another is set.
    :ivar chosen: those that were set.
    """

    def __init__(self, peer: str, own: str, present: str = "bbr", round_trip: int = 40) -> None:
        self.peer = peer
        self.own = own
        self.present = present
        self.round_trip = round_trip
        self.refusal: int | None = None
        self.gone = False
        self.chosen: list[str] = []

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """The two options that the code reads."""
        if self.gone:
            raise OSError(ENOTCONN, "not connected")
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_CONGESTION):
            return self.present.encode().ljust(size, b"\0")
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO):
            return (bytes(68) + struct.pack("=I", self.round_trip))[:size]
        raise AssertionError(option)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """The one option that the code sets."""
        if (level, option) != (socket.IPPROTO_TCP, socket.TCP_CONGESTION):
            raise AssertionError(option)
        if self.refusal is not None:
            raise OSError(self.refusal, "refused")
        self.chosen.append(value.decode())

    def getpeername(self) -> tuple[str, int]:
        """The client's address."""
        return self.peer, 54321

    def getsockname(self) -> tuple[str, int]:
        """Our address."""
        return self.own, 8123


class ChoiceTests(SynchronousTestCase):
    """One connection at a time."""

    def setUp(self) -> None:
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        """Keep the warnings."""
        if event["log_level"] is LogLevel.warn:
            self.logged.append(event)

    def chosen(self, connection: Socket, wanted: str = "auto") -> list[str]:
        """The congestion controls that are set for it."""
        CongestionControl(wanted).choose(connection)  # type: ignore[arg-type]  # its double
        return connection.chosen

    def test_clients_on_this_host(self) -> None:
        """They leave BBR, for every kind of local address."""
        for peer, own in (
            ("127.0.0.1", "127.0.0.1"),
            ("127.9.9.9", "127.0.0.1"),
            (OWN, OWN),
            ("::1", "::1"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
            ("::ffff:127.0.0.2", "::ffff:127.0.0.1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ):
            self.assertEqual(self.chosen(Socket(peer, own)), ["reno"], peer)

    def test_all_kinds_of_bbr(self) -> None:
        """Later versions of BBR pace as well."""
        for name in ("bbr", "bbr2", "bbr3"):
            self.assertEqual(self.chosen(Socket(OWN, OWN, name)), ["reno"])

    def test_others_keep_theirs(self) -> None:
        """Other machines, and algorithms without pacing, keep the system's choice."""
        for connection in (
            Socket(REMOTE, OWN),
            Socket("fe80::2%eth0", "fe80::1%eth0"),
            Socket("::ffff:192.0.2.7", "::ffff:192.0.2.1"),
            Socket("172.17.0.2", "172.17.0.1"),
            *(Socket(OWN, OWN, name) for name in ("reno", "cubic", "dctcp", "htcp")),
        ):
            self.assertEqual(self.chosen(connection), [], connection.peer)

    def test_translated_address(self) -> None:
        """A local address whose handshake took long is a translated one of another machine."""
        self.assertEqual(self.chosen(Socket(OWN, OWN, round_trip=SHORT_HANDSHAKE)), [])
        self.assertEqual(self.chosen(Socket(OWN, OWN, round_trip=SHORT_HANDSHAKE - 1)), ["reno"])

    def test_system(self) -> None:
        """With ``system`` no option is read or set."""
        self.assertEqual(self.chosen(Socket(OWN, OWN), "system"), [])

        def getsockopt(level: int, option: int, size: int) -> bytes:
            raise AssertionError(option)

        connection = Socket(OWN, OWN)
        self.patch(connection, "getsockopt", getsockopt)
        self.assertEqual(self.chosen(connection, "system"), [])

    def test_name(self) -> None:
        """A configured name is set for all clients."""
        for connection in (Socket(REMOTE, OWN), Socket(OWN, OWN), Socket(OWN, OWN, "reno")):
            self.assertEqual(self.chosen(connection, "cubic"), ["cubic"])
        self.assertEqual(self.chosen(Socket(REMOTE, OWN, "cubic"), "cubic"), [])

    def test_refused(self) -> None:
        """The connection stays unchanged; one log line."""
        for wanted, error in (("auto", EPERM), ("nosuch", ENOENT)):
            self.logged.clear()
            control = CongestionControl(wanted)
            for _ in range(3):
                connection = Socket(OWN, OWN)
                connection.refusal = error
                control.choose(connection)  # type: ignore[arg-type]  # its double
            self.assertEqual(len(self.logged), 1)
            self.assertEqual(self.logged[0]["present"], "bbr")

    def test_client_that_has_left(self) -> None:
        """A client that has disconnected causes no error."""
        connection = Socket(OWN, OWN)
        connection.gone = True
        self.assertEqual(self.chosen(connection), [])
        self.assertEqual(self.logged, [])

    def test_real_socket(self) -> None:
        """The kernel accepts a name, and returns the values."""
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()),
        ):
            accepted, _ = listener.accept()
            with accepted:
                CongestionControl().choose(accepted)
                CongestionControl("reno").choose(accepted)
                name = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        self.assertEqual(name.rstrip(b"\0"), b"reno")
        self.assertEqual(self.logged, [])
