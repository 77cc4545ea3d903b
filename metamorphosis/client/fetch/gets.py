"""
The requests of the fetch loops, and the settings that the loops share.

Source: ``GetCommand``, ``SimpleMessageConsumer.fetch``.
"""

from __future__ import annotations

from metamorphosis.client.fetch.passing import PassingListener
from metamorphosis.client.model import Partition
from metamorphosis.client.network.complaints import Complaints, Gathering
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.client.network.opaques import next_opaque
from metamorphosis.client.network.replies import NOT_SENT
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.interfaces import IRuntime


class FetchRules:
    """
    The settings and parts that the loops of a consumer share.

    :ivar gathering: lines about many partitions.
    :ivar passed_over: called with each message that cannot be delivered.
    """

    __slots__ = (
        "complaints",
        "config",
        "gathering",
        "log",
        "passed_over",
        "runtime",
        "timeout",
        "wait_ms",
    )

    def __init__(
        self, runtime: IRuntime, config: ConsumerConfig, log: Log, passed_over: PassingListener
    ) -> None:
        self.runtime = runtime
        self.config = config
        self.log = log
        self.gathering = Gathering(runtime)
        self.complaints = Complaints(self.gathering, log)
        self.passed_over = passed_over
        self.timeout = config.fetch_timeout_ms / 1000
        self.wait_ms = min(config.long_poll_ms, config.fetch_timeout_ms // 2)


class Request:
    """
    A ``get`` under way, or answered.

    :ivar status: of the answer; see ``replies``.
    """

    __slots__ = ("answered", "asked_at", "body", "done", "offset", "status")

    def __init__(self, offset: int, asked_at: float, answered: Event) -> None:
        self.offset = offset
        self.asked_at = asked_at
        self.done = False
        self.status = NOT_SENT
        self.body = b""
        self.answered = answered

    def answer(self, status: int, body: bytes, opaque: int) -> None:
        """The ``Waiter``."""
        self.status = status
        self.body = body
        self.done = True
        self.answered.pulse()


class Gets:
    """
    Asks one broker for one partition. Thread: the loop's.

    :param answered: pulsed with each answer.
    """

    __slots__ = ("_answered", "_connection", "_head", "_rules", "_tail")

    def __init__(
        self,
        rules: FetchRules,
        connection: BrokerConnection,
        topic: str,
        partition: Partition,
        answered: Event,
    ) -> None:
        self._rules = rules
        self._connection = connection
        self._answered = answered
        words = ("get", topic, rules.config.group, str(partition.number))
        self._head = " ".join(words).encode()
        self._tail = b" %d\r\n" % rules.wait_ms if rules.wait_ms else b"\r\n"

    def ask(self, offset: int, size: int) -> Request:
        """Send a ``get``; the request receives the answer."""
        rules = self._rules
        request = Request(offset, rules.runtime.seconds(), self._answered)
        opaque = next_opaque()
        frame = b"%b %d %d %d%b" % (self._head, offset, size, opaque, self._tail)
        self._connection.request(opaque, frame, request.answer, rules.timeout)
        return request
