"""All or nothing."""

from __future__ import annotations

import struct

from kazoo.exceptions import BadVersionError, NoNodeError, RolledBackError, RuntimeInconsistency
from kazoo.protocol.serialization import CheckVersion, Create, Create2, Delete, SetData, Transaction
from kazoo.security import OPEN_ACL_UNSAFE
from twisted.trial.unittest import SynchronousTestCase

from tests.support.zookeeperpeer import (
    CHILDREN_CHANGED,
    CREATED,
    DATA_CHANGED,
    DELETED,
    World,
    acl,
    integers,
    text,
)
from tests.unit.zookeeper.test_requests import create_body

END = struct.pack(">i?i", -1, True, -1)


def create(path: str, flags: int = 0) -> Create:
    """A create of kazoo's."""
    return Create(path, b"x", OPEN_ACL_UNSAFE, flags)


def errors(*codes: int) -> bytes:
    """The body of the reply to a multi that failed."""
    return b"".join(struct.pack(">i?ii", -1, False, code, code) for code in codes) + END


class MultiTests(SynchronousTestCase):
    """multi, as kazoo's transactions use it."""

    def setUp(self) -> None:
        self.world = World()
        self.one, self.two = self.world.peer(), self.world.peer()
        self.one.create("/a", b"data")

    def test_every_operation(self) -> None:
        """Each sees what those before it did; all have one zxid."""
        results = self.one.result(
            Transaction(
                [
                    create("/a/b"),
                    create("/a/s", 2),
                    SetData("/a/b", b"new", 0),
                    CheckVersion("/a/b", 1),
                    Delete("/a/b", 1),
                ]
            )
        )
        self.assertEqual(results[:2], ["/a/b", "/a/s0000000001"])
        zxid = self.world.tree.zxid
        self.assertEqual((results[2].version, results[2].czxid, results[2].mzxid), (1, zxid, zxid))
        self.assertEqual(results[3:], [True, True])
        self.assertEqual(self.one.children("/a"), ["s0000000001"])

    def test_create2_is_answered_like_create(self) -> None:
        """As 3.8 does: kazoo could not read a Stat here."""
        operations = [Create2("/n", b"", OPEN_ACL_UNSAFE, 0), create("/m")]
        self.assertEqual(self.one.result(Transaction(operations)), ["/n", "/m"])

    def test_failure_changes_nothing(self) -> None:
        """One error for each operation, header 0; the first fault decides."""
        before = self.one.stat("/a"), self.one.stat("/")
        operations = [create("/a/b"), SetData("/a", b"", -1), Delete("/x", -1), create("/c")]
        reply = self.one.ask(Transaction(operations))
        self.assertEqual((reply.code, reply.body), (0, errors(0, 0, -101, -2)))
        results = Transaction.deserialize(reply.body, 0)
        self.assertEqual(
            [type(result) for result in results],
            [RolledBackError, RolledBackError, NoNodeError, RuntimeInconsistency],
        )
        self.assertEqual((self.one.stat("/a"), self.one.stat("/")), before)

    def test_first_fails(self) -> None:
        """Nothing stands before it."""
        results = self.one.result(Transaction([CheckVersion("/a", 7), create("/n")]))
        self.assertEqual(
            [type(result) for result in results], [BadVersionError, RuntimeInconsistency]
        )

    def test_empty(self) -> None:
        """No results, and a zxid."""
        before = self.world.tree.zxid
        self.assertEqual(self.one.multi(), (self.one.xid, before + 1, 0, END))

    def test_what_has_no_place_in_a_multi(self) -> None:
        """MARSHALLING_ERROR for the whole, whatever stands before it."""
        for opcode in (4, 7, 14, 99, -1, 0):
            reply = self.one.multi((1, create_body("/n")), (opcode, text("/a") + integers(-1)))
            self.assertEqual((reply.code, reply.body), (-5, b""), opcode)
        self.assertIsNone(self.one.stat("/n"))

    def test_events_of_one_that_succeeds(self) -> None:
        """In the order of the operations, before the reply, each watch once."""
        self.one.get("/a", True)
        self.one.stat("/a/b", True)
        self.one.children("/a", True)
        self.one.ask(Transaction([create("/a/b"), SetData("/a", b"", -1), SetData("/a", b"", -1)]))
        self.assertEqual(
            self.one.events(), [(CREATED, "/a/b"), (CHILDREN_CHANGED, "/a"), (DATA_CHANGED, "/a")]
        )

    def test_events_of_one_that_fails(self) -> None:
        """There are none; the watches are still there."""
        self.two.get("/a", True)
        self.one.ask(Transaction([SetData("/a", b"", -1), Delete("/a", 7)]))
        self.assertEqual(self.two.events(), [])
        self.one.delete("/a")
        self.assertEqual(self.two.events(), [(DELETED, "/a")])

    def test_a_fault_of_ours_in_the_middle(self) -> None:
        """The changes before the error are taken back; the connection is closed."""
        self.one.identities = None  # type: ignore[assignment]
        body = create_body("/m", 0, acl((31, "auth", "")))
        parts = [struct.pack(">i?i", 1, False, -1) + each for each in (create_body("/n"), body)]
        frame = integers(7, 14) + b"".join(parts) + END
        self.assertRaises(TypeError, self.world.server.receive, self.one, frame)
        self.assertEqual(self.two.children("/"), ["a", "zookeeper"])
        self.world.restart()
        self.assertEqual(self.world.peer().children("/"), ["a", "zookeeper"])

    def test_one_that_succeeded_is_done_with(self) -> None:
        """Nothing is remembered of it, nor of single changes after it."""
        self.one.ask(Transaction([create("/n")]))
        self.one.create("/m")
        self.world.tree.take_back()
        self.assertEqual(self.one.children("/"), ["a", "m", "n", "zookeeper"])

    def test_ephemerals(self) -> None:
        """They go with the session; those of a multi that failed never were."""
        self.one.ask(Transaction([create("/e", 1), create("/f", 1), Delete("/f", 0)]))
        self.one.ask(Transaction([create("/g", 1), Delete("/x", 0)]))
        self.one.ask(Transaction([Delete("/e", -1), create("/e"), Delete("/x", 0)]))
        session = self.one.session
        assert session is not None
        self.assertEqual(self.world.tree.ephemerals, {session.id: {"/e"}})
        self.one.raw(-11)
        self.assertEqual(self.two.children("/"), ["a", "zookeeper"])

    def test_permissions(self) -> None:
        """As for each operation alone."""
        self.one.authenticate("digest", b"u:p")
        self.one.raw(7, text("/a") + integers(1, 31) + text("auth") + text("") + integers(-1))
        reply = self.two.ask(Transaction([create("/n"), create("/a/b")]))
        self.assertEqual(reply.body, errors(0, -102))
        self.assertEqual(self.two.ask(Transaction([CheckVersion("/a", 0)])).body, errors(-102))
