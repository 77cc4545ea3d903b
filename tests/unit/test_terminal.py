"""A terminal that does not know every character."""

from __future__ import annotations

import io
import json
import sys

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis import terminal
from metamorphosis.cli.console import json_text
from tests.unit.cli.fakes import Run

NAME = "\u8ba2\u5355"


class TerminalTests(SynchronousTestCase):
    """ASCII, and UTF-8."""

    def use(self, encoding: str) -> io.BytesIO:
        """Standard output has this encoding; what it gets."""
        raw = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(raw, encoding, "strict", write_through=True))
        terminal.escape_output()
        return raw

    def test_print(self) -> None:
        """Escaped where need be."""
        for encoding, expected in (("ascii", b"\\u8ba2\\u5355\n"), ("utf-8", f"{NAME}\n".encode())):
            raw = self.use(encoding)
            print(NAME)
            self.assertEqual(expected, raw.getvalue())

    def test_half_characters(self) -> None:
        """A path that is not UTF-8 can be shown, too."""
        raw = self.use("utf-8")
        print("/data/\udcff")
        self.assertEqual(b"/data/\\udcff\n", raw.getvalue())

    def test_tables_and_json(self) -> None:
        """Of ``metaq``: the name is escaped in the table, and the same in JSON."""
        self.use("ascii")
        for arguments in ("topics", "topics --json"):
            run = Run(arguments)
            run.session.master(0, **{NAME: 1})
            self.assertEqual(run.start().status, 0)
            self.assertTrue(run.output.isascii())
            if "--json" in arguments:
                names = [json.loads(line)["topic"] for line in run.text.splitlines()]
                self.assertIn(NAME, names)
            else:
                self.assertIn("\\u8ba2\\u5355", run.text)

    def test_json_for_a_terminal_that_knows_it(self) -> None:
        """Stays readable."""
        self.use("utf-8")
        self.assertEqual(f'"{NAME}"', json_text(NAME))

    def test_arguments(self) -> None:
        """UTF-8 that a system with another encoding did not know."""
        self.assertEqual(NAME, terminal.given(NAME.encode().decode("ascii", "surrogateescape")))
        self.assertEqual("t", terminal.given("t"))
        self.assertEqual("\udcff", terminal.given("\udcff"))
