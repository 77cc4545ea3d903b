"""``docs/log-lines.md`` is what the code logs, and says what to do about each error."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "loglines.py"))


class ReadingTests(SynchronousTestCase):
    """What counts as a line of the log."""

    def lines(self, source: str) -> list[tuple[str, str, bool]]:
        """Level, text and traceback of the lines of a source."""
        found = TOOL["lines_of"]("module", ast.parse(source))
        return [(line.level, line.text, line.traceback) for line in found]

    def test_levels(self) -> None:
        """Each level, on any name of a logger; a failure has a traceback."""
        self.assertEqual([("warn", "a {b}", False)], self.lines("self._log.warn('a {b}', b=1)"))
        self.assertEqual([("error", "a", False)], self.lines("session.log.error('a')"))
        self.assertEqual([("critical", "a", True)], self.lines("_log.failure('a')"))
        self.assertEqual([], self.lines("_log.debug('a')\nresult.error('a')"))

    def test_texts(self) -> None:
        """A constant, its first line, and what is passed to a parameter."""
        self.assertEqual([("info", "a", False)], self.lines("A = 'a\\nb'\nlog.info(A)"))
        source = "def f(self, x, t):\n  log.info(t)\nself.f(1, 'a')\nself.f(2, 'b')"
        self.assertEqual([("info", "a", False), ("info", "b", False)], self.lines(source))

    def test_text_that_is_not_in_the_source(self) -> None:
        """Scripts could not match it: such a call is refused, not left out."""
        self.assertRaises(ValueError, self.lines, "log.info(made())")
