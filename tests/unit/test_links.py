"""Links between the documents of the project lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


def anchors(path: Path) -> set[str]:
    """The anchors that a page gets from its headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in headings}


class LinkTests(SynchronousTestCase):
    """Every page, wherever it lies."""

    def test_links(self) -> None:
        """Files exist, and so do the headings that links name."""
        pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        pages += [ROOT / room / "README.md" for room in ("benchmarks", "compat")]
        lost, seen = [], 0
        for page in pages:
            for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
                if "://" in link:
                    continue
                seen += 1
                name, _, anchor = link.partition("#")
                target = page.parent / name if name else page
                if not target.exists():
                    lost.append(f"{page.name}: {link}")
                elif anchor and anchor not in anchors(target):
                    lost.append(f"{page.name}: {link}, its heading")
        self.assertEqual([], lost)
        self.assertGreater(seen, 50)
