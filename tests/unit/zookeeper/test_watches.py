"""Once only, to each connection once, and nothing stays behind."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN, Acl
from metamorphosis.zookeeper.codes import EventType
from metamorphosis.zookeeper.watches import _EACH as EACH
from metamorphosis.zookeeper.watches import CHILDREN, LIMIT, NODE, TooManyWatches, Watches
from tests.support.zookeeperpeer import Peer, World

SECRET: Acl = ((1, "digest", "a:b"),)


class WatchesTests(SynchronousTestCase):
    """Registration and firing."""

    def setUp(self) -> None:
        self.watches = Watches()
        world = World()
        self.one, self.two = Peer(world), Peer(world)

    def fire(self, kind: int, path: str = "/a", acl: Acl = OPEN) -> None:
        """One event."""
        self.watches.fire([(kind, path, acl)])

    def test_which_watch_hears_of_what(self) -> None:
        """A watch of the node and one of the children; an end is for both."""
        for kind, node_hears, children_hears in (
            (EventType.CREATED, True, False),
            (EventType.DATA_CHANGED, True, False),
            (EventType.CHILDREN_CHANGED, False, True),
            (EventType.DELETED, True, True),
        ):
            self.watches = Watches()
            self.one.watching.clear()
            self.two.watching.clear()
            self.watches.add(NODE, "/a", self.one)
            self.watches.add(CHILDREN, "/a", self.two)
            self.fire(kind)
            self.assertEqual(self.one.events(), [(kind, "/a")] if node_hears else [])
            self.assertEqual(self.two.events(), [(kind, "/a")] if children_hears else [])

    def test_once(self) -> None:
        """However often it was set; and told, it is gone."""
        self.watches.add(NODE, "/a", self.one)
        self.watches.add(NODE, "/a", self.one)
        self.fire(EventType.DATA_CHANGED)
        self.fire(EventType.DATA_CHANGED)
        self.assertEqual(self.one.events(), [(EventType.DATA_CHANGED, "/a")])
        self.assertEqual((self.one.watching, self.watches.watched), (set(), {}))

    def test_end_of_a_node_with_both_watches(self) -> None:
        """One event for one connection."""
        self.watches.add(NODE, "/a", self.one)
        self.watches.add(CHILDREN, "/a", self.one)
        self.fire(EventType.DELETED)
        self.assertEqual(self.one.events(), [(EventType.DELETED, "/a")])
        self.assertEqual((self.one.watching, self.watches.watched), (set(), {}))

    def test_who_may_not_read_is_not_told(self) -> None:
        """Without the read permission there is no event, and the watch is removed, as in 3.8."""
        self.two.identities.append(("digest", "a:b"))
        for peer in (self.one, self.two):
            self.watches.add(NODE, "/a", peer)
        self.fire(EventType.DATA_CHANGED, acl=SECRET)
        self.assertEqual(self.one.events(), [])
        self.assertEqual(self.two.events(), [(EventType.DATA_CHANGED, "/a")])
        self.assertEqual(self.watches.watched, {})

    def test_a_client_that_is_gone(self) -> None:
        """Its watches go, those of others on the same path stay."""
        for peer in (self.one, self.two):
            self.watches.add(NODE, "/a", peer)
            self.watches.add(CHILDREN, "/b", peer)
        self.watches.remove(self.one)
        self.assertEqual(self.one.watching, set())
        self.assertEqual(
            self.watches.watched, {(NODE, "/a"): {self.two}, (CHILDREN, "/b"): {self.two}}
        )
        self.watches.remove(self.two)
        self.assertEqual(self.watches.watched, {})
        self.watches.remove(self.two)

    def test_limit_to_the_byte(self) -> None:
        """What fills it exactly is taken."""
        most = LIMIT - EACH
        self.watches.add(NODE, "/" + "x" * (most - 1), self.one)
        self.assertRaises(TooManyWatches, self.watches.add, NODE, "/" + "x" * most, self.two)

    def test_limit(self) -> None:
        """Paths of a mebibyte each until it is enough; what was told or is gone does not count."""
        paths = [f"/{number:02d}" + "x" * (1 << 20) for number in range(63)]
        for path in paths:
            self.watches.add(NODE, path, self.one)
            self.watches.add(NODE, path, self.one)
        self.watches.add(NODE, "/64", self.one)
        too_much = "/" + "y" * (1 << 20)
        self.assertRaises(TooManyWatches, self.watches.add, NODE, too_much, self.one)
        self.assertNotIn((NODE, too_much), self.watches.watched)
        self.watches.add(NODE, too_much, self.two)
        self.fire(EventType.CREATED, paths[0])
        self.watches.add(NODE, too_much, self.one)
        self.watches.remove(self.one)
        for path in paths:
            self.watches.add(NODE, path, self.one)

    def test_a_client_that_goes_while_it_is_told(self) -> None:
        """Its connection may overflow from the very event; other clients still get theirs."""
        watches = self.watches

        class Vanishing(Peer):
            def send(self, packet: bytes) -> None:
                watches.remove(self)

        vanishing = Vanishing(self.one.world)
        for peer in (vanishing, self.one, self.two):
            for path in ("/a", "/b"):
                watches.add(NODE, path, peer)
        both = [(EventType.DELETED, "/a", OPEN), (EventType.DELETED, "/b", OPEN)]
        watches.fire(both)
        for peer in (self.one, self.two):
            self.assertEqual(peer.events(), [(EventType.DELETED, "/a"), (EventType.DELETED, "/b")])
        self.assertEqual(watches.watched, {})
