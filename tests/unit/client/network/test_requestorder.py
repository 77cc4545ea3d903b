"""Whether a broker executes requests in their order: what each kind of broker answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.figures import PLAIN
from metamorphosis.client.network.links import Waiter
from metamorphosis.client.network.replies import LOST, SUCCESS, TIMED_OUT
from metamorphosis.client.network.requestorder import Order, RequestOrder
from metamorphosis.replication.status import RoleFigures, status_lines


class Connection:
    """Notes what it is asked to send."""

    def __init__(self) -> None:
        self.is_connected = True
        self.frames: list[bytes] = []
        self.waiters: list[Waiter] = []

    def request(self, opaque: int, frame: bytes, waiter: Waiter, timeout: float) -> None:
        """See ``BrokerConnection``."""
        self.frames.append(frame.replace(b"%d" % opaque, b"N"))
        self.waiters.append(waiter)


def stats(*lines: str) -> bytes:
    """The body of an answer to ``stats``."""
    return "\r\n".join(("STATS", *lines, "END", "")).encode()


class RequestOrderTests(SynchronousTestCase):
    """One question a link."""

    def setUp(self) -> None:
        self.connection = Connection()
        self.order = RequestOrder(self.connection, 3.0)

    def answered(self, status: int, body: bytes) -> bool:
        """What is known after this answer."""
        self.assertFalse(self.order.is_kept())
        self.connection.waiters.pop()(status, body, 0)
        return self.order.is_kept()

    def test_asked_once(self) -> None:
        """In the words of the protocol; until the answer comes it counts as not kept."""
        self.assertEqual([False, False], [self.order.is_kept(), self.order.is_kept()])
        self.assertEqual([b"stats replication N\r\n"], self.connection.frames)

    def test_ours(self) -> None:
        """Without a role, and with one."""
        self.assertTrue(self.answered(SUCCESS, stats(*PLAIN)))
        self.order.begin()
        role = stats(*status_lines(RoleFigures(role="samsa_master", state="running")))
        self.assertTrue(self.answered(SUCCESS, role))

    def test_others(self) -> None:
        """The original takes the word for a topic; errors and silence say nothing."""
        for status, body in (
            (SUCCESS, stats("replication", "resultCode 1", "partitions 0", "bytes 0")),
            (SUCCESS, b""),
            (500, b"no"),
            (LOST, b""),
            (TIMED_OUT, b""),
        ):
            self.order.begin()
            self.assertFalse(self.answered(status, body), body)
            self.assertIs(Order.NOT_KEPT, self.order.state)
            self.assertEqual([], self.connection.waiters)

    def test_no_link(self) -> None:
        """Nothing is asked, and what was known counts for its link only."""
        self.connection.is_connected = False
        self.assertFalse(self.order.is_kept())
        self.assertEqual([], self.connection.frames)
        self.connection.is_connected = True
        self.assertTrue(self.answered(SUCCESS, stats(*PLAIN)))
        self.connection.is_connected = False
        self.assertFalse(self.order.is_kept())
