"""Wheels of the project, with and without a compiler, and the Pythons that can use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.run import INTERPRETERS, ROOT

IMPORT = "from metamorphosis.native import way; print(way)"


class WheelTests(SynchronousTestCase):
    """``pip wheel``, as ``pip install`` does it."""

    timeout = 300

    def wheel(self, **environment: str) -> str:
        """Build one from a copy of the sources, so that nothing of this tree is used; its path."""
        here = self.mktemp()
        source = os.path.join(here, "source")
        os.makedirs(source)
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md"):
            shutil.copy(os.path.join(ROOT, name), source)
        for name in ("metamorphosis", "twisted"):
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(os.path.join(ROOT, name), os.path.join(source, name), ignore=ignored)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", here, source, "-v"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        self.output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, self.output[-3000:])
        (name,) = (each for each in os.listdir(here) if each.endswith(".whl"))
        return os.path.join(here, name)

    def imported(self, python: str, directory: str) -> str:
        """What a Python says of the module in an unpacked wheel."""
        return subprocess.run(
            [python, "-S", "-c", IMPORT], cwd=directory, capture_output=True, text=True, check=True
        ).stdout.strip()

    def unpacked(self, wheel: str) -> str:
        """The directory of its files."""
        directory = os.path.abspath(self.mktemp())
        with zipfile.ZipFile(wheel) as file:
            file.extractall(directory)
        return directory

    def test_without_a_compiler(self) -> None:
        """It ends well; one line says what is missing and what it costs; the broker will say it."""
        wheel = self.wheel(CC="false", METAQ_NATIVE_STRICT="")
        self.assertIn("is left out", self.output)
        self.assertIn("a C compiler and Python's headers are needed for it", self.output)
        found = self.imported(sys.executable, self.unpacked(wheel))
        self.assertEqual(found, "pure Python: module not built")

    def test_one_wheel_for_all(self) -> None:
        """The module in it works under every Python from 3.11 on that is here."""
        if shutil.which("cc") is None:
            raise SkipTest("no C compiler on this machine")
        wheel = self.wheel(METAQ_NATIVE_STRICT="1")
        self.assertIn("-cp311-abi3-", os.path.basename(wheel))
        directory = self.unpacked(wheel)
        self.assertRegex(self.imported(sys.executable, directory), "^native, checksums by ")
        if not os.path.exists(INTERPRETERS):
            return
        with open(INTERPRETERS, encoding="utf-8") as file:
            pythons = [words[1] for words in map(str.split, file) if len(words) == 2]
        for python in pythons:
            found = self.imported(os.path.join(ROOT, python), directory)
            self.assertRegex(found, "^native, checksums by ")
