"""The Twisted face over real sockets, its transport, and both faces in one process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from dataclasses import astuple
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet import main
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.error import UserError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from metamorphosis.client import aio
from metamorphosis.client.model import OutgoingMessage
from metamorphosis.client.runtimes.tx import ShutdownTrigger, TwistedRuntime
from metamorphosis.client.runtimes.txlink import QUEUE_LIMIT, WRITE_LIMIT, LinkTransport, open_link
from metamorphosis.client.tx import MessageSessionFactory
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.errors import ClientClosed, InvalidConfig, NotConnected, SendTimeout
from tests.support.fakebroker import FakeBroker, TwistedSide, serving
from tests.support.leftovers import new_threads, unclosed_factories


class BrokerFactory(Factory):
    """Accepts clients of a ``FakeBroker``."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker

    def buildProtocol(self, address: object) -> TwistedSide:
        """See ``IProtocolFactory``."""
        return TwistedSide(self.broker)


class FactoryTests(TestCase):
    """Producer, consumer, statistics, on trial's reactor."""

    timeout = 60

    def listen(self) -> str:
        """A broker, and its ``host:port``."""
        reactor: Any = global_reactor
        port = reactor.listenTCP(0, BrokerFactory(FakeBroker()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    def test_there_and_back(self) -> Deferred[None]:
        """Messages sent are consumed; results are Deferreds; nothing is left on the reactor."""

        async def test() -> None:
            address = self.listen()
            async with MessageSessionFactory(broker=address) as factory:
                async with await factory.create_producer("test") as producer:
                    sent = [producer.send("test", b"%d" % number) for number in range(5)]
                    self.assertTrue(all(isinstance(each, Deferred) for each in sent))
                    results = [await each for each in sent]
                    self.assertEqual([0, 21, 42, 63, 84], [each.offset for each in results])
                    many = producer.send_many([OutgoingMessage("test", b"5")] * 3)
                    self.assertIsInstance(many, Deferred)
                    self.assertEqual([105, 126, 147], [each.offset for each in await many])
                consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
                await consumer.subscribe("test").complete_subscribe()
                got = []
                async for message in consumer:
                    got.append(message.data)
                    if len(got) == 5:
                        break
                self.assertEqual([b"0", b"1", b"2", b"3", b"4"], got)
                stats = await factory.get_stats(item="topics")
                self.assertEqual("topics", stats[f"meta://{address}"]["item"])

        return Deferred.fromCoroutine(test())

    @inlineCallbacks
    def test_deferreds_without_coroutines(self) -> Any:
        """Everything works with plain Deferreds and listeners, too."""
        factory = MessageSessionFactory(broker=self.listen(), reactor=global_reactor)
        producer = yield factory.create_producer("test")
        yield producer.send("test", b"hello").addCallback(
            lambda result: self.assertEqual(0, result.offset)
        )
        got: Deferred[bytes] = Deferred()
        consumer = factory.create_consumer("g", partition="0-0", long_poll_ms=0)
        consumer.subscribe("test", listener=lambda message: got.callback(message.data))
        yield consumer.complete_subscribe()
        self.assertEqual(b"hello", (yield got))
        yield factory.close()

    def test_nobody_there(self) -> Deferred[None]:
        """An error within the time, and nothing is left."""

        async def test() -> None:
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"127.0.0.1:{free.getsockname()[1]}"
            factory = MessageSessionFactory(broker=address, refused_timeout_ms=50)
            with self.assertRaisesRegex(NotConnected, "Connection refused"):
                await factory.start()
            await factory.close()

        return Deferred.fromCoroutine(test())

    def test_broker_that_never_answers(self) -> Deferred[None]:
        """Accepts and is silent: the send fails in time."""

        async def test() -> None:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                address = f"127.0.0.1:{silent.getsockname()[1]}"
                factory = MessageSessionFactory(broker=address, send_timeout_ms=60)
                producer = await factory.create_producer("test", retries=0)
                with self.assertRaises(SendTimeout) as caught:
                    await producer.send("test", b"hello")
                self.assertFalse(caught.exception.outcome_known)
                await factory.close()

        return Deferred.fromCoroutine(test())

    def test_abandoned_send(self) -> Deferred[None]:
        """The answer to a cancelled Deferred is dropped."""

        async def test() -> None:
            async with MessageSessionFactory(broker=self.listen()) as factory:
                producer = await factory.create_producer("test")
                sent = producer.send("test", b"first")
                sent.addErrback(lambda _: None)
                sent.cancel()
                result = await producer.send("test", b"second")
                self.assertEqual(25, result.offset)

        return Deferred.fromCoroutine(test())

    def test_part_that_cannot_be_closed(self) -> None:
        """The end of a factory that was dropped closes the other parts, and says what failed."""
        clock: Any = MemoryReactorClock()
        clock.callFromThread = partial(clock.callLater, 0)
        closed: list[str] = []
        runtime = TwistedRuntime(clock)
        runtime.abandon([lambda: 1 / 0, lambda: closed.append("other")])  # type: ignore[list-item,func-returns-value]
        clock.advance(0)
        self.assertEqual(["other"], closed)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_registry_from_settings(self) -> Deferred[None]:
        """ZooKeeper that is not there: its client begins, and ends with its thread."""

        async def test() -> None:
            before = threading.enumerate()
            registry: Any = TwistedRuntime(global_reactor).registry("127.0.0.1:1", 30000)
            await registry.start()
            self.assertTrue(new_threads(before))
            await registry.stop()
            for thread in new_threads(before):
                thread.join(20)
            self.assertEqual(set(), new_threads(before))

        return Deferred.fromCoroutine(test())

    def test_settings(self) -> None:
        """Checked when the factory is made."""
        self.assertRaises(InvalidConfig, MessageSessionFactory)

    def test_both_faces_in_one_process(self) -> Deferred[None]:
        """An asyncio client in a thread of its own sends, the Twisted one sends too, both at the
        same time; neither notices the other."""
        outcomes: list[Any] = []

        async def other() -> None:
            async with (
                serving(FakeBroker()) as address,
                aio.MessageSessionFactory(broker=address) as factory,
            ):
                producer = await factory.create_producer("test")
                for _ in range(100):
                    outcomes.append(await producer.send("test", b"aio"))

        async def test() -> None:
            thread = Thread(target=asyncio.run, args=(other(),))
            thread.start()
            async with MessageSessionFactory(broker=self.listen()) as factory:
                producer = await factory.create_producer("test")
                for _ in range(100):
                    await producer.send("test", b"tx")
            thread.join()
            self.assertEqual(100, len(outcomes))

        return Deferred.fromCoroutine(test())


class Sink:
    """A ``Receiver``."""

    def __init__(self) -> None:
        self.link: Any = None
        self.events: list[str] = []

    def connected(self, link: Any) -> None:
        self.link = link

    def room(self) -> None:
        return None

    def received(self, count: int) -> None:
        raise AssertionError("there is no room")

    def data_received(self, data: bytes) -> None:
        self.events.append(data.decode())

    def disconnected(self, reason: str) -> None:
        self.events.append("disconnected")

    def pause_sending(self) -> None:
        self.events.append("pause")

    def resume_sending(self) -> None:
        self.events.append("resume")


class Told:
    """
    A transport that does nothing.

    :ivar calls: (method, argument, ...) in order.
    """

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *values: self.calls.append((name, *values))


class IdleReactor(ReactorBase):
    """Fires its events, and nothing else."""

    def installWaker(self) -> None:
        """Not needed."""

    def removeAll(self) -> list[Any]:  # type: ignore[override]
        """It watches no sockets."""
        return []


class ShutdownTests(SynchronousTestCase):
    """The end of the reactor, and of a factory before it."""

    def setUp(self) -> None:
        """A reactor that can be stopped more than once a process."""
        self.reactor: Any = IdleReactor()
        self.closed: list[Deferred[None]] = []

    def close(self) -> Deferred[None]:
        """The factory's."""
        self.closed.append(Deferred())
        return self.closed[-1]

    def test_reactor_waits(self) -> None:
        """It asks the factory to close, and continues when that has happened."""
        ShutdownTrigger(self.reactor, self.close)
        later: list[bool] = []
        self.reactor.addSystemEventTrigger("during", "shutdown", later.append, True)
        self.reactor.fireSystemEvent("shutdown")
        self.assertEqual((len(self.closed), later), (1, []))
        self.closed[0].callback(None)
        self.assertEqual(later, [True])

    def test_closed_by_the_reactor(self) -> None:
        """The factory that closes then has nothing to remove any more."""
        trigger = ShutdownTrigger(self.reactor, self.close)
        self.reactor.fireSystemEvent("shutdown")
        self.successResultOf(Deferred.fromCoroutine(trigger.close()))
        self.assertEqual(unclosed_factories(self), [])
        self.closed[0].callback(None)

    def test_factory(self) -> None:
        """A stop of the reactor closes a factory that the program has left open."""
        reactor = MemoryReactorClock()
        factory = MessageSessionFactory(broker="a:1", reactor=reactor)
        ((stopping, *_),) = reactor.triggers["before"]["shutdown"]
        stopping()
        self.assertTrue(factory.is_closed)
        for make in (factory.create_consumer, factory.create_broadcast_consumer):
            self.assertRaises(ClientClosed, make, "g")
        self.failureResultOf(factory.create_topic_browser("test"), ClientClosed)
        self.failureResultOf(factory.create_producer(), ClientClosed)

    def test_closed_before(self) -> None:
        """The reactor forgets a factory that is closed."""
        trigger = ShutdownTrigger(self.reactor, self.close)
        self.successResultOf(Deferred.fromCoroutine(trigger.close()))
        self.reactor.fireSystemEvent("shutdown")
        self.assertEqual(self.closed, [])


class OtherReactorTests(SynchronousTestCase):
    """Reactors that have transports of their own."""

    def test_connect_tcp(self) -> None:
        """Are asked for one, with the time that is left."""
        reactor = MemoryReactorClock()
        sink = Sink()
        opening = open_link(reactor, "127.0.0.1", 8123, sink, 7.0)
        host, port, factory, timeout, _ = reactor.tcpClients[0]
        self.assertEqual(("127.0.0.1", 8123, 7.0), (host, port, timeout))
        self.assertNoResult(opening)

    def test_nothing_is_logged(self) -> None:
        """Twisted's own lines about the begin and the end of each attempt are not wanted."""
        reactor = MemoryReactorClock()
        self.assertNoResult(open_link(reactor, "127.0.0.1", 8123, Sink(), 7.0))
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        factory = reactor.tcpClients[0][2]
        factory.doStart()
        factory.doStop()
        self.assertEqual([], events)

    def test_link(self) -> None:
        """It asks its transport for what a connection with many small requests needs, and is its
        producer by which the receiver pauses."""
        reactor, sink = MemoryReactorClock(), Sink()
        opening = open_link(reactor, "127.0.0.1", 8123, sink, 7.0)
        transport = Told()
        link = reactor.tcpClients[0][2].buildProtocol(None)
        link.makeConnection(transport)
        self.assertIs(link, sink.link)
        self.successResultOf(opening)
        wanted = [
            ("setTcpNoDelay", True),
            ("setTcpKeepAlive", True),
            ("registerProducer", link, True),
        ]
        self.assertEqual(wanted, transport.calls)
        del transport.calls[:]
        link.write(b"hello")
        link.pause_reading()
        link.resume_reading()
        link.close()
        link.abort()
        link.pauseProducing()
        link.resumeProducing()
        link.connectionLost(Failure(main.CONNECTION_LOST))
        self.assertEqual(
            [
                ("write", b"hello"),
                ("pauseProducing",),
                ("resumeProducing",),
                ("unregisterProducer",),
                ("loseConnection",),
                ("abortConnection",),
            ],
            transport.calls,
        )
        self.assertEqual(["pause", "resume", "disconnected"], sink.events)

    def test_second_address(self) -> None:
        """It gets the time that the first one has left."""
        reactor: Any = MemoryReactorClock()

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *rest: Any) -> None:
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", 0))
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.2", 0))
                receiver.resolutionComplete()

        reactor.nameResolver = Resolver()
        reactor.advance(100)
        opening = open_link(reactor, "two", 1, Sink(), 7.0)
        reactor.advance(5)
        factory = reactor.tcpClients[0][2]
        factory.clientConnectionFailed(reactor.connectors[0], Failure(ConnectionRefusedError()))
        self.assertEqual(["127.0.0.1", "127.0.0.2"], [each[0] for each in reactor.tcpClients])
        self.assertEqual([7.0, 2.0], [each[3] for each in reactor.tcpClients])
        self.assertNoResult(opening)

    def test_name_without_address(self) -> None:
        """Is an ``OSError`` that names it."""
        reactor: Any = MemoryReactorClock()

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *rest: Any) -> None:
                receiver.resolutionBegan(None)
                receiver.resolutionComplete()

        reactor.nameResolver = Resolver()
        failure = self.failureResultOf(open_link(reactor, "nowhere", 1, Sink(), 7.0), OSError)
        fault = ConnectionFault.of(failure.value)
        self.assertEqual(("the name nowhere cannot be resolved", True), astuple(fault))

    def test_name_that_is_never_resolved(self) -> None:
        """The time limit is also that of the resolver."""
        reactor: Any = MemoryReactorClock()

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *rest: Any) -> None:
                receiver.resolutionBegan(None)

        reactor.nameResolver = Resolver()
        opening = open_link(reactor, "slow", 1, Sink(), 7.0)
        reactor.advance(6.9)
        self.assertNoResult(opening)
        reactor.advance(0.2)
        self.assertIn("slow", str(self.failureResultOf(opening, OSError).value))

    def test_cancelled(self) -> None:
        """Ends the attempt, and no other address of the name is tried."""
        reactor: Any = MemoryReactorClock()
        attempts: list[str] = []

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *rest: Any) -> None:
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", 0))
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.2", 0))
                receiver.resolutionComplete()

        class Connector:
            def __init__(self, factory: Any) -> None:
                self.factory = factory

            def stopConnecting(self) -> None:
                self.factory.clientConnectionFailed(self, Failure(UserError()))

        def connect(host: str, port: int, factory: Any, timeout: float) -> Connector:
            attempts.append(host)
            return Connector(factory)

        reactor.nameResolver = Resolver()
        reactor.connectTCP = connect
        opening = open_link(reactor, "two", 1, Sink(), 7.0)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(["127.0.0.1"], attempts)

    def test_failure_is_an_error(self) -> None:
        """A listener that raises has the same level as on the other faces, ``ERROR``."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError:
            TwistedRuntime(Clock()).logger("metamorphosis.client").failure(
                "It {what}", what="failed"
            )
        self.flushLoggedErrors(ZeroDivisionError)
        [event] = [each for each in events if each["log_namespace"] == "metamorphosis.client"]
        self.assertEqual((LogLevel.error, "failed"), (event["log_level"], event["what"]))
        self.assertIsInstance(event["log_failure"].value, ZeroDivisionError)

    def test_clock(self) -> None:
        """Timers are the reactor's; a call in this turn is one timer for all."""
        clock = Clock()
        runtime = TwistedRuntime(clock)
        calls: list[int] = []
        runtime.call_soon(calls.append, 1)
        runtime.call_soon(calls.append, 2)
        runtime.call_later(5, calls.append, 3)
        self.assertEqual(2, len(clock.getDelayedCalls()))
        clock.advance(0)
        self.assertEqual([1, 2], calls)
        clock.advance(5)
        self.assertEqual([1, 2, 3], calls)

    def test_call_that_fails(self) -> None:
        """It is logged, and the others of the turn come."""

        def fail() -> None:
            raise ZeroDivisionError("on purpose")

        clock = Clock()
        runtime = TwistedRuntime(clock)
        calls: list[int] = []
        runtime.call_soon(fail)
        runtime.call_soon(calls.append, 1)
        clock.advance(0)
        self.assertEqual([1], calls)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_call_that_ends_the_program(self) -> None:
        """What is not an ``Exception`` goes to the reactor; the other calls of the turn still
        come."""

        def leave() -> None:
            raise SystemExit

        clock = Clock()
        runtime = TwistedRuntime(clock)
        calls: list[int] = []
        runtime.call_soon(leave)
        runtime.call_soon(calls.append, 1)
        runtime.call_soon(calls.append, 2)
        self.assertRaises(SystemExit, clock.advance, 0)
        runtime.call_soon(calls.append, 3)
        clock.advance(0)
        self.assertEqual([1, 2, 3], calls)
        self.assertEqual([], clock.getDelayedCalls())


class FakeSocket:
    """Takes a limited number of bytes."""

    def __init__(self) -> None:
        self.room = 0
        self.taken = b""
        self.coming = b""
        self.error: OSError | None = None

    def recv_into(self, buffer: memoryview) -> int:
        if self.error is not None:
            raise self.error
        count = min(len(buffer), len(self.coming))
        buffer[:count] = self.coming[:count]
        self.coming = self.coming[count:]
        return count

    def send(self, data: Any) -> int:
        if self.error is not None:
            raise self.error
        count = min(self.room, len(data))
        if not count:
            raise BlockingIOError
        self.room -= count
        self.taken += bytes(data[:count])
        return count

    def fileno(self) -> int:
        return 99


class FakeProtocol:
    """What it is given, and where it wants it."""

    def __init__(self) -> None:
        self.wanted: memoryview | None = None
        self.events: list[object] = []

    def room(self) -> memoryview | None:
        return self.wanted

    def received(self, count: int) -> None:
        self.events.append(count)

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)


class FakeReactor:
    """Remembers whether the transport wants to write."""

    def __init__(self) -> None:
        self.writing = False

    def addWriter(self, transport: object) -> None:
        self.writing = True

    def removeWriter(self, transport: object) -> None:
        self.writing = False


class LinkTransportTests(SynchronousTestCase):
    """What the socket does not take."""

    def setUp(self) -> None:
        """Connected, without any network."""
        self.reactor = FakeReactor()
        self.socket = FakeSocket()
        transport: Any = LinkTransport.__new__(LinkTransport)
        transport._queue = deque()
        transport.reactor = self.reactor
        transport.socket = self.socket
        transport.protocol = self.protocol = FakeProtocol()
        transport.connected = True
        self.transport = transport

    def test_send_at_once(self) -> None:
        """Nothing is queued, the reactor is not asked."""
        self.socket.room = 100
        self.transport.write(b"hello")
        self.assertEqual(b"hello", self.socket.taken)
        self.assertFalse(self.reactor.writing)

    def test_rest_is_queued(self) -> None:
        """And leaves in order when there is room."""
        self.socket.room = 3
        self.transport.write(b"hello ")
        self.transport.write(b"world")
        self.assertTrue(self.reactor.writing)
        self.socket.room = 5
        self.assertIsNone(self.transport.doWrite())
        self.assertTrue(self.reactor.writing)
        self.socket.room = 5
        self.assertIsNone(self.transport.doWrite())
        self.assertEqual(b"hello world", self.socket.taken)
        self.assertFalse(self.reactor.writing)

    def test_budget(self) -> None:
        """One ``doWrite`` sends about so much, and continues next time."""
        for _ in range(40):
            self.transport.write(bytes(1 << 16))
        self.socket.room = 1 << 30
        self.transport.doWrite()
        self.assertEqual(WRITE_LIMIT, len(self.socket.taken))
        self.assertTrue(self.reactor.writing)

    def test_pause_and_resume(self) -> None:
        """The producer pauses above the mark and continues below half of it, once each."""
        events: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                events.append("pause")

            def resumeProducing(self) -> None:
                events.append("resume")

        self.transport.registerProducer(Producer(), True)
        self.transport.write(bytes(QUEUE_LIMIT))
        self.assertEqual([], events)
        self.transport.write(b"x")
        self.transport.write(b"x")
        self.assertEqual(["pause"], events)
        self.socket.room = QUEUE_LIMIT // 2
        self.transport.doWrite()
        self.assertEqual(["pause"], events)
        self.socket.room = 10
        self.transport.doWrite()
        self.assertEqual(["pause", "resume"], events)

    def test_ends_of_reading(self) -> None:
        """A socket without bytes is asked again; its end and its errors are told to the reactor."""
        error: OSError
        for error, expected in (
            (BlockingIOError(), None),
            (InterruptedError(), None),
            (ConnectionResetError(), main.CONNECTION_LOST),
            (OSError("no route"), main.CONNECTION_LOST),
        ):
            self.socket.error = error
            self.assertIs(expected, self.transport.doRead(), error)
        self.socket.error = None
        self.assertIs(main.CONNECTION_DONE, self.transport.doRead())
        self.assertEqual([], self.protocol.events)

    def test_reading(self) -> None:
        """Bytes go to the protocol, or right to where it wants them."""
        self.socket.coming = b"hello world"
        self.protocol.wanted = memoryview(bytearray(5))
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(b"hello", bytes(self.protocol.wanted))
        self.protocol.wanted = None
        self.assertIsNone(self.transport.doRead())
        self.assertEqual([5, b" world"], self.protocol.events)

    def test_error_is_left_for_do_write(self) -> None:
        """``write`` raises nothing; the reactor learns of it next."""
        self.socket.error = OSError("reset")
        self.transport.write(b"hello")
        self.assertTrue(self.reactor.writing)
        self.assertIsNotNone(self.transport.doWrite())

    def test_end_after_the_queue(self) -> None:
        """A connection that is to be closed ends when all has left."""
        self.transport.write(b"hello")
        self.transport.disconnecting = True
        self.assertIsNone(self.transport.doWrite())
        self.socket.room = 10
        self.assertIsNotNone(self.transport.doWrite())
