"""The contract of dispatch: tables of responders, real and fake, and roles that replace entries."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.broker.dispatch import Dispatch
from metamorphosis.broker.replies import ReplyQueue
from metamorphosis.broker.responders import sync, transactions
from metamorphosis.broker.session import Session
from metamorphosis.errors import Forbidden
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result
from tests.support.serving import Broker
from tests.unit.broker.awaiting import ForcedRecord
from tests.unit.broker.test_hotpath import put


def slave(command: wire.PutCommand, session: Session) -> None:
    """A role: puts are refused."""
    raise Forbidden("The broker is a slave,put is not allowed")


class DispatchTests(SynchronousTestCase):
    """The function that answers a command."""

    def test_role_replaces_put_and_sync(self) -> None:
        """The role answers from then on, also for routes of the hot path; other commands are
        answered as before."""
        broker = Broker(self.mktemp())
        client = broker.client()
        self.assertIn(b"result 200", client.send(put(b"hello")))
        forced = ForcedRecord("")

        def keep(command: wire.SyncCommand, session: Session) -> None:
            session.replies.add(result(200, command.opaque, b"kept"), forced, 0, forced.refuse)

        broker.responders.dispatch.replace({wire.PutCommand: slave, wire.SyncCommand: keep})
        broker.responders.routes.clear()
        reply = client.send(put(b"hello"))
        self.assertEqual(reply, b"result 403 40 1\r\nThe broker is a slave,put is not allowed")
        sent = b"sync test 0 5 0 77 907060870 2\r\nhello"
        self.assertEqual(client.send(sent + b"version 3\r\n"), b"")
        forced.succeed()
        broker.clock.advance(0)
        self.assertEqual(client.received(), b"result 200 4 2\r\nkeptresult 200 7 3\r\n1.4.6.2")

    def test_answered_twice(self) -> None:
        """Two tables with the same command are an error."""
        self.assertRaises(ValueError, Dispatch, sync.table(), sync.table())

    def test_role_for_nothing(self) -> None:
        """A role that replaces an unknown command is an error."""
        dispatch = Dispatch(transactions.table())
        self.assertRaises(ValueError, dispatch.replace, {wire.PutCommand: slave})

    def test_unexpected_error_is_500(self) -> None:
        """It is logged with its traceback, and the session continues."""

        def fail(command: wire.VersionCommand, session: Session) -> None:
            raise ZeroDivisionError("bug")

        sent: list[bytes] = []
        queue = ReplyQueue(lambda: None)
        session = Session(queue, lambda: None)
        Dispatch({wire.VersionCommand: fail}).respond(wire.VersionCommand(7), session)
        queue.drain(type("Peer", (), {"write": staticmethod(sent.append)})())
        self.assertEqual(sent, [b"result 500 3 7\r\nbug"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refusal_of_a_command_without_a_number(self) -> None:
        """Its reply has the number 0."""
        sent: list[bytes] = []
        queue = ReplyQueue(lambda: None)
        Dispatch({wire.QuitCommand: slave}).respond(
            wire.QuitCommand(), Session(queue, lambda: None)
        )
        queue.drain(type("Peer", (), {"write": staticmethod(sent.append)})())
        self.assertEqual(sent, [b"result 403 40 0\r\nThe broker is a slave,put is not allowed"])

    def test_unexpected_errors_do_not_fill_the_log(self) -> None:
        """Of unexpected errors, one in ten seconds is logged."""

        def fail(command: wire.VersionCommand, session: Session) -> None:
            raise ZeroDivisionError("bug")

        session = Session(ReplyQueue(lambda: None), lambda: None)
        dispatch = Dispatch({wire.VersionCommand: fail})
        for opaque in range(50):
            dispatch.respond(wire.VersionCommand(opaque), session)
        self.assertLess(len(self.flushLoggedErrors(ZeroDivisionError)), 3)


class SessionTests(SynchronousTestCase):
    """The state of a connection is released once."""

    def test_lost(self) -> None:
        """Each function is called once, also when it was registered more than once."""
        calls: list[str] = []
        session = Session(ReplyQueue(lambda: None), lambda: None)

        def forget(gone: Session) -> None:
            calls.append("forget")
            self.assertIs(gone, session)

        session.on_lost(forget)
        session.on_lost(forget)
        session.on_lost(lambda _: calls.append("roll back"))
        session.on_closing(lambda _: calls.append("closing"))
        session.lost()
        session.lost()
        session.closing()
        self.assertEqual(calls, ["forget", "roll back"])

    def test_closing_then_lost(self) -> None:
        """``on_closing`` is called before ``on_lost``."""
        calls: list[str] = []
        session = Session(ReplyQueue(lambda: None), lambda: None)
        session.on_lost(lambda _: calls.append("lost"))
        session.on_closing(lambda _: calls.append("closing"))
        session.closing()
        session.lost()
        self.assertEqual(calls, ["closing", "lost"])
