"""The programs and commands of the README, literally except for ZooKeeper's address."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.broker import CHECKOUT, BrokerProcess, environment
from tests.support.embedded import EmbeddedZooKeeper

ADDRESS = "localhost:2181"
SECONDS = 30.0


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in this language, in order."""
    with open(os.path.join(CHECKOUT, "README.md"), encoding="utf-8") as file:
        return re.findall(f"^```{language}\n(.*?)^```$", file.read(), re.DOTALL | re.MULTILINE)


class ReadmeTests(SynchronousTestCase):
    """Each test has a new cluster with the topic of the quickstart."""

    def setUp(self) -> None:
        """The processes of ``make run``, on free ports."""
        self.zookeeper = EmbeddedZooKeeper(self.mktemp())
        self.zookeeper.start()
        self.addCleanup(self.zookeeper.stop)
        broker = BrokerProcess(self.mktemp(), zookeeper=self.zookeeper)
        self.addCleanup(broker.kill)
        broker.start()
        broker.wait_for_log("registered in ZooKeeper")
        self.home = os.path.abspath(self.mktemp())
        os.makedirs(self.home)

    def start(self, command: list[str], text: str) -> subprocess.Popen[bytes]:
        """Run a program text with a command."""
        self.assertIn(ADDRESS, text)
        process = subprocess.Popen(
            [*command, text.replace(ADDRESS, self.zookeeper.connect_string)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            env={
                **environment(),
                "HOME": self.home,
                "PATH": f"{self.home}:{os.environ['PATH']}",
                "PYTHONUNBUFFERED": "1",
            },
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End the process."""
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def finished(self, process: subprocess.Popen[bytes]) -> str:
        """The output of a process that ended with status 0."""
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 0, output)
        return output.decode()

    def there_and_back(self, producer: str, consumer: str) -> None:
        """A message of the first program, and a later one, reach the second; after Ctrl-C it has
        left its group."""
        python = [sys.executable, "-c"]
        stored = self.finished(self.start(python, producer))
        self.assertRegex(stored, r"^stored as \d+ in 0-0 at 0\n$")
        reading = self.start(python, consumer)
        assert reading.stdout is not None
        self.assertEqual(reading.stdout.readline(), b"got b'hello' from 0-0 at 0\n")
        self.finished(self.start(python, producer))
        self.assertEqual(reading.stdout.readline(), b"got b'hello' from 0-0 at 25\n")
        ids = "/meta/consumers/readers/ids"
        self.assertEqual(len(self.zookeeper.tree(ids)), 2)
        reading.send_signal(signal.SIGINT)
        self.assertEqual(self.finished(reading), "")  # no traceback
        self.assertEqual(list(self.zookeeper.tree(ids)), [ids])

    def test_twisted(self) -> None:
        """The first two programs."""
        self.there_and_back(*blocks("python")[:2])

    def test_asyncio(self) -> None:
        """The last two."""
        self.there_and_back(*blocks("python")[2:])

    def test_ten_lines(self) -> None:
        """None is longer than promised, but for the import that Ctrl-C needs on asyncio."""
        for program in blocks("python"):
            lines = [line for line in program.splitlines() if line and "suppress" not in line]
            self.assertLessEqual(len(lines), 10)

    def test_shell(self) -> None:
        """The commands, one after the other; each ends with status 0."""
        metaq = os.path.join(self.home, "metaq")
        with open(metaq, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} -m metamorphosis.cli "$@"\n')
        os.chmod(metaq, 0o755)
        (commands,) = blocks("sh")
        output = self.finished(self.start(["sh", "-e", "-c"], commands))
        with open(os.path.join(self.home, "numbers"), encoding="ascii") as numbers:
            found = sorted(map(int, numbers))
        self.assertEqual(found, list(range(1, 1001)))
        self.assertRegex(output, r"(?m)^shell +test +0-0 +\d+ +\d+ +0 +- +no-member$")
        self.assertRegex(output, r"(?m)^test +1 +1000 +\d+$")
