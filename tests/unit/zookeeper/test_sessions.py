"""Ids, passwords, timeouts, expiry."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.sessions import Session, Sessions

TIME = 1_700_000_000_000


class SessionsTests(SynchronousTestCase):
    """All but the connections."""

    def setUp(self) -> None:
        self.sessions = Sessions()

    def create(self, timeout: int = 4000, now: float = 0.0) -> Session:
        """A new one."""
        return self.sessions.create(timeout, now, TIME)

    def test_timeouts(self) -> None:
        """2 to 20 ticks of 2 s, whatever was asked for; others when told so."""
        for asked, given in ((-1, 4000), (0, 4000), (4001, 4001), (40000, 40000), (1 << 30, 40000)):
            self.assertEqual(self.sessions.negotiated(asked), given)
        self.assertEqual(Sessions(tick=500).negotiated(0), 1000)
        self.assertEqual(Sessions(tick=500).negotiated(99999), 10000)
        other = Sessions(min_timeout=10, max_timeout=20)
        self.assertEqual((other.negotiated(0), other.negotiated(99)), (10, 20))

    def test_ids_of_sessions_that_are_gone(self) -> None:
        """None is given again within its millisecond: its ephemeral nodes may still be there."""
        gone = self.create()
        self.sessions.remove(gone)
        self.assertEqual(self.create().id, gone.id + 1)

    def test_ids_are_different_and_positive(self) -> None:
        """Begin as ZooKeeper's; also when the clock stands still, goes back, or is far ahead."""
        ids = {self.create().id for _ in range(100)}
        self.assertEqual(min(ids), TIME << 16 & (1 << 56) - 1)
        self.sessions = Sessions(self.sessions.by_id.values())
        ids |= {self.create().id for _ in range(100)}
        ids |= {self.sessions.create(4000, 0.0, time).id for time in (0, 1 << 62, TIME * 1000)}
        self.assertEqual(len(ids), 203)
        self.assertTrue(all(0 < session_id < 1 << 63 for session_id in ids))

    def test_passwords(self) -> None:
        """16 unique bytes; a session is found only with its own password."""
        one, two = self.create(), self.create()
        self.assertEqual(len(one.password), 16)
        self.assertNotEqual(one.password, two.password)
        self.assertIs(self.sessions.find(one.id, one.password), one)
        for wrong in (two.password, bytes(16), b"", None, one.password + b"\0", one.password[:15]):
            self.assertIsNone(self.sessions.find(one.id, wrong))
        self.assertIsNone(self.sessions.find(99, one.password))

    def test_expiry(self) -> None:
        """After the timeout, not at it; each with its own."""
        short, long = self.create(4000), self.create(8000)
        self.assertEqual(self.sessions.expired(4.0), [])
        self.assertEqual(self.sessions.expired(4.001), [short])
        short.heard = 5.0
        self.assertEqual(self.sessions.expired(8.5), [long])

    def test_renew_all(self) -> None:
        """After a restart every session has a whole timeout."""
        session = self.create()
        self.sessions.renew_all(100.0)
        self.assertEqual(self.sessions.expired(104.0), [])
        self.assertEqual(self.sessions.expired(104.1), [session])

    def test_prolong(self) -> None:
        """Every session keeps the rest of its timeout, and never has more than the whole."""
        old, new = self.create(4000, 0.0), self.create(4000, 9.0)
        self.sessions.prolong(8.0, 10.0)
        self.assertEqual((old.heard, new.heard), (8.0, 10.0))

    def test_changes(self) -> None:
        """New ones, new timeouts, ends; each given once."""
        one, two = self.create(), self.create()
        self.assertEqual(self.sessions.take_changes(), {one.id: one, two.id: two})
        self.assertFalse(self.sessions.resume(one, 4000, 7.0))
        self.assertEqual((self.sessions.take_changes(), one.heard), ({}, 7.0))
        self.assertTrue(self.sessions.resume(one, 5000, 8.0))
        self.sessions.remove(two)
        self.assertEqual(self.sessions.take_changes(), {one.id: one, two.id: None})
        self.assertEqual((one.timeout, list(self.sessions.by_id)), (5000, [one.id]))
        self.assertEqual(self.sessions.take_changes(), {})
