"""Gets that wait, with a broker process: the delay of a message, and a stop meanwhile."""

from __future__ import annotations

import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.broker import BrokerProcess

PUTS = 100


class Peer:
    """One blocking connection."""

    def __init__(self, broker: BrokerProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", broker.port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send a request."""
        self.socket.sendall(data)

    def reply(self) -> tuple[list[bytes], bytes]:
        """The next reply: tokens of its line, and its body."""
        tokens = self.file.readline().split()
        length = tokens[1] if tokens[0] == b"value" else tokens[2]
        return tokens, self.file.read(int(length))

    def close(self) -> None:
        """Close the connection."""
        self.file.close()
        self.socket.close()


class LongPollTests(SynchronousTestCase):
    """With background flushes and with group commit."""

    def start(self, threshold: int) -> tuple[BrokerProcess, Peer, Peer]:
        """A broker, a producer and a consumer."""
        broker = BrokerProcess(self.mktemp(), system={"unflushThreshold": threshold})
        self.addCleanup(broker.kill)
        broker.start()
        peers = Peer(broker), Peer(broker)
        for peer in peers:
            self.addCleanup(peer.close)
        return broker, *peers

    def test_delivery_without_polling(self) -> None:
        """Each message reaches the waiting consumer much sooner than by polling."""
        for threshold in (1000, 0):
            _, producer, consumer = self.start(threshold)
            delays = []
            for number in range(PUTS):
                consumer.send(b"get test g 0 %d 1000 1 5000\r\n" % (number * 25))
                time.sleep(0.001)
                sent = time.perf_counter()
                producer.send(b"put test 0 5 0 2\r\n%05d" % number)
                tokens, body = consumer.reply()
                delays.append(time.perf_counter() - sent)
                self.assertEqual((tokens[0], body[20:]), (b"value", b"%05d" % number))
                producer.reply()
            delays.sort()
            print(
                f"\n  unflushThreshold={threshold}: median {delays[PUTS // 2] * 1e3:.2f} ms,"
                f" 99 of 100 {delays[-2] * 1e3:.2f} ms",
                end=" ",
            )
            self.assertLess(delays[PUTS // 2], 1.0)  # of the 5 s that a get waits

    def test_a_broker_that_stops_lets_go(self) -> None:
        """A held get is answered 404 when the broker stops, and does not delay the stop."""
        broker, _, consumer = self.start(1000)
        consumer.send(b"get test g 0 0 1000 1 30000\r\n")
        time.sleep(0.1)
        began = time.monotonic()
        self.assertEqual(broker.stop(), 0)
        self.assertLess(time.monotonic() - began, 20)  # of the 30 s that the get waits
        self.assertEqual(consumer.reply()[0][:2], [b"result", b"404"])
