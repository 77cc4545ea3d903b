"""An idle original client keeps its connection by heartbeats that the broker answers."""

from __future__ import annotations

import re
import socket
import threading
import time

from compat.clientcase import ClientCase, name, shared_broker
from compat.samples import samples, send
from tests.support import peers

IDLE_SECONDS = 11.5  # the client sends a heartbeat after ten


class Tap:
    """A port in front of a broker's that records the passing bytes."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.sockets: list[socket.socket] = []
        self.requests = b""
        self.replies = b""
        threading.Thread(target=self._accept, daemon=True, name="tap").start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                broker = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # the client comes back after the end of the test
                client.close()
                continue
            self.sockets += (client, broker)
            for source, sink, way in ((client, broker, "requests"), (broker, client, "replies")):
                arguments = (source, sink, way)
                threading.Thread(target=self._pass, args=arguments, daemon=True, name="tap").start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while data := source.recv(65536):
                setattr(self, way, getattr(self, way) + data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            sink.close()

    def close(self) -> None:
        """Accept no more, and end the connections."""
        self.listener.close()
        for each in self.sockets:
            each.close()


class HeartbeatTests(ClientCase):
    """One connection to our broker, idle for longer than the client's patience."""

    skip = peers.missing()
    kind: type[peers.Broker] = peers.OurBroker

    def test_idle_connection(self) -> None:
        """The heartbeat goes out, is answered, and the next send uses the same connection."""
        broker = shared_broker(self.kind, "heartbeat", {"t": {}})
        tap, factory = Tap(broker.port), name("factory")
        self.addCleanup(tap.close)
        # never closed: without ZooKeeper the client's own shutdown ends in a null pointer
        peers.driver().call("open", factory=factory, url=f"meta://localhost:{tap.port}")
        producer = self.producer(factory, "t")
        self.assertSent(send(peers.driver(), producer, "t", samples("before", 1)), 1)
        time.sleep(IDLE_SECONDS)
        heartbeats = re.findall(rb"version (-?\d+)\r\n", tap.requests)
        self.assertEqual(len(heartbeats), 1, tap.requests)
        self.assertRegex(tap.replies, rb"result 200 \d+ %b\r\n" % heartbeats[0])
        self.assertSent(send(peers.driver(), producer, "t", samples("after", 1)), 1)
        self.assertEqual(tap.connections, 1)
