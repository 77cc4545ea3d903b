"""
TCP connections of the client on Twisted.

Where the reactor watches sockets itself the transport is our own, as the broker's is, because two
things count for a client that has one busy connection; each figure is of one core:

* bytes are received into one 256 KiB buffer instead of a new 64 KiB string a read;
* ``write`` sends at once and queues only what the socket does not take, which saves two
  ``epoll_ctl`` and a trip through ``epoll_wait`` for each turn.

Other reactors use their own transport. Thread: the reactor's.
"""

from __future__ import annotations

from collections import deque
from os import strerror
from socket import EAI_NONAME, gaierror
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from metamorphosis.client.network.links import Receiver
from metamorphosis.client.runtimes.txclock import MonotonicReactor

BUFFER_BYTES = 256 * 1024
"""Received at a time."""

WRITE_LIMIT = 1 << 20
"""Bytes that one ``doWrite`` sends at most, so that one broker does not starve the others."""

QUEUE_LIMIT = 1 << 20
"""Queued bytes above which the receiver is asked to pause."""


def open_link(
    reactor: Any, host: str, port: int, receiver: Receiver, timeout: float
) -> Deferred[None]:
    """See ``IRuntime.connect``: all addresses of the host are tried, one after another."""
    return Deferred.fromCoroutine(_open(reactor, host, port, receiver, timeout))


async def _open(reactor: Any, host: str, port: int, receiver: Receiver, timeout: float) -> None:
    end = reactor.seconds() + timeout
    failure: OSError | None = None
    for address in await _Addresses().of(reactor, host, timeout):
        left = end - reactor.seconds()
        if left <= 0:
            break
        try:
            return await _Attempt(receiver).to(reactor, address, port, left)
        except OSError as error:
            failure = error
    raise failure or TimeoutError(f"no connection to {host}:{port} within {timeout:g} s")


class _Addresses:
    """The addresses of a name: an ``IResolutionReceiver``."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._done: Deferred[list[str]] = Deferred(lambda _: None)
        self._host = ""

    def of(self, reactor: Any, host: str, timeout: float) -> Deferred[list[str]]:
        """Numeric addresses of a host; fails with an ``OSError`` if there are none in time."""
        self._host = host
        self._done.addTimeout(timeout, reactor, self._late)
        reactor.nameResolver.resolveHostName(self, host)
        return self._done

    def _late(self, _: object, timeout: float) -> list[str]:
        raise TimeoutError(f"the name {self._host} has not been resolved within {timeout:g} s")

    def resolutionBegan(self, resolution: object) -> None:
        """See ``IResolutionReceiver``."""

    def addressResolved(self, address: IAddress) -> None:
        """See ``IResolutionReceiver``."""
        found = address.host  # type: ignore[attr-defined]
        if found not in self._found:
            self._found.append(found)

    def resolutionComplete(self) -> None:
        """See ``IResolutionReceiver``."""
        if self._done.called:
            return  # cancelled
        if self._found:
            self._done.callback(self._found)
        else:
            text = f"the name {self._host} cannot be resolved"
            self._done.errback(gaierror(EAI_NONAME, text))


class _Attempt(ClientFactory):
    """One connection to one address."""

    noisy = False

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._connector: Any = None
        self._done: Deferred[None] = Deferred(self._cancel)

    def to(self, reactor: Any, address: str, port: int, timeout: float) -> Deferred[None]:
        """Fires when the receiver has its link, fails with an ``OSError``."""
        if isinstance(reactor, PosixReactorBase | MonotonicReactor):
            self._connector = LinkConnector(address, port, self, timeout, None, reactor)
            self._connector.connect()
        else:
            self._connector = reactor.connectTCP(address, port, self, timeout)
        return self._done

    def _cancel(self, done: Deferred[None]) -> None:
        """The whole attempt was cancelled: the next address is not tried."""
        done.errback(CancelledError())
        self._connector.stopConnecting()

    def buildProtocol(self, address: object) -> TwistedLink:
        """See ``IProtocolFactory``."""
        return TwistedLink(self._receiver, self._done)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """See ``ClientFactory``."""
        if not self._done.called:
            self._done.errback(system_error(reason))


def system_error(reason: Failure) -> OSError:
    """Twisted's failure of a connection as the system's error, ``ConnectionRefusedError`` say."""
    number = getattr(reason.value, "osError", None)
    if isinstance(number, int):
        return OSError(number, strerror(number))
    return OSError(reason.getErrorMessage())


@implementer(IPushProducer)
class TwistedLink(Protocol):
    """A ``Link``; the transport's protocol and its streaming producer."""

    transport: Any

    def __init__(self, receiver: Receiver, done: Deferred[None]) -> None:
        self._receiver = receiver
        self._done = done
        self.dataReceived = receiver.data_received  # type: ignore[method-assign]
        self.room = receiver.room
        self.received = receiver.received

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        transport = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self.write = transport.write  # type: ignore[method-assign]
        self._receiver.connected(self)
        if not self._done.called:
            self._done.callback(None)

    def connectionLost(self, reason: Failure = main.CONNECTION_DONE) -> None:  # type: ignore
        """See ``IProtocol``."""
        self._receiver.disconnected(reason.getErrorMessage())

    def write(self, data: bytes) -> None:
        """See ``Link``."""
        self.transport.write(data)

    def close(self) -> None:
        """See ``Link``."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """See ``Link``."""
        self.transport.abortConnection()

    def pause_reading(self) -> None:
        """See ``Link``."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """See ``Link``."""
        self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._receiver.pause_sending()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._receiver.resume_sending()

    def stopProducing(self) -> None:
        """See ``IPushProducer``: ``connectionLost`` follows."""


class LinkTransport(tcp.Client):
    """
    A socket to a broker.

    :cvar room: where bytes are received; one for all, because they are copied at once.
    """

    room = memoryview(bytearray(BUFFER_BYTES))
    protocol: Any

    _queued = 0  # bytes in _queue

    def __init__(self, *args: Any) -> None:
        self._queue: deque[memoryview] = deque()
        super().__init__(*args)

    def doRead(self) -> Any:
        """Receive once, a long body right where it belongs."""
        protocol = self.protocol
        wanted = protocol.room()
        try:
            count = self.socket.recv_into(self.room if wanted is None else wanted)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not count:
            return main.CONNECTION_DONE
        if wanted is None:
            protocol.dataReceived(bytes(self.room[:count]))
        else:
            protocol.received(count)
        return None

    def write(self, data: bytes) -> None:
        """Send the bytes that the socket takes now, queue the rest. An error is left for
        ``doWrite``."""
        if not self.connected or not data:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self.socket.send(data)
            except OSError:
                pass
            if sent == len(data):
                return
        self._queue.append(memoryview(data)[sent:])
        self._queued += len(data) - sent
        if not self.producerPaused:
            self._maybePauseProducer()
        self.startWriting()

    def _isSendBufferFull(self) -> bool:
        return self._queued > QUEUE_LIMIT

    def doWrite(self) -> Any:
        """Send from the queue; at its end do what ``FileDescriptor.doWrite`` does there."""
        budget = WRITE_LIMIT
        queue = self._queue
        try:
            while queue and budget > 0:
                item = queue[0]
                sent = self.socket.send(item)
                self._queued -= sent
                budget -= sent
                if sent == len(item):
                    queue.popleft()
                else:
                    queue[0] = item[sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return main.CONNECTION_LOST
        producer: Any = self.producer
        if producer is not None and self.producerPaused and self._queued <= QUEUE_LIMIT // 2:
            self.producerPaused = False
            producer.resumeProducing()
        if queue:
            return None
        self.stopWriting()
        return main.CONNECTION_DONE if self.disconnecting else None

    def connectionLost(self, reason: Failure) -> None:
        """Forget the queued bytes, then as usual."""
        self._queue.clear()
        self._queued = 0
        super().connectionLost(reason)


class LinkConnector(tcp.Connector):
    """Makes ``LinkTransport``s."""

    def _makeTransport(self) -> LinkTransport:
        return LinkTransport(self.host, self.port, self.bindAddress, self, self.reactor)
