"""
A broker that keeps messages in memory, for tests of the faces over real sockets: ``put``, ``get``,
``offset``, ``version``, ``stats``. Only these commands are needed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.protocol import Protocol

from metamorphosis.message import encode_record


class FakeBroker:
    """
    :ivar logs: (topic, partition) -> the bytes of its records.
    :ivar commands: the words of all commands, in order.
    :ivar connections: those on asyncio.
    """

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], bytearray] = {}
        self.commands: list[str] = []
        self.connections: set[asyncio.Transport] = set()

    async def end(self) -> None:
        """Close the connections, and let the loop do it: it closes no sockets when it ends."""
        accepting = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*accepting, return_exceptions=True)
        for transport in self.connections:
            transport.abort()
        while self.connections:
            await asyncio.sleep(0)

    def answer(self, buffer: bytearray) -> bytes:
        """The replies to the complete requests in the buffer, which are taken out of it."""
        replies = []
        while b"\r\n" in buffer:
            end = buffer.index(b"\r\n") + 2
            tokens = bytes(buffer[: end - 2]).decode().split(" ")
            body_end = end + (int(tokens[3]) if tokens[0] == "put" else 0)
            if len(buffer) < body_end:
                break
            body = bytes(buffer[end:body_end])
            del buffer[:body_end]
            self.commands.append(tokens[0])
            replies.append(getattr(self, f"_{tokens[0]}")(tokens, body))
        return b"".join(replies)

    def _put(self, tokens: list[str], body: bytes) -> bytes:
        partition = max(int(tokens[2]), 0)
        log = self.logs.setdefault((tokens[1], partition), bytearray())
        offset = len(log)
        log += encode_record(offset + 1, int(tokens[4]), body)
        return _result(200, tokens[-1], b"%d %d %d" % (offset + 1, partition, offset))

    def _get(self, tokens: list[str], body: bytes) -> bytes:
        offset, size, opaque = int(tokens[4]), int(tokens[5]), tokens[6]
        log = self.logs.get((tokens[1], int(tokens[3])), bytearray())
        piece = bytes(log[offset : offset + size])
        if not piece:
            return _result(404, opaque, b"nothing there")
        return b"value %d %b\r\n%b" % (len(piece), opaque.encode(), piece)

    def _offset(self, tokens: list[str], body: bytes) -> bytes:
        log = self.logs.get((tokens[1], int(tokens[3])), b"")
        return _result(200, tokens[-1], b"%d" % (len(log) if int(tokens[4]) >= len(log) else 0))

    def _version(self, tokens: list[str], body: bytes) -> bytes:
        return _result(200, tokens[-1], b"1.4.6.2")

    def _stats(self, tokens: list[str], body: bytes) -> bytes:
        if tokens[1] == "offsets":
            lines = [
                f"{topic} part {number} min_offset 0 max_offset {len(log)}\r\n"
                for (topic, number), log in self.logs.items()
            ]
            return _result(200, tokens[-1], "".join(lines).encode())
        return _result(200, tokens[-1], b"pid 1\r\nitem %b\r\nflag\r\n" % tokens[1].encode())


def _result(status: int, opaque: str, text: bytes) -> bytes:
    return b"result %d %d %b\r\n%b" % (status, len(text), opaque.encode(), text)


class TwistedSide(Protocol):
    """One client of a ``FakeBroker``, on a Twisted transport."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._buffer = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._buffer += data
        self.transport.write(self._broker.answer(self._buffer))  # type: ignore[union-attr]


class AsyncioSide(asyncio.Protocol):
    """One client of a ``FakeBroker``, on an asyncio transport."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._buffer = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._transport = transport
        self._broker.connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._broker.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._buffer += data
        self._transport.write(self._broker.answer(self._buffer))


async def listen(broker: FakeBroker) -> tuple[asyncio.Server, str]:
    """A server on the running loop, and its ``host:port``."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: AsyncioSide(broker), "127.0.0.1", 0)
    return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def serving(broker: FakeBroker) -> AsyncIterator[str]:
    """The ``host:port`` of a server on the running loop. At the end it closes the accepted
    connections as well: those left to the loop's end are closed by the garbage collector, which
    complains during some later test."""
    server, address = await listen(broker)
    try:
        yield address
    finally:
        server.close()
        await broker.end()
