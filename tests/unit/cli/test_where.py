"""The cluster of a command: command line, environment, configuration file."""

from __future__ import annotations

import os
from argparse import Namespace

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.where import NoCluster, Where, locate
from metamorphosis.errors import ConfigError

FILE = """\
; of a team
[metaq]
zookeeper = zk1:2181,zk2:2181/shop
root = /orders
timeout = 3.5

[cluster test]
broker = 127.0.0.1:8123
"""


class WhereTestCase(SynchronousTestCase):
    """A home with a configuration file, if the test writes one."""

    def setUp(self) -> None:
        """No file and no variable."""
        self.home = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(self.home, ".config"))
        self.path = os.path.join(self.home, ".config", "metaq.ini")

    def write(self, text: str | bytes) -> None:
        """The configuration file."""
        with open(self.path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def locate(self, environment: dict[str, str] | None = None, **options: object) -> Where:
        """The cluster that is found for these options."""
        names = ("zookeeper", "broker", "root", "timeout", "cluster", "config")
        given = Namespace(**{**dict.fromkeys(names), **options})
        return locate(given, {"HOME": self.home, **(environment or {})})

    def refused(self, environment: dict[str, str] | None = None, **options: object) -> ConfigError:
        """The error."""
        return self.assertRaises(ConfigError, self.locate, environment, **options)


class SourceTests(WhereTestCase):
    """The precedence of the three."""

    def test_command_line(self) -> None:
        """It takes precedence over the two others, and is not mixed with them."""
        self.write(FILE)
        found = self.locate({"METAQ_BROKER": "b:1"}, zookeeper="z:1")
        self.assertEqual(found, Where("z:1", None))
        self.assertEqual(self.locate({"METAQ_ZOOKEEPER": "z:1"}, broker="b:2"), Where(None, "b:2"))

    def test_environment(self) -> None:
        """It takes precedence over the file."""
        self.write(FILE)
        self.assertEqual(self.locate({"METAQ_ZOOKEEPER": "z:9"}), Where("z:9"))
        self.assertEqual(self.locate({"METAQ_BROKER": "b:9"}), Where(None, "b:9"))
        root = self.locate({"METAQ_BROKER": "b:9", "METAQ_ROOT": "/m"})
        self.assertEqual(root.root, "/m")

    def test_file(self) -> None:
        """The section without a name, or the one that is named."""
        self.write(FILE)
        shop = Where("zk1:2181,zk2:2181/shop", None, "/orders", 3.5)
        self.assertEqual(self.locate(), shop)
        self.assertEqual(
            self.locate(root="/other", timeout=1.0), Where(shop.zookeeper, None, "/other", 1.0)
        )
        test = Where(None, "127.0.0.1:8123")
        self.assertEqual(self.locate(cluster="test"), test)
        self.assertEqual(self.locate({"METAQ_CLUSTER": "test"}), test)
        self.assertEqual(self.locate({"METAQ_ZOOKEEPER": "z:1"}, cluster="test"), test)

    def test_places_of_the_file(self) -> None:
        """``--config`` before ``METAQ_CONFIG`` before the directory of configurations."""
        other = os.path.join(self.home, "other.ini")
        with open(other, "w", encoding="utf-8") as file:
            file.write("[metaq]\nbroker=b:5\n")
        self.write(FILE)
        expected = Where(None, "b:5")
        self.assertEqual(self.locate(config=other), expected)
        self.assertEqual(self.locate({"METAQ_CONFIG": other}), expected)
        os.rename(other, os.path.join(self.home, "metaq.ini"))
        self.assertEqual(self.locate({"XDG_CONFIG_HOME": self.home}), expected)


class FaultTests(WhereTestCase):
    """Errors name the fault, its place, and the valid form."""

    def test_nothing(self) -> None:
        """The error names all ways."""
        error = self.refused()
        self.assertIsInstance(error, NoCluster)
        for text in ("--zookeeper", "--broker", "METAQ_ZOOKEEPER", "METAQ_BROKER", self.path):
            self.assertIn(text, str(error))

    def test_contradictions(self) -> None:
        """Two clusters at once are an error."""
        both = {"METAQ_ZOOKEEPER": "z:1", "METAQ_BROKER": "b:1"}
        self.assertIn("METAQ_ZOOKEEPER and METAQ_BROKER are both set", str(self.refused(both)))
        self.assertEqual(self.locate(both, broker="b:2"), Where(None, "b:2"))
        error = self.refused(cluster="test", broker="b:1")
        self.assertIn("--cluster test and --broker", str(error))

    def test_file_that_cannot_be_read(self) -> None:
        """Also a file that was given and does not exist."""
        missing = os.path.join(self.home, "no.ini")
        self.assertIn(f"{missing}: No such file", str(self.refused(config=missing)))
        self.assertIn(f"{self.path}: No such file", str(self.refused(cluster="test")))
        self.write(b"[metaq]\nbroker=\xff\n")
        self.assertIn(f"{self.path}: byte 15 is not UTF-8", str(self.refused()))

    def test_contents(self) -> None:
        """Each fault with its section and key."""
        for text, reason in (
            ("broker=b:1", "no section headers"),
            ("[metaq]\nbroker=b:1\nbroker=b:2\n", "already exists"),
            ("[metaq]\nzookeper=z:1\n", "unknown key zookeper; do you mean zookeeper?"),
            ("[metaq]\nxyz=1\n", "unknown key xyz; keys are zookeeper, broker, root, timeout"),
            ("[metaq]\nroot=/m\n", "has neither zookeeper nor broker"),
            ("[metaq]\nbroker=b:1\nzookeeper=z:1\n", "has both"),
            ("[metaq]\nbroker=b:1\ntimeout=soon\n", "timeout=soon is not a number above 0"),
            ("[metaq]\nbroker=b:1\n[test]\n", "section [test]: [metaq] or [cluster NAME]"),
            ("[metaq]\nbroker=b:1\n[cluster ]\n", "section [cluster ]"),
            ("[cluster a]\nbroker=b:1\n", "no section [metaq]; clusters with a name: a"),
        ):
            self.write(text)
            error = str(self.refused())
            self.assertIn(reason, error)
            self.assertIn(self.path, error)
        self.write(FILE)
        self.assertIn("no section [cluster x]", str(self.refused(cluster="x")))
