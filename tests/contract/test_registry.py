"""
The promises of every ``IRegistry``: the double and the real one run the same tests. ZooKeeper is
included where it is installed; each of its tests has a chroot of its own, which does not exist at
first.

ZooKeeper joins in where it is installed; each of its tests has a chroot of its own, which does not
exist at first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyClass, verifyObject

from metamorphosis.cluster.model import SessionEvent, SessionState, WatchEvent, WatchKind
from metamorphosis.cluster.registry import ZooKeeperRegistry
from metamorphosis.errors import NodeExists, NoNode, NotEmpty, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.threads import WorkerThreads
from tests.support import zookeeper


class RegistryContract:
    """The promises. A subclass makes a registry, and lets the server end its session."""

    def make_registry(self) -> Any:
        """Another client of the same tree, not started."""
        raise AssertionError("subclasses say how")

    def expire(self, registry: Any) -> None:
        """Let the server end the session of ``registry``."""
        raise AssertionError("subclasses say how")

    async def connected(self) -> tuple[Any, list[SessionEvent]]:
        """A started and connected registry, and the events of its session."""
        registry = self.make_registry()
        events: list[SessionEvent] = []
        there: Deferred[None] = Deferred()

        def heard(event: SessionEvent) -> None:
            events.append(event)
            if not there.called:
                there.callback(None)

        registry.on_session(heard)
        self.addCleanup(registry.stop)
        await registry.start()
        await there
        return registry, events

    def test_provides(self) -> None:
        """The object and its class have every method with the interface's signature."""
        registry = self.make_registry()
        verifyObject(IRegistry, registry)
        verifyClass(IRegistry, type(registry))

    async def test_connected_with_new_session(self) -> None:
        """The first event is CONNECTED with a new session, which has an id from then on."""
        unstarted = self.make_registry()
        self.assertEqual(unstarted.session_id(), 0)
        registry, events = await self.connected()
        self.assertEqual(events, [SessionEvent(SessionState.CONNECTED, new_session=True)])
        self.assertNotEqual(registry.session_id(), 0)

    async def test_create_and_get(self) -> None:
        """Data come back as they were written, with the owner of an ephemeral node."""
        registry, _ = await self.connected()
        await registry.create("/a", b"\x00\xff", False)
        await registry.create("/b", b"", True)
        data, stat = await registry.get("/a")
        self.assertEqual((data, stat.owner, stat.version), (b"\x00\xff", 0, 0))
        data, stat = await registry.get("/b")
        self.assertEqual((data, stat.owner), (b"", registry.session_id()))

    async def test_create_makes_parents_without_data(self) -> None:
        """Missing parents are created as persistent nodes without data."""
        registry, _ = await self.connected()
        await registry.create("/x/y/z", b"1", True)
        for path in ("/x", "/x/y"):
            data, stat = await registry.get(path)
            self.assertEqual((data, stat.owner, stat.children), (None, 0, 1), path)

    async def test_create_many_below_missing_parent(self) -> None:
        """Creates that race for the same missing parents all succeed."""
        registry, _ = await self.connected()
        pending = [registry.create(f"/p/q/{n}", b"", False) for n in range(10)]
        for each in pending:
            await each
        self.assertEqual(await registry.children("/p/q"), sorted(str(n) for n in range(10)))

    async def test_create_existing(self) -> None:
        """Creating an existing node is an error, and does not change its data."""
        registry, _ = await self.connected()
        await registry.create("/a", b"1", False)
        await self.assertFailure(registry.create("/a", b"2", True), NodeExists)
        self.assertEqual((await registry.get("/a"))[0], b"1")

    async def test_create_below_ephemeral(self) -> None:
        """An ephemeral node cannot have children: an error of the general kind."""
        registry, _ = await self.connected()
        await registry.create("/a", b"", True)
        error = await self.assertFailure(registry.create("/a/b", b"", False), RegistryError)
        self.assertNotIsInstance(error, (NoNode, NodeExists, NotEmpty, RegistryUnavailable))

    async def test_missing_node(self) -> None:
        """Every operation except ``exists`` fails with NoNode on a missing node."""
        registry, _ = await self.connected()
        await self.assertFailure(registry.get("/a"), NoNode)
        await self.assertFailure(registry.set_data("/a", b""), NoNode)
        await self.assertFailure(registry.delete("/a"), NoNode)
        await self.assertFailure(registry.children("/a"), NoNode)
        self.assertIsNone(await registry.exists("/a"))

    async def test_set_data(self) -> None:
        """Data are replaced and the version counts it."""
        registry, _ = await self.connected()
        await registry.create("/a", b"1", False)
        await registry.set_data("/a", b"2")
        data, stat = await registry.get("/a")
        self.assertEqual((data, stat.version), (b"2", 1))

    async def test_delete(self) -> None:
        """A node with children is not deleted, one without is."""
        registry, _ = await self.connected()
        await registry.create("/a/b", b"", False)
        await self.assertFailure(registry.delete("/a"), NotEmpty)
        await registry.delete("/a/b")
        await registry.delete("/a")
        self.assertIsNone(await registry.exists("/a"))

    async def test_children_sorted(self) -> None:
        """Names are sorted, whatever the order of creation."""
        registry, _ = await self.connected()
        for name in ("b", "c", "a"):
            await registry.create(f"/d/{name}", None, False)
        self.assertEqual(await registry.children("/d"), ["a", "b", "c"])

    async def test_children_of_the_root(self) -> None:
        """Also where the root is a chroot."""
        registry, _ = await self.connected()
        await registry.create("/d/a", b"", False)
        self.assertIn("d", await registry.children("/"))

    async def test_names_beyond_ascii(self) -> None:
        """Paths are Unicode, as topic names may be."""
        registry, _ = await self.connected()
        await registry.create("/t\u00e4st/\u8ba2\u5355*", "\u00fc".encode(), True)
        self.assertEqual(await registry.children("/t\u00e4st"), ["\u8ba2\u5355*"])
        self.assertEqual((await registry.get("/t\u00e4st/\u8ba2\u5355*"))[0], b"\xc3\xbc")

    async def test_exists(self) -> None:
        """The stat counts children."""
        registry, _ = await self.connected()
        await registry.create("/d/a", None, False)
        stat = await registry.exists("/d")
        self.assertEqual((stat.owner, stat.version, stat.children), (0, 0, 1))

    async def test_watches(self) -> None:
        """Each kind of watch reports a change by another client, once."""
        registry, _ = await self.connected()
        other, _ = await self.connected()
        await other.create("/w/old", b"", False)
        seen: list[WatchEvent] = []
        there: list[Deferred[None]] = []

        def note(event: WatchEvent) -> None:
            seen.append(event)
            there.pop().callback(None)

        async def expect(change: Callable[[], Deferred[None]], *events: WatchEvent) -> None:
            there.extend(Deferred() for _ in events)
            waiting = list(there)
            await change()
            for each in waiting:
                await each
            self.assertCountEqual(seen, events)
            seen.clear()

        await registry.exists("/w/new", note)
        created = WatchEvent(WatchKind.CREATED, "/w/new")
        await expect(lambda: other.create("/w/new", b"", False), created)
        await registry.get("/w/new", note)
        await expect(
            lambda: other.set_data("/w/new", b"1"), WatchEvent(WatchKind.CHANGED, "/w/new")
        )
        await other.set_data("/w/new", b"2")
        await registry.get("/w/new", note)
        await registry.children("/w", note)
        deleted = WatchEvent(WatchKind.DELETED, "/w/new")
        await expect(lambda: other.delete("/w/new"), deleted, WatchEvent(WatchKind.CHILDREN, "/w"))
        await other.create("/w/new", b"", False)
        await registry.get("/w/old")
        self.assertEqual(seen, [])

    async def test_failed_read_leaves_no_watch(self) -> None:
        """A get of a missing node watches nothing: only the later exists reports the creation."""
        registry, _ = await self.connected()
        wrong: list[WatchEvent] = []
        right: Deferred[WatchEvent] = Deferred()
        await self.assertFailure(registry.get("/a", wrong.append), NoNode)
        await registry.exists("/a", right.callback)
        await registry.create("/a", b"", False)
        self.assertEqual(await right, WatchEvent(WatchKind.CREATED, "/a"))
        self.assertEqual(wrong, [])

    async def test_stop_removes_ephemeral_nodes(self) -> None:
        """The end of the session removes its ephemeral nodes; others stay."""
        registry, _ = await self.connected()
        other, _ = await self.connected()
        await registry.create("/d/mine", b"", True)
        await registry.create("/d/ours", b"", False)
        await registry.stop()
        self.assertEqual(registry.session_id(), 0)
        self.assertEqual(await other.children("/d"), ["ours"])

    async def test_fault(self) -> None:
        """There is no fault while connected, and it is unknown after the stop."""
        registry, _ = await self.connected()
        self.assertIsNone(registry.fault())
        await registry.stop()
        self.assertIsNone(registry.fault())

    async def test_stopped(self) -> None:
        """After the stop every operation fails, and a second stop has no effect."""
        registry, _ = await self.connected()
        await registry.stop()
        await self.assertFailure(registry.get("/"), RegistryUnavailable)
        await registry.stop()

    async def test_stop_without_start(self) -> None:
        """A registry that was never started can be stopped and refuses operations."""
        registry = self.make_registry()
        await self.assertFailure(registry.create("/a", b"", False), RegistryUnavailable)
        await registry.stop()

    async def test_expiry(self) -> None:
        """
        The server ends the session: LOST, then CONNECTED with a new session without the old nodes.
        """
        registry, events = await self.connected()
        first = registry.session_id()
        await registry.create("/d/mine", b"", True)
        again: Deferred[None] = Deferred()

        def heard(event: SessionEvent) -> None:
            if event.state is SessionState.CONNECTED:
                again.callback(None)

        registry.on_session(heard)
        self.expire(registry)
        await again
        self.assertEqual(events[-1], SessionEvent(SessionState.CONNECTED, new_session=True))
        self.assertIn(SessionEvent(SessionState.LOST), events)
        self.assertNotIn(registry.session_id(), (0, first))
        self.assertEqual(await registry.children("/d"), [])


class MemoryRegistryTests(RegistryContract, TestCase):
    """The double."""

    def setUp(self) -> None:
        """One tree for all clients of a test."""
        self.tree = MemoryTree()

    def make_registry(self) -> MemoryRegistry:
        """See ``RegistryContract``."""
        return MemoryRegistry(self.tree)

    def expire(self, registry: MemoryRegistry) -> None:
        """See ``RegistryContract``."""
        registry.expire()


class ZooKeeperRegistryTests(RegistryContract, TestCase):
    """The real thing."""

    skip = zookeeper.missing()
    timeout = 30
    numbers = itertools.count()

    def setUp(self) -> None:
        """A chroot two levels deep that is new."""
        self.server = zookeeper.shared()
        self.threads = WorkerThreads(reactor, 2, "test")
        self.addCleanup(self.threads.stop)
        self.connect = f"{self.server.connect_string}/contract/{next(self.numbers)}"

    def make_registry(self) -> ZooKeeperRegistry:
        """See ``RegistryContract``."""
        return ZooKeeperRegistry(reactor, reactor, self.threads, self.connect, 4000)

    def expire(self, registry: ZooKeeperRegistry) -> None:
        """See ``RegistryContract``."""
        self.server.expire(registry.session_id())
