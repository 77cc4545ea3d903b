"""docs/differences.md and the ``Differs:`` marks of the code tell the same story."""

from __future__ import annotations

import pathlib
import re

from twisted.trial.unittest import SynchronousTestCase

import metamorphosis

PACKAGE = pathlib.Path(metamorphosis.__file__).parent
PAGE = PACKAGE.parent / "docs" / "differences.md"


class DifferencesTests(SynchronousTestCase):
    """Every deviation is documented."""

    def setUp(self) -> None:
        self.named = set(re.findall(r"`([a-z/]+)` \|$", PAGE.read_text(), re.MULTILINE))

    def test_every_mark_is_listed(self) -> None:
        """A module with a ``Differs:`` stands in the last column of some row."""
        marked = {
            path.relative_to(PACKAGE).with_suffix("").as_posix()
            for path in PACKAGE.rglob("*.py")
            if "Differs:" in path.read_text()
        }
        self.assertEqual(sorted(marked - self.named), [])

    def test_every_named_module_exists(self) -> None:
        """The page names no module that was moved or removed."""
        missing = [name for name in self.named if not (PACKAGE / f"{name}.py").exists()]
        self.assertEqual(missing, [])
