"""The examples of ``docs/testing.md`` are tests, and pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[3]


class DocumentTests(SynchronousTestCase):
    """Each block is a module, as a reader would copy it."""

    def test_examples(self) -> None:
        """On asyncio, on Twisted, and on a clock of their own; together, as a user's suite is."""
        text = (ROOT / "docs" / "testing.md").read_text("utf-8")
        directory = Path(self.mktemp())
        directory.mkdir()
        blocks = re.findall(r"(?ms)^```python\n(.*?)^```", text)
        names = [f"test_example{n}" for n in range(len(blocks))]
        for name, block in zip(names, blocks, strict=True):
            (directory / f"{name}.py").write_text(block, "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "twisted.trial", *names],
            cwd=directory,
            env={"PYTHONPATH": f"{ROOT}:{directory.resolve()}", "HOME": str(directory.resolve())},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertIn("Ran 4 tests", done.stdout, done.stderr)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertEqual([], [each.name for each in directory.iterdir() if "metaq" in each.name])
