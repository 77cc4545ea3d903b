"""
A wire with faults: a TCP proxy between a client and a broker that swallows, spoils or cuts what the
broker answers.
"""

from __future__ import annotations

import contextlib
import socket
import threading

PASS = "pass"
SILENT = "silent"
"""The broker gets every request, the client no answer."""
DEAF = "deaf"
"""The broker gets nothing; connections are accepted."""
GARBAGE = "garbage"
"""Each answer is replaced by what no broker says."""
HALF = "half"
"""The first bytes of an answer, and then nothing on this connection, be the fault over or not."""
CLOSE = "close"
"""The connection is closed behind each answer."""
LOSE = "lose"
"""The connection is closed in place of each answer."""

FIRST_BYTES = 9
"""Shorter than any answer, for several may come together."""

NONSENSE = b"HTTP/1.1 400 Bad Request\r\nServer: no broker\r\n\r\n"


class FaultyWire:
    """
    Threads of its own; ``close`` ends them. ``fault`` may be set at any time.

    :param target: host and port of the broker.
    :param listen: where clients connect to; port 0: a free one.
    :ivar fault: what happens to answers from now on.
    :ivar accepted: how many connections there were.
    """

    def __init__(self, target: tuple[str, int], listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.target = target
        self.fault = PASS
        self.accepted = 0
        self._server = socket.create_server(listen)
        self.address = "{}:{}".format(*self._server.getsockname()[:2])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and cut everything."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            broker = socket.create_connection(self.target, 5)
        except OSError:
            client.close()
            return
        broker.settimeout(None)
        for each in (client, broker):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, broker}
        back = threading.Thread(target=self._answers, args=(broker, client), daemon=True)
        back.start()
        self._requests(client, broker)
        back.join()
        with self._lock:
            self._open -= {client, broker}
        client.close()
        broker.close()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self.fault != DEAF:
                    broker.sendall(data)
        self._end(client, broker)

    def _answers(self, broker: socket.socket, client: socket.socket) -> None:
        stalled = False
        with contextlib.suppress(OSError):
            while data := broker.recv(1 << 16):
                fault = self.fault
                if fault == LOSE:
                    break
                if stalled or fault in (SILENT, DEAF):
                    continue
                if fault == HALF:
                    data = data[:FIRST_BYTES]
                    stalled = True
                client.sendall(NONSENSE if fault == GARBAGE else data)
                if fault == CLOSE:
                    break
        self._end(client, broker)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
