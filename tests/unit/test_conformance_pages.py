"""``docs/conformance/`` names tests that exist, and has every row that the code speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "conformance"

ROW = re.compile(r"^\| ([A-Z]-?\d+|\d+) \| (.*) \|$", re.MULTILINE)
TEST = re.compile(r"`([a-z_]+(?:\.\w+)+\.test_\w+)`")

REFERENCE = re.compile(r"\b(C[1-9]\d?|T\d\d|R\d\d|[DO]-[1-9]\d?)\b(?![:-])")
PLAIN = re.compile(r"\b[Rr]ows? (\d+(?:(?:, | and | to )\d+)*)")

#: numbers of rows that are another thing's
ELSEWHERE = {"tests/unit/zookeeper", "tests/unit/client/offsets/test_mysqltable.py"}


def rows(page: str) -> dict[str, list[str]]:
    """The rows of a page, and the tests that each names."""
    found: dict[str, list[str]] = {}
    for name, rest in ROW.findall((PAGES / f"{page}.md").read_text("utf-8")):
        assert name not in found, f"row {name} stands twice in {page}.md"
        found[name] = TEST.findall(rest)
    return found


def all_rows() -> dict[str, dict[str, list[str]]]:
    """By page."""
    return {
        path.stem: rows(path.stem) for path in sorted(PAGES.glob("*.md")) if path.stem != "README"
    }


def numbered(prefix: str, count: int, width: int = 0) -> list[str]:
    """The names of rows that a page must have."""
    return [f"{prefix}{number:0{width}d}" for number in range(1, count + 1)]


def sources() -> Iterator[tuple[str, str]]:
    """Code, tests and documents, with their paths."""
    for room in ("metamorphosis", "tests", "compat", "docs"):
        for path in sorted((ROOT / room).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in (".py", ".md") and path != Path(__file__):
                if not any(name.startswith(other) for other in ELSEWHERE):
                    yield name, path.read_text("utf-8")


class ConformancePageTests(SynchronousTestCase):
    """The pages as they are."""

    def test_no_row_is_missing(self) -> None:
        """Each page has its rows from the first to the last."""
        pages = all_rows()
        for page, expected in (
            ("wire", numbered("", 84)),
            ("client", numbered("", 85)),
            ("storage", numbered("C", 77)),
            ("transactions", numbered("T", 53, 2)),
            ("zookeeper", numbered("Z", 17)),
            ("replication", numbered("R", 60, 2)),
            ("defects", numbered("D-", 24) + numbered("O-", 8)),
        ):
            self.assertEqual(expected, list(pages.pop(page)), page)
        self.assertEqual({}, pages)

    def test_named_tests_exist(self) -> None:
        """A renamed test is renamed here, too."""
        missing = []
        for page, found in all_rows().items():
            for row, tests in found.items():
                for name in tests:
                    try:
                        namedAny(name if name.startswith("compat.") else f"tests.{name}")
                    except Exception as error:
                        missing.append(f"{page}.md, row {row}: {name}: {error!r}")
        self.assertEqual([], missing)

    def test_rows_without_a_test_say_so(self) -> None:
        """A row names a test, or none."""
        for path in PAGES.glob("*.md"):
            for name, rest in ROW.findall(path.read_text("utf-8")):
                cell = rest.rpartition("| ")[2]
                self.assertTrue(cell == "none" or TEST.findall(cell), f"{path.name}: {name}")

    def test_references_lead_to_rows(self) -> None:
        """C22, T36, D-16 and O-2 are found here; a number is a row of the wire or the client."""
        known = {row for found in all_rows().values() for row in found}
        lost = []
        for name, text in sources():
            found = set(REFERENCE.findall(text))
            for numbers in PLAIN.findall(text):
                found.update(re.findall(r"\d+", numbers))
            lost += [f"{name}: {row}" for row in sorted(found - known)]
        self.assertEqual([], lost)
