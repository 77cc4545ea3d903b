"""The files in ``contrib`` and the page about configuration."""

from __future__ import annotations

import configparser
import os
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

import metamorphosis
from metamorphosis.config import ini, keys, serverini, settings
from metamorphosis.config.model import Settings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(metamorphosis.__file__)))
CONTRIB = os.path.join(ROOT, "contrib")


def read(*path: str) -> str:
    """The text of a file of the project."""
    with open(os.path.join(ROOT, *path), encoding="utf-8") as stream:
        return stream.read()


class SampleTests(SynchronousTestCase):
    """Files that a new user copies; a checkout has them, an installed package has not."""

    if not os.path.isdir(CONTRIB):
        skip = "contrib is not installed with the package"

    def test_server_ini(self) -> None:
        """It is valid, without warnings, and is what its comments say."""
        config = serverini.load(os.path.join(CONTRIB, "server.ini"))
        self.assertEqual(config.warnings, ())
        self.assertEqual((config.broker_id, config.server_port), (0, 8123))
        self.assertEqual(list(config.topics), ["meta-test", "test"])
        self.assertEqual(config.delete_policy, "delete,168")
        self.assertEqual(config.delete_when, "0 0 6,18 * * ?")

    def test_settings(self) -> None:
        """It names every key with its default."""
        path = os.path.join(CONTRIB, "metamorphosis.ini")
        self.assertEqual(settings.load(path), replace(Settings(), path=path))
        self.assertEqual(settings.load(path).warnings, ())
        file = ini.parse(read("contrib", "metamorphosis.ini").encode())
        for name, table in settings.SECTIONS.items():
            self.assertEqual(set(file.sections[name].options), {key.name for key in table})

    def test_unit(self) -> None:
        """The systemd unit reloads by SIGHUP and waits longer for the end than a broker takes."""
        unit = configparser.ConfigParser(strict=True, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(read("contrib", "metaq.service"))
        self.assertEqual(set(unit.sections()), {"Unit", "Service", "Install"})
        service = unit["Service"]
        self.assertIn("twistd --nodaemon --pidfile= metaq -f ", service["ExecStart"])
        self.assertEqual(service["ExecReload"], "/bin/kill -HUP $MAINPID")
        self.assertEqual((service["Type"], service["Restart"]), ("exec", "on-failure"))
        config = serverini.load(os.path.join(CONTRIB, "server.ini"))
        wait = config.zookeeper.sync_time / 1000
        self.assertTrue(float(service["TimeoutStopSec"]) >= wait + 30)
        self.assertTrue(int(service["LimitNOFILE"]) >= 65536)

    def test_page(self) -> None:
        """The page about configuration has every key of both files."""
        page = read("docs", "configuration.md")
        tables = (keys.SYSTEM, keys.ZOOKEEPER, keys.TOPIC, *settings.SECTIONS.values())
        for table in tables:
            for key in table:
                self.assertIn(key.name, page)
        for name in (*keys.SYSTEM_IGNORED, *keys.TOPIC_IGNORED):
            self.assertIn(f"`{name}`", page)
