"""
The references of the native part to ``None``, ``True`` and ``False``.

From 3.12 on these objects are immortal, and the macros of its headers return them without a
reference. A module that is built there, and runs under 3.11, would take one reference with each
call, until the interpreter ends with "deallocating None".
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from metamorphosis import native
from metamorphosis.broker.lanes import LaneSet
from metamorphosis.native import compiled
from tests.support.lanes import Served, no_calls
from tests.unit.broker.test_hotpath import put
from tests.unit.native.test_puts import NativeCase

CALLS = 1000
OTHERS = 100
"""References that other code may take or give back meanwhile."""


class ReferenceTests(NativeCase):
    """Calls that return nothing, or whether something is so."""

    def assert_kept(self, name: str, call: Callable[[], object]) -> None:
        """The three objects have as many references after many calls."""
        call()
        before = [sys.getrefcount(each) for each in (None, True, False)]
        for _ in range(CALLS):
            call()
        after = [sys.getrefcount(each) for each in (None, True, False)]
        for one, two in zip(before, after):
            self.assertLess(abs(one - two), OTHERS, name)

    def test_lingering(self) -> None:
        """``Lingering``."""
        assert compiled is not None
        lingering = compiled.Lingering(60, no_calls)
        self.assert_kept("begin", lingering.begin)
        self.assert_kept("end", lingering.end)
        self.assert_kept("soon", lambda: lingering.soon)
        served = Served(self.mktemp(), True)
        self.addCleanup(served.close)
        assert isinstance(served.sockets, LaneSet)
        lanes = served.sockets._lanes
        at_once = compiled.Lingering(0, lambda: 0.0)
        for each in (at_once, compiled.Lingering(60, no_calls, lambda *_: 1, lambda: 1)):
            self.assert_kept("linger", lambda: (each.begin(), lanes.linger(each, True, False)))

    def test_lanes(self) -> None:
        """``Lanes``, and a put that it takes."""
        assert compiled is not None
        served = Served(self.mktemp(), True)
        self.addCleanup(served.close)
        assert isinstance(served.sockets, LaneSet)
        lanes = served.sockets._lanes
        self.assert_kept("resume", lambda: lanes.resume(1))
        self.assert_kept("expect", lambda: lanes.expect(0))
        self.assert_kept("turn", lambda: lanes.turn(None, False))
        self.assert_kept("line", lambda: lanes.line(9999))
        self.assert_kept("plain", lambda: lanes.plain(9999, b"", False))
        self.assert_kept("active", lambda: lanes.active(9999))
        lanes.slow(9999)
        peer = served.connect()

        def one() -> None:
            peer.send(put(b"x"))
            served.sockets.doRead()
            self.assertIn(b"result 200", peer.received())

        one()
        self.assert_kept("put", one)

    def test_flusher(self) -> None:
        """``Flusher``."""
        assert compiled is not None
        flusher = compiled.Flusher(1)
        self.addCleanup(flusher.end)
        with open(self.mktemp(), "wb") as file:
            descriptor = os.dup(file.fileno())
        self.addCleanup(os.close, descriptor)
        self.assert_kept("submit", lambda: flusher.submit(descriptor, 1))
        self.assert_kept("end", compiled.Flusher(1).end)

    def test_source(self) -> None:
        """No macro of the headers returns one of them."""
        sources = sorted(Path(native.__file__).parent.glob("*.[ch]"))
        self.assertGreater(len(sources), 20)
        found = [path.name for path in sources if re.search(r"\bPy_RETURN_", path.read_text())]
        self.assertEqual([], found)
