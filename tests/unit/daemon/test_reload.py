"""What a reload reads, and how it says what has changed."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import serverini, settings
from metamorphosis.daemon.reload import Reloaded, read_again, shortened
from metamorphosis.errors import ConfigError
from tests.support.broker import SYSTEM, ZOOKEEPER, Keys, ini


class ReadAgainTests(SynchronousTestCase):
    """Files that are rewritten between two readings."""

    def setUp(self) -> None:
        """A broker's files as they were at its start."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.server_ini = os.path.join(self.directory, "server.ini")
        self.own_ini = os.path.join(self.directory, "metamorphosis.ini")
        self.writes = 0
        self.write_topics({"test": {}})
        self.config = serverini.load(self.server_ini)
        self.settings = settings.load_for(self.server_ini)

    def write(self, path: str, text: str) -> None:
        """Rewrite a file; its time is a new one, however fast the test is."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.writes += 1
        os.utime(path, (1_000_000 + self.writes, 1_000_000 + self.writes))

    def write_topics(self, topics: dict[str, Keys]) -> None:
        """Rewrite ``server.ini``."""
        sections: dict[str, Keys] = {"system": SYSTEM, "zookeeper": ZOOKEEPER}
        sections.update({f"topic={name}": keys for name, keys in topics.items()})
        self.write(self.server_ini, ini(sections))

    def read(self) -> Reloaded:
        """Read both again."""
        return read_again(self.config, self.settings)

    def test_untouched_files(self) -> None:
        """Nothing happens to a configuration whose files were not touched."""
        reloaded = self.read()
        self.assertIs(reloaded.config, self.config)
        self.assertEqual(reloaded.settings, self.settings)
        self.assertEqual(reloaded.changes, "nothing changed")

    def test_topics(self) -> None:
        """Added, changed and removed topics are named."""
        self.write_topics({"test": {"numPartitions": 4}, "more": {}})
        reloaded = self.read()
        self.assertEqual(reloaded.config.topic("test").num_partitions, 4)
        self.assertEqual(reloaded.changes, "topics added: more; topics changed: test")
        self.config = reloaded.config
        self.write_topics({"test": {"numPartitions": 4}})
        self.assertEqual(self.read().changes, "topics removed: more")

    def test_touched_file(self) -> None:
        """A file that was only touched changes nothing but is read."""
        os.utime(self.server_ini, (5_000_000, 5_000_000))
        reloaded = self.read()
        self.assertEqual(reloaded.config.modified_ns, 5_000_000 * 10**9)
        self.assertEqual(reloaded.changes, "nothing changed")

    def test_faulty_server_ini(self) -> None:
        """A fault is raised, so that the caller keeps what it has."""
        self.write_topics({"test": {"numPartitions": "many"}})
        self.assertRaises(ConfigError, self.read)

    def test_faulty_settings(self) -> None:
        """A fault in our file keeps the topics of the other from being applied, too."""
        self.write_topics({"test": {}, "more": {}})
        self.write(self.own_ini, "[closed-partitions]\ntest=x\n")
        error = self.assertRaises(ConfigError, self.read)
        self.assertIn("metamorphosis.ini", str(error))

    def test_settings_come_and_go(self) -> None:
        """The file beside ``server.ini`` may be made and removed while the broker runs."""
        self.write(self.own_ini, "[closed-partitions]\ntest=0-1,3\n")
        reloaded = self.read()
        self.assertEqual(reloaded.settings.closed_partitions, {"test": ((0, 1), (3, 3))})
        self.assertEqual(reloaded.changes, "closed partitions: test 0-1,3-3")
        self.settings = reloaded.settings
        os.unlink(self.own_ini)
        reloaded = self.read()
        self.assertEqual(reloaded.settings.closed_partitions, {})
        self.assertEqual(reloaded.changes, "closed partitions: none")

    def test_named_settings_must_stay(self) -> None:
        """A file that the command line named and that is gone is a fault."""
        other = os.path.join(self.directory, "other.ini")
        self.write(other, "")
        self.settings = settings.load_for(self.server_ini, other)
        os.unlink(other)
        self.assertRaises(ConfigError, self.read)

    def test_settings_that_need_a_restart(self) -> None:
        """Other settings keep their values, and the changed ones are named."""
        self.write(self.own_ini, "[network]\nidle-seconds=5\n[store]\nflush-delay-ms=3\n")
        reloaded = self.read()
        self.assertEqual(reloaded.settings.idle_seconds, self.settings.idle_seconds)
        self.assertEqual(set(reloaded.fixed), {"idle-seconds", "flush-delay-ms"})

    def test_shortened(self) -> None:
        """A line of the log names ten topics at most."""
        self.assertEqual(shortened(["b", "a"]), "a, b")
        self.assertEqual(
            shortened(f"t{n:02}" for n in range(12)),
            shortened([f"t{n:02}" for n in range(10)]) + " and 2 more",
        )
