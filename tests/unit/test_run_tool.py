"""What ``make run`` makes."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import serverini
from tools import run


class ServerIniTests(SynchronousTestCase):
    """The ``server.ini`` of ``make run``."""

    def test_is_good(self) -> None:
        """It has no fault and no warning, and says what the README says."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write(run.server_ini("/somewhere/messages"))
        config = serverini.load(path)
        self.assertEqual(config.warnings, ())
        self.assertEqual((config.server_port, config.zookeeper.connect), (8123, "localhost:2181"))
        self.assertEqual(config.data_path, "/somewhere/messages")
        self.assertEqual((config.host_name, config.zookeeper.sync_time), ("localhost", 500))
        self.assertIn("test", config.topics)
