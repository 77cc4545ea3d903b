"""``docs/log-lines.md`` has the log lines of the code, and a remedy for each error."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "loglines.py"))
PAGE = ROOT / "docs" / "log-lines.md"


class PageTests(SynchronousTestCase):
    """The page as it is."""

    def test_tables_are_up_to_date(self) -> None:
        """After a change of a log line ``tools/loglines.py`` writes the page."""
        text = PAGE.read_text("utf-8")
        if TOOL["page"](text) != text:
            self.fail("docs/log-lines.md is old: run `.venv/bin/python tools/loglines.py`")

    def test_every_error_says_what_to_do(self) -> None:
        """Every error has a row in the part that is written by hand."""
        keys = self.keys()
        silent = [
            line
            for line in TOOL["all_lines"]()
            if line.level in ("error", "critical") and not line.traceback
            if not any(key == line.text or key in line.text and key[0] != "{" for key in keys)
        ]
        self.assertEqual([], silent)

    def test_every_row_is_about_a_line(self) -> None:
        """Every such row has its line in the code."""
        texts = [line.text for line in TOOL["all_lines"]()]
        self.assertEqual([], [key for key in self.keys() if not any(key in text for text in texts)])

    def keys(self) -> list[str]:
        """The texts of the hand-written part."""
        part = PAGE.read_text("utf-8").partition("## What to do")[2].partition(TOOL["MARKER"])[0]
        keys = re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
        self.assertGreater(len(keys), 10)
        return keys


class ReadingTests(SynchronousTestCase):
    """The calls that count as log lines."""

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
