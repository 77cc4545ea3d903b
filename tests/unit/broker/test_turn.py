"""The end of a turn: for a lone client, and when something unexpected fails."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.connection import TURN_COMMANDS
from metamorphosis.broker.session import Session
from tests.support.serving import Broker
from tests.unit.broker.test_hotpath import put


class LoneTests(SynchronousTestCase):
    """A single client that waits for each reply."""

    def test_puts_are_answered_at_once(self) -> None:
        """From the second put on, within its own chunk, and without a call of the reactor."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        broker.clock.advance(1)
        before = len(broker.clock.getDelayedCalls())
        for _ in range(5):
            client.connection.dataReceived(put(b"hello"))
            self.assertIn(b"result 200", client.received())
            self.assertEqual(before, len(broker.clock.getDelayedCalls()))

    def test_not_alone_any_more(self) -> None:
        """From the next turn on, puts of several clients in one turn are one write again."""
        broker = Broker(self.mktemp())
        clients = [broker.client() for _ in range(4)]
        clients[0].send(put(b"alone"))
        for attempt in range(3):
            for client in clients:
                client.connection.dataReceived(put(b"hello"))
            if attempt:
                self.assertEqual([b""] * 4, [client.received() for client in clients])
            broker.clock.advance(0)
            self.assertTrue(all(each.received() for each in clients))

    def test_stretches(self) -> None:
        """What is done within the outermost is written and answered at its end, without a call of
        the reactor; no connection is remembered."""
        broker = Broker(self.mktemp())
        clients = [broker.client() for _ in range(3)]
        clients[0].send(put(b"first"))
        broker.clock.advance(1)
        before = len(broker.clock.getDelayedCalls())
        turn = broker.turn
        turn.begin_stretch()
        turn.begin_stretch()
        for client in clients:
            client.connection.dataReceived(put(b"hello"))
        turn.end_stretch()
        self.assertEqual([b""] * 2, [client.received() for client in clients[1:]])
        turn.end_stretch()
        self.assertTrue(all(client.received() for client in clients[1:]))
        self.assertEqual(before, len(broker.clock.getDelayedCalls()))
        self.assertIsNone(turn._latest)

    def test_lone_client_of_a_stretch(self) -> None:
        """Its chunk does not end the turn before the stretch is over: what others have got in the
        stretch leaves first."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))
        broker.clock.advance(1)
        turn = broker.turn
        self.assertIs(turn._lone, client.connection)
        turn.begin_stretch()
        client.connection.dataReceived(put(b"hello"))
        self.assertEqual(client.received(), b"")
        turn.end_stretch()
        self.assertIn(b"result 200", client.received())

    def test_one_call_of_the_reactor(self) -> None:
        """One call for any number of clients and partitions in a turn."""
        broker = Broker(self.mktemp())
        clients = [broker.client() for _ in range(4)]
        for client in clients:
            client.send(put(b"hello"))
        broker.clock.advance(1)
        before = len(broker.clock.getDelayedCalls())
        for client in clients * 2:
            client.connection.dataReceived(put(b"hello"))
        self.assertLessEqual(len(broker.clock.getDelayedCalls()), before + 1)

    def test_fault_within_a_chunk(self) -> None:
        """Puts of a lone client's chunk before an error are written."""
        broker = Broker(self.mktemp())
        client = broker.client()
        client.send(put(b"first"))

        def fail(*_: object) -> None:
            raise ZeroDivisionError("bug")

        broker.responders.dispatch.respond = fail  # type: ignore[method-assign]
        store = broker.stores.get("test", 0)
        assert store is not None
        before = store.max_offset
        with self.assertRaises(ZeroDivisionError):
            client.connection.dataReceived(put(b"kept") + b"version 5\r\n")
        broker.clock.advance(0)
        self.assertIsNone(store.batch)
        self.assertGreater(store.max_offset, before)


class FaultTests(SynchronousTestCase):
    """A fault affects one client, or one partition."""

    def test_fault_in_the_rest_of_a_chunk(self) -> None:
        """The connection is closed, and lets go of the files of replies to that chunk."""
        broker = Broker(self.mktemp(), max_segment_size=25)
        client = broker.client()
        client.send(put(b"first"))
        client.send(put(b"other"))
        store = broker.stores.get("test", 0)
        assert store is not None
        client.send(b"get test g 0 0 25 1\r\n")
        chunk = b"version 1\r\n" * (TURN_COMMANDS + 1)
        chunk += b"get test g 0 0 25 1\r\n" + b"version 2\r\n"
        connection = client.connection
        connection.inbox.room()[: len(chunk)] = chunk
        connection.received(len(chunk))

        respond = broker.responders.dispatch.respond

        def fail(command: Any, session: Session) -> None:
            if command.opaque == 2:
                raise ZeroDivisionError("bug")
            respond(command, session)

        broker.responders.dispatch.respond = fail  # type: ignore[method-assign]
        broker.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(client.transport.disconnected)
        self.assertTrue(store.segments[0].in_use)
        connection.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(store.segments[0].in_use)
        self.assertEqual(broker.factory.shared.waiting, 0)

    def test_fault_while_answering_one(self) -> None:
        """The connection that cannot be answered is closed, the others of the turn are answered."""
        broker = Broker(self.mktemp())
        bad, good = broker.client(), broker.client()
        for client in (bad, good):
            client.send(put(b"hello"))

        def fail(data: bytes) -> None:
            raise ZeroDivisionError("bug")

        bad.transport.write = fail  # type: ignore[method-assign]
        bad.connection.dataReceived(put(b"one"))
        good.connection.dataReceived(put(b"two"))
        broker.clock.advance(0)
        self.assertIn(b"result 200", good.received())
        self.assertTrue(bad.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_while_committing_one(self) -> None:
        """The other partitions of the turn are written and answered, and the broker continues."""
        broker = Broker(self.mktemp())
        one, two = broker.client(), broker.client()
        one.send(put(b"hello"))
        two.send(put(b"hello", partition=b"1"))
        store = broker.stores.get("test", 0)
        assert store is not None

        def fail() -> None:
            raise ZeroDivisionError("bug")

        store.commit = fail  # type: ignore[method-assign]
        one.connection.dataReceived(put(b"lost"))
        two.connection.dataReceived(put(b"kept", partition=b"1"))
        broker.clock.advance(0)
        self.assertEqual(one.received(), b"")
        self.assertIn(b"result 200", two.received())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
