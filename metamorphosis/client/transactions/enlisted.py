"""
The messages of one transaction on their way: each is sent once, and one failure fails the
transaction.

There are no further attempts: where the first one ended without an answer, a second one could put
the message into the transaction twice. The transaction is rolled back and begun anew instead.

In order, one message is under way at a time. Otherwise all are, and a Java broker, which executes
the requests of a connection on several threads, may store them in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from metamorphosis.client.model import SendResult
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.producer.puts import Put
from metamorphosis.interfaces import IRuntime
from metamorphosis.message import checksum
from metamorphosis.wire.commands import PutCommand
from metamorphosis.wire.encoding import encode
from metamorphosis.wire.transactionids import TransactionId


class Enlisted:
    """
    The ``Owner`` of a transaction's puts. Thread: the loop's.

    :param told: takes the error of a failed put, and returns the error for its sender.
    :ivar stored_count: messages that the broker has taken.
    :ivar failure: of the first message that failed.
    """

    def __init__(
        self,
        runtime: IRuntime,
        transaction: TransactionId,
        in_order: bool,
        told: Callable[[Exception], Exception] | None = None,
    ) -> None:
        self.stored_count = 0
        self.failure: Exception | None = None
        self._api = runtime.api
        self._transaction = transaction
        self._in_order = in_order
        self._told = told
        self._waiting: deque[Put] = deque()
        self._under_way = 0
        self._broker: BrokerConnection | None = None
        self._idle = Event(runtime)
        self._idle.set()

    def add(self, put: Put) -> None:
        """Send the message as soon as there is a broker, and it is the message's turn."""
        self._idle.clear()
        self._waiting.append(put)
        self._send()

    def begin(self, broker: BrokerConnection) -> None:
        """The broker knows the transaction: send the messages that wait."""
        self._broker = broker
        self._send()

    def fail(self, error: Exception) -> None:
        """Send nothing more; messages that have not been sent get this error."""
        if self.failure is None:
            self.failure = error
        waiting, self._waiting = self._waiting, deque()
        for put in waiting:
            self._resolve(put, None, error)
        self._note()

    async def settled(self) -> None:
        """Wait until every message has been answered, or given up."""
        await self._idle.wait()

    def _send(self) -> None:
        while self._waiting and self._broker is not None and self.failure is None:
            if self._in_order and self._under_way:
                return
            put = self._waiting.popleft()
            self._under_way += 1
            put.broker = self._broker
            opaque = next_opaque()
            self._broker.request(opaque, self._frame(put, opaque), put.answered, put.timeout)

    def _frame(self, put: Put, opaque: int) -> bytes:
        assert put.partition is not None
        topic, number, body = put.message.topic, put.partition.number, put.body
        command = PutCommand(
            topic, number, body, put.flag, checksum(body), self._transaction, opaque
        )
        return encode(command)

    # -- outcomes: ``Owner``

    def stored(self, put: Put, result: SendResult) -> None:
        """See ``Owner``."""
        self._under_way -= 1
        self.stored_count += 1
        self._send()
        self._resolve(put, result, None)
        self._note()

    def failed(self, put: Put, error: Exception) -> None:
        """See ``Owner``."""
        if self._told is not None:
            error = self._told(error)
        self.fail(error)
        self._resolve(put, None, error)
        self._under_way -= 1
        self._note()

    def _resolve(self, put: Put, result: SendResult | None, error: Exception | None) -> None:
        future: Any = put.future
        if put.callback is not None:
            put.callback(result, error)
        elif self._api.is_called(future):
            pass  # cancelled by the sender
        elif error is None:
            self._api.resolve(future, result)
        else:
            self._api.reject(future, error)

    def _note(self) -> None:
        if not self._under_way and not self._waiting:
            self._idle.set()
