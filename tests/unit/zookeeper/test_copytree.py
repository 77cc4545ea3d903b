"""Copying a tree, with both servers in memory."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.exceptions import (
    ConnectionLoss,
    InvalidACLError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import ZnodeStat
from kazoo.security import ACL, OPEN_ACL_UNSAFE, make_digest_acl
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper import copytree
from metamorphosis.zookeeper.copytree import CopyError

SECRET = make_digest_acl("user", "password", all=True)
HIDDEN = ACL(SECRET.perms, SECRET.id._replace(id="user:x"))
NAMES = ("here:1", "there:2")


class Answer:
    """kazoo's asynchronous result, there at once."""

    def __init__(self, function: Callable[[], Any]) -> None:
        try:
            self._result, self._error = function(), None
        except Exception as error:
            self._error = error

    def get(self) -> Any:
        """The result, or the error."""
        if self._error is not None:
            raise self._error
        return self._result


class MemoryClient:
    """
    A client and its server.

    :ivar nodes: data, ACL and owner by path.
    :ivar secret: nodes that may not be read.
    :ivar on_write: called before each write.
    """

    def __init__(self, chroot: str = "") -> None:
        self.chroot = chroot
        self.nodes: dict[str, tuple[bytes | None, list[ACL], int]] = {}
        self.secret: set[str] = set()
        self.refused: set[str] = set()
        self.writes: list[str] = []
        self.on_write: Callable[[], None] = lambda: None
        if not chroot:
            self.put("/")
            self.put("/zookeeper")
            self.put("/zookeeper/quota")

    def put(
        self,
        path: str,
        data: bytes | None = b"",
        acl: Sequence[ACL] = OPEN_ACL_UNSAFE,
        owner: int = 0,
    ) -> None:
        """A node."""
        self.nodes[path] = data, list(acl), owner

    def node(self, path: str) -> tuple[bytes | None, list[ACL], int]:
        """A node that may be read."""
        if path in self.secret:
            raise NoAuthError()
        if path not in self.nodes:
            raise NoNodeError()
        return self.nodes[path]

    def get_async(self, path: str) -> Answer:
        """See kazoo."""

        def get() -> tuple[bytes | None, ZnodeStat]:
            data, _, owner = self.node(path)
            return data, ZnodeStat(0, 0, 0, 0, 0, 0, 0, owner, 0, 0, 0)

        return Answer(get)

    def get_children_async(self, path: str) -> Answer:
        """See kazoo."""
        start = path.rstrip("/") + "/"
        below = (name[len(start) :] for name in self.nodes if name.startswith(start))
        names = [name for name in below if name and "/" not in name]
        return Answer(lambda: (self.node(path), names)[1])

    def get_acls_async(self, path: str) -> Answer:
        """See kazoo."""
        return Answer(lambda: (self.node(path)[1], None))

    def create_async(self, path: str, data: bytes | None, acl: list[ACL]) -> Answer:
        """See kazoo."""

        def create() -> None:
            self.write(path)
            if path in self.nodes:
                raise NodeExistsError()
            self.node(path[: path.rindex("/")] or "/")
            self.put(path, data, acl)

        return Answer(create)

    def set_async(self, path: str, data: bytes | None) -> Answer:
        """See kazoo."""
        self.write(path)
        return Answer(lambda: self.put(path, data, self.node(path)[1]))

    def set_acls_async(self, path: str, acl: list[ACL]) -> Answer:
        """See kazoo."""
        self.write(path)
        return Answer(lambda: self.put(path, self.node(path)[0], acl))

    def ensure_path(self, path: str, acl: list[ACL]) -> None:
        """See kazoo."""
        self.put(path, b"", acl)

    def write(self, path: str) -> None:
        """Something is written."""
        self.on_write()
        self.writes.append(path)
        if path in self.refused:
            raise InvalidACLError()

    def stop(self) -> None:
        """See kazoo."""

    close = stop


class CopyTests(SynchronousTestCase):
    """From one to the other."""

    def setUp(self) -> None:
        self.source, self.target = MemoryClient(), MemoryClient()
        for path, data in (("/meta", None), ("/meta/a", b"1"), ("/meta/a/b", b""), ("/z", b"z")):
            self.source.put(path, data)
        self.source.put("/meta/locked", b"secret", [SECRET])
        self.source.put("/meta/here", b"", owner=17)

    def copy(self, overwrite: bool = False) -> str:
        """Copy; what is said about it."""
        return copytree.copy(self.source, self.target, NAMES, overwrite)

    def refused(self, overwrite: bool = False) -> str:
        """The text with which it fails."""
        with self.assertRaises(CopyError) as raised:
            self.copy(overwrite)
        return str(raised.exception)

    def test_copy(self) -> None:
        """Persistent nodes arrive with data and ACLs, null data too; ephemeral ones are counted,
        the server's own are left out."""
        text = self.copy()
        del self.source.nodes["/meta/here"]
        self.assertEqual(self.target.nodes, self.source.nodes)
        self.assertNotIn("/zookeeper/quota", self.target.writes)
        self.assertEqual(
            text,
            "Copied 5 nodes from here:1 to there:2; 5 are the same there now."
            " Left out: 1 ephemeral nodes",
        )

    def test_again(self) -> None:
        """A second copy finds everything there and writes nothing."""
        self.copy()
        self.target.writes.clear()
        self.assertIn("Copied 0 nodes", self.copy())
        self.assertEqual(self.target.writes, [])

    def test_more_than_are_in_flight(self) -> None:
        """Many nodes, deep and wide."""
        path = ""
        for depth in range(30):
            path += f"/{depth}"
            for name in range(10):
                self.source.put(f"{path}/x{name}", b"%d" % name)
            self.source.put(path)
        self.assertIn("Copied 335 nodes", self.copy())

    def test_different_nodes(self) -> None:
        """A node of the target that is different is named, and nothing is written."""
        self.target.put("/meta", b"other")
        text = self.refused()
        self.assertIn("1 nodes exist at there:2 and are different: /meta.", text)
        self.assertIn("--overwrite", text)
        self.assertEqual(self.target.writes, [])

    def test_overwrite(self) -> None:
        """With --overwrite it is replaced, data and ACL; what only the target has stays."""
        self.target.put("/meta", b"other", [SECRET])
        self.target.put("/own", b"stays")
        self.copy(overwrite=True)
        self.assertEqual(self.target.nodes["/meta"], (None, list(OPEN_ACL_UNSAFE), 0))
        self.assertEqual(self.target.nodes["/own"][0], b"stays")

    def test_many_different_nodes(self) -> None:
        """Not all of them are listed."""
        for number in range(30):
            self.source.put(f"/{number}", b"here")
            self.target.put(f"/{number}", b"there")
        text = self.refused()
        self.assertIn("30 nodes exist", text)
        self.assertLess(len(text), 300)

    def test_unreadable_node(self) -> None:
        """A node that may not be read is named, and what to do."""
        self.source.secret.add("/meta/a")
        text = self.refused()
        self.assertIn("/meta/a of here:1", text)
        self.assertIn("--auth digest:USER:PASSWORD", text)

    def test_hidden_acl(self) -> None:
        """An ACL of which only a part is shown is not copied as if it were whole."""
        self.source.put("/meta/locked", b"secret", [HIDDEN])
        text = self.refused()
        self.assertIn("/meta/locked without its secret", text)
        self.assertEqual(self.target.writes, [])

    def test_changed_meanwhile(self) -> None:
        """A source that is still in use is found out."""
        self.target.on_write = lambda: self.source.put("/meta/a", b"2")
        text = self.refused()
        self.assertIn("1 nodes of here:1 changed while they were copied: /meta/a.", text)
        self.target.on_write = lambda: None
        self.assertIn("Copied 1 nodes", self.copy(overwrite=True))

    def test_lost_on_the_way(self) -> None:
        """The target is changed meanwhile."""
        self.source.on_write = lambda: None

        def lose() -> None:
            if "/z" in self.target.writes:
                self.target.nodes["/z"] = b"other", [], 0

        self.target.on_write = lose
        self.assertIn("are not at there:2 as they were copied: /z", self.refused())

    def test_refused_by_the_target(self) -> None:
        """The node and the reason are named."""
        self.target.refused.add("/meta/a")
        self.assertIn("there:2 did not take /meta/a: InvalidACLError", self.refused())

    def test_missing_source(self) -> None:
        """A missing chroot of the source is an error."""
        self.source = MemoryClient("/no/such")
        self.assertIn("no such node as /no/such at here:1", self.refused())

    def test_chroot_of_the_target(self) -> None:
        """It is made."""
        self.target = MemoryClient("/new")
        self.copy()
        self.assertEqual(self.target.nodes["/meta/a"][0], b"1")


class CommandTests(SynchronousTestCase):
    """The command line."""

    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.connected: list[tuple[str, list[tuple[str, str]]]] = []
        self.clients = {"here:1": MemoryClient(), "there:2": MemoryClient()}

        def connect(hosts: str, credentials: list[tuple[str, str]]) -> MemoryClient:
            self.connected.append((hosts, credentials))
            return self.clients[hosts]

        self.patch(copytree, "connect", connect)

    def test_success(self) -> None:
        """Status 0, and one line."""
        self.clients["here:1"].put("/a")
        status = copytree.main(["here:1", "there:2", "--auth", "digest:u:p:w"])
        self.assertEqual((status, self.err.getvalue()), (0, ""))
        self.assertIn("Copied 1 nodes from here:1 to there:2", self.out.getvalue())
        self.assertEqual(self.connected, [(name, [("digest", "u:p:w")]) for name in NAMES])

    def test_failure(self) -> None:
        """Status 1, and one line on standard error."""
        self.clients["here:1"].put("/a", b"1")
        self.clients["there:2"].put("/a", b"2")
        self.assertEqual(copytree.main(["here:1", "there:2"]), 1)
        self.assertEqual(self.out.getvalue(), "")
        self.assertTrue(self.err.getvalue().startswith("metaq-copytree: 1 nodes exist"))
        self.assertEqual(copytree.main(["here:1", "there:2", "--overwrite"]), 0)

    def test_lost_connection(self) -> None:
        """An error of kazoo without a text is said by its name."""

        def copy(*arguments: object) -> str:
            raise ConnectionLoss

        self.patch(copytree, "copy", copy)
        self.assertEqual(copytree.main(["here:1", "there:2"]), 1)
        self.assertEqual(self.err.getvalue(), "metaq-copytree: ConnectionLoss\n")

    def test_wrong_options(self) -> None:
        """argparse says what is missing, with status 2."""
        for arguments in ([], ["here:1"], ["here:1", "there:2", "--auth", "user:password"]):
            with self.assertRaises(SystemExit) as raised:
                copytree.main(arguments)
            self.assertEqual(raised.exception.code, 2)
        self.assertRaises(argparse.ArgumentTypeError, copytree.credential, "digest:user")


class ConnectTests(SynchronousTestCase):
    """Servers that are not there."""

    def failed(self, error: Exception) -> str:
        """The text when kazoo fails in this way."""

        class Client:
            """Never connects."""

            def __init__(self, hosts: str, **options: Any) -> None:
                self.hosts = hosts

            def start(self, timeout: float) -> None:
                """See kazoo."""
                raise error

            def stop(self) -> None:
                """See kazoo."""

            close = stop

        self.patch(copytree, "KazooClient", Client)
        with self.assertRaises(CopyError) as raised:
            copytree.connect("nowhere:1")
        return str(raised.exception)

    def test_nobody_there(self) -> None:
        """The address is named."""
        text = self.failed(KazooTimeoutError("Connection time-out"))
        self.assertEqual(text, "No ZooKeeper answers at nowhere:1 (Connection time-out)")
