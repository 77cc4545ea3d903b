"""XA resources: each step and code, the broker that has a branch, and what recovery finds."""

from __future__ import annotations

import socket
from typing import Any

from metamorphosis.client.model import MessagesFailed, OutgoingMessage, Partition
from metamorphosis.client.transactions.resource import XAResource
from metamorphosis.client.transactions.xa import (
    TMENDRSCAN,
    TMFAIL,
    TMJOIN,
    TMNOFLAGS,
    TMRESUME,
    TMSTARTRSCAN,
    TMSUCCESS,
    TMSUSPEND,
    XA_HEURCOM,
    XA_HEURHAZ,
    XA_HEURRB,
    XA_OK,
    XA_RBOTHER,
    XA_RBROLLBACK,
    XA_RDONLY,
    XAER_DUPID,
    XAER_INVAL,
    XAER_NOTA,
    XAER_PROTO,
    XAER_RMERR,
    XAER_RMFAIL,
    Xid,
    code_of,
    recovered_xids,
)
from metamorphosis.errors import (
    ClientClosed,
    Forbidden,
    InternalServerError,
    InvalidMessage,
    InvalidState,
    RemoteProtocolError,
    SendTimeout,
    XAError,
)
from metamorphosis.transactions.heuristiclog import Heuristic
from tests.support.linked import LinkedCase

A, B = Xid(11, b"\x0a\xff", b"\xb1\x02"), Xid(-1, b"\x01", b"")
P0 = Partition(0, 0)


class XACase(LinkedCase):
    """An XA producer, and a resource of it on broker 0."""

    def setUp(self) -> None:
        super().setUp()
        self.here, self.there = self.brokers
        self.producing = self.xa()
        self.resource = self.producing.resource("host0:8123")

    def xa(self, qualifier: str = "app-h1", **options: Any) -> Any:
        """Another life of the application."""
        made = self.outcome(
            self.session.create_xa_producer("test", unique_qualifier=qualifier, **options)
        )
        self.here.lines.clear()
        self.there.lines.clear()
        return made

    def work(self, xid: Xid, *bodies: bytes, resource: XAResource | None = None) -> None:
        """A branch with messages, ended."""
        used = self.resource if resource is None else resource
        self.outcome(used.start(xid))
        for body in bodies:
            self.outcome(used.send("test", body))
        self.outcome(used.end(xid))

    def prepared(self, xid: Xid, *bodies: bytes, resource: XAResource | None = None) -> None:
        """A branch that has been prepared."""
        used = self.resource if resource is None else resource
        self.work(xid, *bodies or (b"x",), resource=used)
        self.assertEqual(XA_OK, self.outcome(used.prepare(xid)))

    def visible(self) -> list[bytes]:
        """Everything at broker 0."""
        return sorted(self.here.stored() + self.here.stored(partition=1))

    def assertCode(self, code: int, future: Any, seconds: float = 0.0) -> XAError:
        """It fails with this code."""
        error = self.assertRaises(XAError, self.outcome, future, seconds)
        self.assertEqual(code, error.code, str(error))
        return error  # type: ignore[no-any-return]


class StepTests(XACase):
    """What goes well."""

    def test_trace_of_the_java_client(self) -> None:
        """The lines are those that the original sends, the session's id and opaques left out."""
        self.assertIs(True, self.resource.set_transaction_timeout(30))
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"hello", partition=P0))
        self.outcome(self.resource.end(A))
        self.assertEqual(XA_OK, self.outcome(self.resource.prepare(A)))
        self.assertEqual([], self.visible())
        self.assertEqual((A,), self.outcome(self.resource.recover()))
        self.outcome(self.resource.commit(A))
        session = self.here.lines[0].split(" ")[2]
        self.assertNotIn(":", session)
        key = "XID:11:0aff:b102:app-h1"
        self.assertEqual(
            [
                f"transaction {key} {session} BEGIN 30 app-h1",
                f"put test 0 5 0 907060870 {key}",
                f"transaction {key} {session} END app-h1",
                f"transaction {key} {session} PREPARE app-h1",
                f"transaction null {session} RECOVER app-h1",
                f"transaction {key} {session} COMMIT_TWO_PHASE app-h1",
            ],
            self.here.lines,
        )
        self.assertEqual([b"hello"], self.visible())

    def test_one_phase(self) -> None:
        """Without PREPARE."""
        self.work(A, b"1", b"2")
        self.outcome(self.resource.commit(A, one_phase=True))
        self.assertEqual([b"1", b"2"], self.visible())
        self.assertNotIn("PREPARE", self.here.steps)

    def test_read_only(self) -> None:
        """A branch without messages is forgotten at its prepare."""
        self.work(A)
        self.assertEqual(XA_RDONLY, self.outcome(self.resource.prepare(A)))
        self.assertCode(XAER_NOTA, self.resource.commit(A))

    def test_rollback(self) -> None:
        """While associated, ended, or prepared."""
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"1"))
        self.outcome(self.resource.rollback(A))
        self.assertRaises(InvalidState, self.outcome, self.resource.send("test", b"2"))
        self.work(A, b"3")
        self.outcome(self.resource.rollback(A))
        self.prepared(A, b"4")
        self.outcome(self.resource.rollback(A))
        self.assertEqual([], self.visible())
        self.assertEqual((), self.outcome(self.resource.recover()))

    def test_one_broker(self) -> None:
        """All messages go to the resource's broker."""
        self.work(A, *(b"%d" % n for n in range(5)))
        self.outcome(self.resource.commit(A, one_phase=True))
        self.assertEqual(5, len(self.visible()))
        self.assertEqual([], self.there.lines)

    def test_join_and_resume(self) -> None:
        """The branch continues where it was left, and BEGIN is not sent again."""
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"1"))
        self.outcome(self.resource.end(A, TMSUSPEND))
        self.assertCode(XAER_PROTO, self.resource.prepare(A))
        self.outcome(self.resource.start(A, TMRESUME))
        self.outcome(self.resource.send("test", b"2"))
        self.outcome(self.resource.end(A))
        other = self.producing.resource("host0:8123")
        self.outcome(other.start(A, TMJOIN))
        self.outcome(other.send("test", b"3"))
        self.outcome(other.end(A))
        self.outcome(other.commit(A, True))
        self.assertEqual([b"1", b"2", b"3"], self.visible())
        self.assertEqual(1, self.here.steps.count("BEGIN"))

    def test_same_resource_manager(self) -> None:
        """The same broker."""
        self.assertTrue(self.resource.is_same_rm(self.producing.resource("host0:8123")))
        self.assertFalse(self.resource.is_same_rm(self.producing.resource("host1:8123")))

    def test_broker_of_choice(self) -> None:
        """Without a name it is one that has every topic that was published."""
        self.register(1, "only-there")
        self.publish(self.producing, "only-there")
        for _ in range(10):
            self.assertEqual("meta://host1:8123", self.producing.resource().target)
        self.register(0, "only-here")
        self.publish(self.producing, "only-here")
        error = self.assertRaises(XAError, self.producing.resource)
        self.assertEqual(XAER_RMFAIL, error.code)
        self.assertIn("only-here, only-there", str(error))

    def test_connected_brokers_first(self) -> None:
        """Those without a connection are taken where there is no other."""
        self.there.lose()
        for _ in range(20):
            self.assertEqual("meta://host0:8123", self.producing.resource().target)
        self.here.lose()
        found = {self.producing.resource().target for _ in range(100)}
        self.assertEqual({"meta://host0:8123", "meta://host1:8123"}, found)

    def test_messages_under_way(self) -> None:
        """``end`` and ``prepare`` wait until each was answered; a rollback gives up those that were
        not sent, and waits for the others."""
        resource = self.xa(in_order=True).resource("host0:8123")
        for last in ("prepare", "rollback"):
            self.outcome(resource.start(A))
            self.here.lines.clear()
            self.here.mute = True
            sent = [resource.send("test", b"1"), resource.send("test", b"2")]
            ends = [resource.end(A)] if last == "prepare" else []
            ends.append(getattr(resource, last)(A))
            self.serve()
            self.assertEqual(["put"], self.here.steps)
            self.here.mute = False
            if last == "rollback":
                error = self.assertCode(XA_RBROLLBACK, sent.pop())
                self.assertIn("is being rolled back", str(error))
            for future in sent:
                self.reply(b"1 0 -1")
                self.outcome(future)
            for future in ends:
                self.outcome(future)
            self.assertEqual("END" if ends[1:] else "put", self.here.steps[-2])
            if last == "prepare":
                self.outcome(resource.commit(A))

    def reply(self, body: bytes) -> None:
        """To the request that waits for an answer."""
        link = self.here.links()[-1]
        (opaque,) = link.receiver._waiting  # type: ignore[attr-defined]
        link.receive(b"result 200 %d %d\r\n%b" % (len(body), opaque, body))

    def test_lost_connection(self) -> None:
        """A prepared branch belongs to no connection."""
        self.prepared(A, b"1")
        self.here.lose()
        self.outcome(self.resource.commit(A), 1.0)
        self.assertEqual([b"1"], self.visible())

    def test_default_qualifier(self) -> None:
        """The setting names the host."""
        made = self.outcome(self.session.create_xa_producer("test"))
        self.assertEqual(f"XAMessageProducer-{socket.gethostname()}", made.unique_qualifier)
        self.session.config = self.session.config.replaced(xa_producer_host_name="app-h1")
        made = self.outcome(self.session.create_xa_producer("test"))
        self.assertEqual("XAMessageProducer-app-h1", made.unique_qualifier)

    def test_connections_are_let_go(self) -> None:
        """Those that only resources needed end with the producer; a branch stays prepared."""
        self.prepared(A)
        self.producing.resource("host7:8123")
        self.assertIsNotNone(self.session.connections.connection_of("host7:8123"))
        self.outcome(self.producing.close())
        self.assertIsNone(self.session.connections.connection_of("host7:8123"))
        self.assertNotIn("ROLLBACK", self.here.steps)
        self.assertRaises(ClientClosed, self.producing.resource)


class HolderTests(XACase):
    """The broker that has a branch is asked, whichever resource a transaction manager uses."""

    def test_begun_by_this_producer(self) -> None:
        """No broker has to be asked for its place."""
        self.prepared(A, b"1")
        self.outcome(self.producing.resource("host1:8123").commit(A))
        self.assertEqual([b"1"], self.visible())
        self.assertEqual([], self.there.lines)

    def test_of_an_earlier_life(self) -> None:
        """Without ``recover``: it is looked for."""
        self.prepared(A, b"1")
        self.prepared(B, b"2")
        later = self.xa().resource("host1:8123")
        self.outcome(later.commit(A))
        self.outcome(later.rollback(B))
        self.assertEqual([b"1"], self.visible())

    def test_found_again_elsewhere(self) -> None:
        """The place of a finished branch is forgotten: the next one of its name may be at another
        broker."""
        later = self.xa().resource("host1:8123")
        for body, place in ((b"1", "host0:8123"), (b"2", "host1:8123")):
            making = self.xa().resource(place)
            self.prepared(A, body, resource=making)
            self.outcome(later.commit(A))
        self.assertEqual([b"2"], self.there.stored() + self.there.stored(partition=1))

    def test_recover_asks_all(self) -> None:
        """Branches of every broker, and none of another application."""
        self.prepared(A)
        self.prepared(B, resource=self.producing.resource("host1:8123"))
        stranger = Xid(5, b"s", b"")
        self.prepared(stranger, resource=self.xa("other").resource("host0:8123"))
        found = self.outcome(self.xa().resource("host0:8123").recover(TMSTARTRSCAN))
        self.assertEqual({A, B}, set(found))
        self.assertEqual({}, found.failed)

    def test_slave_without_master(self) -> None:
        """A broker of which a slave alone is registered has nothing to say."""
        self.tree.create("/meta/brokers/ids/5/slave0", b"meta://host5:8123", 1)
        self.prepared(A)
        found = self.outcome(self.resource.recover())
        self.assertEqual(((A,), {}), (found, found.failed))

    def test_slave_is_the_first(self) -> None:
        """The same where no master was read before it; what is no number is passed over."""
        self.prepared(A)
        for name in ("strange", "0/slave0"):
            self.tree.create(f"/meta/brokers/ids/{name}", b"meta://host9:8123", 1)
        self.tree.delete("/meta/brokers/ids/0/master")
        found = self.outcome(self.resource.recover())
        self.assertEqual(((A,), {}), (found, found.failed))

    def test_zookeeper_away(self) -> None:
        """Which brokers there are is not known: neither an empty list nor NOTA."""
        self.prepared(A)
        self.registry.lose()
        later = self.xa().resource("host0:8123")
        for future in (later.recover(), later.commit(A)):
            error = self.assertCode(XAER_RMFAIL, future)
            self.assertIn("the brokers are not known", str(error))

    def test_scan(self) -> None:
        """The start returns everything; further calls are empty and ask no broker."""
        self.prepared(A)
        both = self.resource.recover(TMSTARTRSCAN | TMENDRSCAN)
        self.assertEqual((A,), self.outcome(both))
        self.here.lines.clear()
        for flags in (TMNOFLAGS, TMENDRSCAN):
            self.assertEqual((), self.outcome(self.resource.recover(flags)))
        self.assertEqual([], self.here.lines)
        self.assertCode(XAER_INVAL, self.resource.recover(TMJOIN))

    def test_broker_away(self) -> None:
        """It is named with what the others have."""
        self.prepared(A)
        self.there.deaf = True
        found = self.outcome(self.resource.recover(), 6.0)
        self.assertEqual((A,), found)
        self.assertEqual(["meta://host1:8123"], list(found.failed))
        self.assertIn("Recovery is not complete", self.runtime.log.texts("warn")[-1])

    def test_broker_not_connected(self) -> None:
        """The same, with the reason."""
        self.prepared(A)
        self.outcome(self.producing.resource("host1:8123").start(B))
        self.there.lose()
        recovered = self.resource.recover()
        self.here.serve()
        self.runtime.advance(6)
        found = self.runtime.result(recovered)
        self.assertEqual((A,), found)
        text = "recover at meta://host1:8123: not sent, there is no connection (connection lost)"
        self.assertEqual({"meta://host1:8123": text}, {k: str(v) for k, v in found.failed.items()})

    def test_no_master_is_registered(self) -> None:
        """Brokers that are known otherwise are asked."""
        self.prepared(A)
        for path in ("0/master", "0", "1/master", "1", ""):
            self.tree.delete(f"/meta/brokers/ids/{path}".rstrip("/"))
        self.assertEqual((A,), self.outcome(self.resource.recover()))

    def test_no_broker(self) -> None:
        """An empty list would be a lie."""
        self.here.deaf = self.there.deaf = True
        error = self.assertCode(XAER_RMFAIL, self.resource.recover(), 6.0)
        self.assertIn("host0:8123", str(error))
        self.assertIn("host1:8123", str(error))

    def test_may_be_at_a_broker_that_is_away(self) -> None:
        """NOTA would make a transaction manager forget it."""
        self.there.deaf = True
        error = self.assertCode(XAER_RMFAIL, self.resource.commit(A), 6.0)
        self.assertIn("host1:8123", str(error))

    def test_nowhere(self) -> None:
        """All were asked."""
        self.assertCode(XAER_NOTA, self.resource.commit(A))
        self.assertCode(XAER_NOTA, self.resource.rollback(A))
        self.assertCode(XAER_NOTA, self.resource.forget(A))
        self.assertCode(XAER_NOTA, self.resource.prepare(A))
        self.assertIn("RECOVER", self.there.steps)

    def test_list_that_makes_no_sense(self) -> None:
        """A broker with an invalid reply is named."""
        self.there.answers["RECOVER"] = 200, b"XID:1:zz:aa:app-h1"
        found = self.outcome(self.resource.recover())
        self.assertIn("zz", str(found.failed["meta://host1:8123"]))


class RefusalTests(XACase):
    """The checks here, and the codes of the broker."""

    def test_start(self) -> None:
        """Twice, over another one, with strange flags, of what was never there."""
        self.assertCode(XAER_INVAL, self.resource.start(A, TMSUCCESS))
        self.assertCode(XAER_NOTA, self.resource.start(A, TMJOIN))
        self.assertCode(XAER_NOTA, self.resource.start(A, TMRESUME))
        self.outcome(self.resource.start(A))
        self.assertCode(XAER_DUPID, self.resource.start(A))
        self.assertCode(XAER_PROTO, self.resource.start(B))
        self.assertCode(XAER_DUPID, self.producing.resource("host0:8123").start(A))
        self.outcome(self.resource.end(A))
        self.assertCode(XAER_PROTO, self.resource.start(A, TMRESUME))
        self.assertCode(XAER_NOTA, self.producing.resource("host1:8123").start(A, TMJOIN))

    def test_end(self) -> None:
        """Of what is not associated."""
        self.assertCode(XAER_INVAL, self.resource.end(A, TMJOIN))
        self.assertCode(XAER_NOTA, self.resource.end(A))
        self.outcome(self.resource.start(A))
        self.assertCode(XAER_PROTO, self.producing.resource("host0:8123").end(A))
        self.outcome(self.resource.end(A))
        self.assertCode(XAER_PROTO, self.resource.end(A))

    def test_end_of_a_suspended_branch(self) -> None:
        """It needs no association."""
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"1"))
        self.outcome(self.resource.end(A, TMSUSPEND))
        self.outcome(self.resource.end(A, TMSUCCESS))
        self.outcome(self.resource.commit(A, True))
        self.assertEqual([b"1"], self.visible())

    def test_prepare_and_commit_while_associated(self) -> None:
        """``end`` comes first."""
        self.outcome(self.resource.start(A))
        for future in (
            self.resource.prepare(A),
            self.resource.commit(A),
            self.resource.commit(A, True),
        ):
            error = self.assertCode(XAER_PROTO, future)
            self.assertIn("it is active; end it first", str(error))
        self.assertEqual(["BEGIN"], self.here.steps)

    def test_commit_before_prepare(self) -> None:
        """Two phases need the first one."""
        self.work(A, b"1")
        error = self.assertCode(XAER_PROTO, self.resource.commit(A))
        self.assertIn("it has not been prepared", str(error))
        self.assertNotIn("COMMIT_TWO_PHASE", self.here.steps)
        self.outcome(self.resource.commit(A, True))

    def test_prepare_twice(self) -> None:
        """The broker's code."""
        self.prepared(A)
        self.assertCode(XAER_PROTO, self.resource.prepare(A))
        self.assertCode(XAER_DUPID, self.resource.start(A))
        self.outcome(self.resource.commit(A))
        self.assertCode(XAER_NOTA, self.resource.commit(A))
        self.prepared(A)

    def test_failed_branch(self) -> None:
        """``TMFAIL`` leaves nothing but a rollback, which ``prepare`` does and says."""
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"1"))
        self.outcome(self.resource.end(A, TMFAIL))
        self.assertCode(XA_RBROLLBACK, self.resource.prepare(A))
        self.assertEqual("ROLLBACK", self.here.steps[-1])
        self.assertCode(XAER_NOTA, self.resource.rollback(A))

    def test_failed_message(self) -> None:
        """The same after a message that could not be sent."""
        self.outcome(self.resource.start(A))
        self.outcome(self.resource.send("test", b"1"))
        bad = self.resource.send("test", b"2", partition=Partition(0, 9))
        self.assertRaises(InternalServerError, self.outcome, bad)
        self.assertCode(XA_RBROLLBACK, self.resource.send("test", b"3"))
        self.outcome(self.resource.end(A))
        error = self.assertCode(XA_RBROLLBACK, self.resource.commit(A, True))
        self.assertIn("wrong partition 9", str(error))
        self.assertEqual([], self.visible())

    def test_wrong_message(self) -> None:
        """The same: what belongs to the branch is not all there."""
        self.outcome(self.resource.start(A))
        self.assertRaises(InvalidMessage, self.outcome, self.resource.send("test", "text"))
        self.assertCode(XA_RBROLLBACK, self.resource.send("test", b"3"))
        self.outcome(self.resource.end(A))
        self.assertCode(XA_RBROLLBACK, self.resource.prepare(A))

    def test_send_many(self) -> None:
        """Into the branch that is started; without one, or after a failure, each says why not."""
        some = [OutgoingMessage("test", b"%d" % n) for n in range(3)]
        with self.assertRaisesRegex(MessagesFailed, "3 of 3 .*no branch is started"):
            self.outcome(self.resource.send_many(some))
        self.outcome(self.resource.start(A))
        self.assertEqual(
            [-1] * 3, [each.offset for each in self.outcome(self.resource.send_many(some))]
        )
        bad = self.resource.send_many(some, partition=Partition(0, 9))
        with self.assertRaisesRegex(MessagesFailed, "wrong partition 9"):
            self.outcome(bad)
        with self.assertRaises(MessagesFailed) as caught:
            self.outcome(self.resource.send_many(some))
        self.assertEqual({XAError}, {type(each) for each in caught.exception.outcomes})
        self.outcome(self.resource.end(A))
        self.assertCode(XA_RBROLLBACK, self.resource.commit(A, True))
        self.assertEqual([], self.visible())

    def test_message_without_answer(self) -> None:
        """Whether it is in the branch is unknown, so the branch cannot be prepared."""
        self.outcome(self.resource.start(A))
        self.here.mute = True
        sent = self.resource.send("test", b"1", timeout=1.0)
        self.assertRaises(SendTimeout, self.outcome, sent, 2.0)
        self.here.mute = False
        self.outcome(self.resource.end(A))
        self.assertCode(XA_RBROLLBACK, self.resource.prepare(A))

    def test_begin_refused(self) -> None:
        """The text is the broker's; the branch can be started again."""
        self.here.answers["BEGIN"] = 500, b"Unsupported beginTransaction"
        error = self.assertCode(XAER_RMERR, self.resource.start(A))
        self.assertIn("Unsupported beginTransaction", str(error))
        self.here.answers.clear()
        self.prepared(A)

    def test_message_before_the_refusal(self) -> None:
        """It gets a code as any other error of the branch."""
        self.here.answers["BEGIN"] = 500, b"Unsupported beginTransaction"
        begun, sent = self.resource.start(A), self.resource.send("test", b"1")
        self.assertCode(XAER_RMERR, begun)
        error = self.assertCode(XA_RBROLLBACK, sent)
        self.assertIn(f"{A} has not been begun", str(error))

    def test_begin_without_answer(self) -> None:
        """It may be there: only a rollback is possible."""
        self.here.mute = True
        error = self.assertCode(XAER_RMFAIL, self.resource.start(A), 6.0)
        self.assertFalse(error.outcome_known)
        self.here.mute = False
        self.assertCode(XAER_DUPID, self.resource.start(A))
        self.assertCode(XA_RBROLLBACK, self.resource.prepare(A))
        self.prepared(A)

    def test_lifetime_over(self) -> None:
        """The broker has rolled it back and says that there is no such branch."""
        self.resource.set_transaction_timeout(2)
        self.work(A, b"1")
        self.here.broker.clock.advance(4)
        self.assertCode(XAER_NOTA, self.resource.prepare(A))
        self.outcome(self.resource.start(A))

    def test_prepare_without_answer(self) -> None:
        """Whether it is prepared is not known; a rollback is possible."""
        self.work(A, b"1")
        self.here.mute = True
        error = self.assertCode(XAER_RMFAIL, self.resource.prepare(A), 6.0)
        self.assertFalse(error.outcome_known)
        self.here.mute = False
        self.outcome(self.resource.rollback(A))
        self.assertEqual((), self.outcome(self.resource.recover()))

    def test_commit_without_answer(self) -> None:
        """It is never called rolled back; the second commit says that there is nothing left."""
        self.prepared(A, b"1")
        self.here.mute = True
        error = self.assertCode(XAER_RMFAIL, self.resource.commit(A), 6.0)
        self.assertFalse(error.outcome_known)
        self.here.mute = False
        self.assertCode(XAER_NOTA, self.resource.commit(A))
        self.assertEqual([b"1"], self.visible())

    def test_lost_during_the_commit(self) -> None:
        """The same with the connection."""
        self.prepared(A, b"1")
        self.here.mute = True
        committed = self.resource.commit(A)
        self.serve()
        self.here.lose()
        error = self.assertCode(XAER_RMFAIL, committed)
        self.assertFalse(error.outcome_known)

    def test_no_connection(self) -> None:
        """Nothing was sent, and the branch stays where it is."""
        self.prepared(A, b"1")
        self.here.lose()
        committed = self.resource.commit(A)
        self.runtime.advance(6)
        error = self.assertRaises(XAError, self.runtime.result, committed)
        self.assertEqual((XAER_RMFAIL, True), (error.code, error.outcome_known))
        self.assertIn("not sent, there is no connection", str(error))
        self.outcome(self.resource.commit(A), 3.0)
        self.assertEqual([b"1"], self.visible())

    def test_other_refusals(self) -> None:
        """Texts without a code are ``XAER_RMERR``; so is an invalid vote."""
        self.work(A, b"1")
        self.here.answers["PREPARE"] = 500, b"bad disk"
        error = self.assertCode(XAER_RMERR, self.resource.prepare(A))
        self.assertIn("bad disk", str(error))
        self.here.answers["PREPARE"] = 200, b"maybe"
        self.assertCode(XAER_RMERR, self.resource.prepare(A))


class DirectTests(LinkedCase):
    """A session with one broker and without ZooKeeper."""

    direct = True

    def test_recovery(self) -> None:
        """The session's broker is asked, too, though the only resource is of another one."""
        making = self.session.create_xa_producer(unique_qualifier="app-h1")
        resource = self.outcome(making).resource("host1:8123")
        for broker in self.brokers:
            broker.lines.clear()
        self.assertEqual((), self.outcome(resource.recover()))
        self.assertEqual([["RECOVER"]] * 2, [each.steps for each in self.brokers])


class HeuristicTests(XACase):
    """Outcomes that an administrator has decided."""

    def test_codes_and_forget(self) -> None:
        """The branch stays listed until it is forgotten."""
        for xid, outcome, code in (
            (A, Heuristic.COMMITTED, XA_HEURCOM),
            (B, Heuristic.ROLLED_BACK, XA_HEURRB),
        ):
            key = xid.with_qualifier("app-h1")
            self.here.broker.transactions.heuristic[key] = outcome
            self.assertCode(code, self.resource.commit(xid))
            self.assertCode(code, self.resource.rollback(xid))
            self.assertEqual((xid,), self.outcome(self.resource.recover()))
            self.outcome(self.resource.forget(xid))
            self.assertEqual((), self.outcome(self.resource.recover()))
            self.assertCode(XAER_NOTA, self.resource.commit(xid))

    def test_forgotten_here_as_well(self) -> None:
        """A branch of this process that is forgotten can be begun again."""
        self.prepared(A)
        transactions = self.here.broker.transactions
        transactions.heuristic[A.with_qualifier("app-h1")] = Heuristic.COMMITTED
        self.outcome(self.resource.forget(A))
        self.here.answers["BEGIN"] = 200, b""
        self.outcome(self.resource.start(A))


class RowTests(XACase):
    """Every text with which a broker refuses a step."""

    def test_commit(self) -> None:
        """The code of the text, else that of a resource manager's error; what it says is kept."""
        for text, code in (
            (b"XAException:code=-4,msg=XA transaction 'x' has not been started.", XAER_NOTA),
            (b"XAException:code=-6,msg=Cannot do 2 phase commit if ...", XAER_PROTO),
            (b"XAException:code=-3,msg=cannot be journaled: disk full", XAER_RMERR),
            (b"XAException:code=6,msg=has been heuristically rolled back.", XA_HEURRB),
            (b"XAException:code=7,msg=has been heuristically committed.", XA_HEURCOM),
            (b"XAException:code=8,msg=has been heuristically completed.", XA_HEURHAZ),
            (b"XAException:code=104,msg=STORE COMMIT FAILED: Transaction rolled back.", XA_RBOTHER),
            (b"Unsupported commitTransaction", XAER_RMERR),
            (b"Transaction 'x' is being committed.", XAER_RMERR),
        ):
            self.prepared(A)
            self.here.answers["COMMIT_TWO_PHASE"] = 500, text
            error = self.assertCode(code, self.resource.commit(A))
            self.assertIn(text.rpartition(b"msg=")[2].decode(), str(error))
            self.assertTrue(error.outcome_known)
            self.here.answers.clear()
            if code in (XAER_NOTA, XA_RBOTHER):  # forgotten here, and found again
                self.assertEqual((A,), self.outcome(self.resource.recover()))
            self.outcome(self.resource.rollback(A))

    def test_stopping(self) -> None:
        """A broker on its way out refuses the branch, which is at it still."""
        self.prepared(A)
        self.here.answers["COMMIT_TWO_PHASE"] = 503, b"shutting down"
        self.assertCode(XAER_RMERR, self.resource.commit(A))
        self.here.answers.clear()
        self.outcome(self.resource.commit(A))

    def test_messages(self) -> None:
        """The broker's text comes with the class of its status, and the branch is lost."""
        for status, text, kind in (
            (403, b"Partition[0-0] has been closed", Forbidden),
            (500, b"The server do not accept topic test", InternalServerError),
            (500, b"Open transactions take 1 bytes, as many as x allows", InternalServerError),
            (500, b"XA transaction 'x' has been prepared.", InternalServerError),
            (500, b"XA transaction 'x' has been heuristically committed.", InternalServerError),
        ):
            self.outcome(self.resource.start(A))
            self.here.answers["put"] = status, text
            error = self.assertRaises(kind, self.outcome, self.resource.send("test", b"1"))
            self.assertEqual(text.decode(), str(error))
            self.here.answers.clear()
            self.outcome(self.resource.end(A))
            self.assertCode(XA_RBROLLBACK, self.resource.prepare(A))

    def test_capacity(self) -> None:
        """BEGIN over the capacity of timeouts."""
        self.here.answers["BEGIN"] = 500, b"Timer size 1 is great than maxTimerCapacity 1"
        error = self.assertCode(XAER_RMERR, self.resource.start(A))
        self.assertIn("maxTimerCapacity", str(error))


class TextTests(XACase):
    """What is read from a broker's texts."""

    def test_codes(self) -> None:
        """Only what begins as the broker's exceptions do."""
        self.assertEqual((-4, "no"), code_of("XAException:code=-4,msg=no"))
        for text in ("", "code=1,msg=x", "XAException:code=x,msg=y", "x XAException:code=1,msg="):
            self.assertIsNone(code_of(text))

    def test_lists(self) -> None:
        """Each branch once, and only those of the qualifier."""
        body = b"XID:1:aa::q\r\nXID:1:aa::q\r\nXID:2:bb:cc:other"
        self.assertEqual([Xid(1, b"\xaa", b"")], recovered_xids(body, "q"))
        self.assertEqual([], recovered_xids(b"", "q"))
        for wrong in (b"null", b"TX:a:1", b"nonsense"):
            self.assertRaises(RemoteProtocolError, recovered_xids, wrong, "q")
