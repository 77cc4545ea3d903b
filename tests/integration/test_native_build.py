"""Wheels of the project, with and without a compiler, and the Pythons that can use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.run import INTERPRETERS
from tests.stageprocess import ROOT

IMPORT = "from metamorphosis.native import way; print(way)"


class WheelTests(SynchronousTestCase):
    """``pip wheel``, as ``pip install`` does it."""

    timeout = 300

    def sources(self, here: str) -> str:
        """A copy of the files of a source distribution; its directory."""
        source = os.path.join(here, "source")
        os.makedirs(source)
        for name in os.listdir(ROOT):
            if os.path.isfile(os.path.join(ROOT, name)):
                shutil.copy(os.path.join(ROOT, name), source)
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "_build")
        for name in ("metamorphosis", "twisted", "contrib", "docs", "examples"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(source, name), ignore=ignored)
        return source

    def wheel(self, **environment: str) -> str:
        """Build a wheel from a copy of the sources, so that no file of this tree is used; its
        path."""
        here = self.mktemp()
        source = self.sources(here)
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
        """The output of a Python that imports the module of an unpacked wheel."""
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
        """The build succeeds; one line names the missing part and its cost."""
        wheel = self.wheel(CC="false", METAQ_NATIVE_STRICT="")
        self.assertIn("is left out", self.output)
        self.assertIn("a C compiler and Python's headers are needed for it", self.output)
        directory = self.unpacked(wheel)
        self.assertEqual(self.imported(sys.executable, directory), "pure Python: module not built")
        (share,) = Path(directory).glob("*.data/data/share/metamorphosis")
        names = {each.name for each in share.iterdir()}
        self.assertEqual(names, {"metaq.service", "server.ini", "metamorphosis.ini"})

    def test_source_distribution(self) -> None:
        """It has the files that a reader and a builder need: documents, examples, the C files and
        headers."""
        here = self.mktemp()
        subprocess.run(
            [sys.executable, "setup.py", "-q", "sdist", "-d", os.path.abspath(here)],
            cwd=self.sources(here),
            capture_output=True,
            check=True,
        )
        (name,) = (each for each in os.listdir(here) if each.endswith(".tar.gz"))
        with tarfile.open(os.path.join(here, name)) as file:
            found = {each.name.partition("/")[2] for each in file.getmembers()}
        for wanted in (
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "LICENSE",
            "SECURITY.md",
            "contrib/metaq.service",
            "docs/guide/index.md",
            "docs/pictures/put.svg",
            "examples/listener.py",
            "metamorphosis/config/example.ini",
            "metamorphosis/native/codec.c",
            "metamorphosis/native/codec.h",
        ):
            self.assertIn(wanted, found)

    def test_one_wheel_for_all(self) -> None:
        """Its module works under every installed Python from 3.11 on."""
        if shutil.which("cc") is None:
            raise SkipTest("no C compiler on this machine")
        wheel = self.wheel(METAQ_NATIVE_STRICT="1")
        self.assertIn("-cp311-abi3-", os.path.basename(wheel))
        directory = self.unpacked(wheel)
        self.assertRegex(self.imported(sys.executable, directory), "^native turn, checksums by ")
        if not os.path.exists(INTERPRETERS):
            return
        with open(INTERPRETERS, encoding="utf-8") as file:
            pythons = [words[1] for words in map(str.split, file) if len(words) == 2]
        for python in pythons:
            found = self.imported(os.path.join(ROOT, python), directory)
            self.assertRegex(found, "^native turn, checksums by ")
