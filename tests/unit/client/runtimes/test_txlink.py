"""A link of Twisted's without a socket."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.runtimes.txlink import QUEUE_LIMIT, LinkTransport, _Attempt
from tests.contract.test_runtime import Collector


class AttemptTests(SynchronousTestCase):
    """An attempt to connect."""

    def test_cancelled(self) -> None:
        """The reactor does not go on with it."""
        reactor = MemoryReactorClock()
        done = _Attempt(Collector()).to(reactor, "10.0.0.1", 8123, 1.0)
        self.assertEqual(("10.0.0.1", 8123), reactor.tcpClients[0][:2])
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(reactor.connectors[0].stoppedConnecting)


class Peer:
    """Takes everything that is sent, and counts what the core is told."""

    def __init__(self) -> None:
        self.sent = 0
        self.resumed = 0

    def send(self, data: bytes) -> int:
        """See ``socket``."""
        self.sent += len(data)
        return len(data)

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self.resumed += 1


class WriteTests(SynchronousTestCase):
    """The queue of a transport."""

    def test_resumed_once(self) -> None:
        """The core goes on when half of the queue is sent, and can be paused again."""
        transport: Any = LinkTransport.__new__(LinkTransport)
        peer = transport.socket = transport.producer = Peer()
        self.patch(transport, "stopWriting", lambda: None)
        piece = memoryview(bytes(QUEUE_LIMIT))
        transport._queue = deque([piece, piece])
        transport._queued, transport.producerPaused = 2 * QUEUE_LIMIT, True
        resumed = []
        for _ in range(3):
            self.assertIsNone(transport.doWrite())
            resumed.append((peer.sent, peer.resumed, transport.producerPaused))
        sizes = [QUEUE_LIMIT, 2 * QUEUE_LIMIT, 2 * QUEUE_LIMIT]
        self.assertEqual(list(zip(sizes, (0, 1, 1), (True, False, False), strict=True)), resumed)
