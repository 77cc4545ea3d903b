"""The session of a member, and its ends."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.group.sessionwatch import SessionOver, SessionWatch
from metamorphosis.client.network.flow import Event
from metamorphosis.cluster.model import SessionEvent
from metamorphosis.testing.registry import MemoryRegistry
from tests.support.group import Group


class SessionWatchTests(SynchronousTestCase):
    """A registry in memory, whose session ends."""

    def setUp(self) -> None:
        self.group = Group()
        self.registry = MemoryRegistry(self.group.tree)
        self.closing = Event(self.group.runtime)
        self.events: list[SessionEvent] = []
        self.watch = SessionWatch(self.registry, self.events.append, self.closing)

    def test_a_session_that_is_there(self) -> None:
        """An existing session counts as connected, without an event and without an end."""
        self.registry.start()
        self.watch.start()
        self.assertTrue(self.watch.is_connected)
        self.assertFalse(self.watch.has_ended)
        self.assertEqual([], self.events)

    def test_away(self) -> None:
        """A lost connection does not end the session."""
        self.registry.start()
        self.watch.start()
        self.registry.suspend()
        self.assertFalse(self.watch.is_connected)
        self.registry.resume()
        self.assertTrue(self.watch.is_connected)
        self.watch.check()
        self.assertEqual(2, len(self.events))

    def test_an_end_stays_open(self) -> None:
        """It stays until it is handled; a second end in between is counted."""
        self.registry.start()
        self.watch.start()
        self.registry.lose()
        self.assertFalse(self.watch.is_connected)
        self.assertTrue(self.watch.has_ended)
        self.registry.resume()
        self.assertTrue(self.watch.is_connected)
        self.assertRaises(SessionOver, self.watch.check)
        self.watch.deal_with_end()
        self.watch.check()
        self.registry.expire()
        self.assertRaises(SessionOver, self.watch.check)

    def test_closing(self) -> None:
        """A member that leaves gets no further event."""
        self.registry.start()
        self.watch.start()
        self.closing.set()
        self.registry.expire()
        self.assertEqual(([], False), (self.events, self.watch.has_ended))

    def test_garbage(self) -> None:
        """The registry keeps no watch alive, and its events continue."""
        self.watch.start()
        del self.watch
        gc.collect()
        self.registry.start()
        self.assertEqual([], self.events)
