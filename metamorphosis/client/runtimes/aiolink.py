"""TCP connections of the client on asyncio. Thread: the loop's."""

from __future__ import annotations

import asyncio
from typing import Any

from metamorphosis.client.network.links import Receiver

BUFFER_BYTES = 256 * 1024
"""Received at a time."""

QUEUE_LIMIT = 1 << 20
"""Queued bytes above which the receiver is asked to pause."""


class AsyncioLink(asyncio.BufferedProtocol):
    """
    A ``Link``, and the protocol of its transport.

    :param buffer: where bytes are received; one for all of a loop, because they are copied at once.
        Loops of two threads receive at the same time, and must not share it.
    """

    def __init__(self, receiver: Receiver, buffer: memoryview) -> None:
        self._receiver = receiver
        self._buffer = buffer
        self._data_received = receiver.data_received
        self._wanted: memoryview | None = None  # what get_buffer gave, if it was the receiver's
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._transport = transport
        transport.set_write_buffer_limits(high=QUEUE_LIMIT)
        self.write = transport.write  # type: ignore[method-assign]
        self._receiver.connected(self)

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``."""
        reason = "connection closed" if error is None else str(error) or type(error).__name__
        self._receiver.disconnected(reason)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See ``asyncio.BufferedProtocol``: a long body is received right where it belongs."""
        wanted = self._wanted = self._receiver.room()
        return self._buffer if wanted is None else wanted

    def buffer_updated(self, count: int) -> None:
        """See ``asyncio.BufferedProtocol``."""
        if self._wanted is None:
            self._data_received(bytes(self._buffer[:count]))
        else:
            self._wanted = None
            self._receiver.received(count)

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._receiver.pause_sending()

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._receiver.resume_sending()

    def write(self, data: bytes) -> None:
        """See ``Link``."""
        self._transport.write(data)

    def close(self) -> None:
        """See ``Link``."""
        self._transport.close()

    def abort(self) -> None:
        """See ``Link``."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """See ``Link``."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See ``Link``."""
        self._transport.resume_reading()
