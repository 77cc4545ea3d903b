"""
A TCP transport that sends at once, in place of Twisted's own.

Twisted queues written data and sends it when ``epoll`` reports the socket as writable. A reply
nearly always fits: sending it within ``write`` saves two ``epoll_ctl`` and one ``epoll_wait``, 15
to 25 % of the CPU time of clients that wait for each reply. The rest that the socket does not take
is queued, and producers are paused, as usual.
"""

from __future__ import annotations

from twisted.internet import tcp


class ZooKeeperTransport(tcp.Server):
    """One client's socket. Thread: reactor."""

    _queued = False  # Twisted has something to send: from startWriting to stopWriting

    def startWriting(self) -> None:
        """Data wait for the socket."""
        self._queued = True
        super().startWriting()

    def stopWriting(self) -> None:
        """All data have left."""
        self._queued = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        """Send the bytes that the socket takes now, unless others are queued, and queue the rest;
        the reactor finds an error of the socket."""
        if self.connected and not self._queued:
            try:
                data = data[self.socket.send(data) :]
            except OSError:
                pass
        if data:
            super().write(data)


class ZooKeeperPort(tcp.Port):
    """A listening port whose connections are ``ZooKeeperTransport``s."""

    transport = ZooKeeperTransport
