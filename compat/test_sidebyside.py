"""
The same request bytes to the original broker and to ours, one after the other, and the replies
compared.
"""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from compat import generator, peers
from compat.exchange import SILENCE_SECONDS, SILENT, Connection, Reply
from compat.normal import Normaliser
from tests.integration import zookeeper

REQUESTS = 2000
SEED = 20130719


class Side:
    """One of the two brokers, and the connection in use."""

    def __init__(self, broker: peers.Broker) -> None:
        self.broker = broker
        self.normalise = Normaliser()
        self.connection = Connection(broker.port)

    def reconnect(self) -> None:
        """Start over, as a client does after the broker has closed."""
        self.connection.close()
        self.connection = Connection(self.broker.port)


class Pair:
    """Two brokers that get the same bytes."""

    def __init__(self, first: peers.Broker, second: peers.Broker) -> None:
        self.sides = (Side(first), Side(second))
        self.closed = 0
        self.silent = 0
        self.answered = 0

    def ask(self, request: bytes) -> tuple[tuple[object, ...], ...]:
        """
        What each made of the request; a connection that cannot be used any more is replaced on both
        sides.
        """
        for side in self.sides:
            side.connection.send(request)
        replies = [side.connection.reply(SILENCE_SECONDS) for side in self.sides]
        if replies.count(SILENT) == 1:  # it may only be slow
            late = replies.index(SILENT)
            replies[late] = self.sides[late].connection.reply()
        if any(isinstance(reply, bytes) for reply in replies):
            self.silent += replies.count(SILENT) == 2
            self.closed += replies.count(SILENT) == 0
            for side in self.sides:
                side.reconnect()
        else:
            self.answered += 1
        return tuple(
            side.normalise(request, reply) for side, reply in zip(self.sides, replies)
        )

    def extra(self) -> list[Reply | bytes]:
        """Whatever arrived that nobody asked for."""
        replies = [side.connection.reply(SILENCE_SECONDS) for side in self.sides]
        return [reply for reply in replies if reply != SILENT]


class SideBySideTests(SynchronousTestCase):
    """Two brokers, empty at first, live through the same and cannot be told apart."""

    skip = peers.missing()

    kinds: tuple[type[peers.Broker], type[peers.Broker]] = (peers.JavaBroker, peers.OurBroker)

    def pair(self) -> Pair:
        """Fresh brokers."""
        brokers = []
        for number, kind in enumerate(self.kinds):
            root = f"/{self.id()}-{number}"
            broker = kind(self.mktemp(), zookeeper.shared(), root, generator.TOPICS)
            broker.start()
            self.addCleanup(broker.kill)
            brokers.append(broker)
        return Pair(*brokers)

    def test_random_requests(self) -> None:
        """
        Two thousand seeded requests, some of them wrong: equal replies, equal closes, equal
        silences.
        """
        pair = self.pair()
        for number, request in enumerate(itertools.islice(generator.Requests(SEED), REQUESTS)):
            first, second = pair.ask(request)
            self.assertEqual(second, first, f"seed {SEED}, request {number}: {request[:200]!r}")
        self.assertEqual(pair.extra(), [])
        # the mixture is what it is meant to be
        self.assertGreater(pair.answered, REQUESTS * 0.9)
        self.assertGreater(pair.closed, REQUESTS * 0.02)
