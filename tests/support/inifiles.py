"""Configuration files for tests."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config import serverini
from metamorphosis.config.faults import ConfigFaults
from metamorphosis.config.model import BrokerConfig

SYSTEM = """[system]
brokerId=0
numPartitions=1
unflushThreshold=1000
unflushInterval=10000
maxSegmentSize=1048576
maxTransferSize=1048576
"""
ZOOKEEPER = """[zookeeper]
zk.zkConnect=localhost:2181
"""
TOPICS = """[topic=test]
"""
#: The minimal valid file, ``S`` of the specification.
MINIMAL = SYSTEM + ZOOKEEPER + TOPICS


class IniTestCase(SynchronousTestCase):
    """Writes files and loads them."""

    def setUp(self) -> None:
        """A directory for the files of one test."""
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "server.ini")

    def write(self, text: str | bytes, path: str | None = None) -> str:
        """Write a file and return its path."""
        path = path or self.path
        with open(path, "wb") as stream:
            stream.write(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, text: str | bytes) -> BrokerConfig:
        """The configuration that a file of this content gives."""
        return serverini.load(self.write(text))

    def faults(self, text: str | bytes) -> ConfigFaults:
        """What is reported of a faulty file."""
        return self.assertRaises(ConfigFaults, self.load, text)

    def fault(self, text: str | bytes) -> str:
        """The text of the only fault of a file."""
        faults = self.faults(text).faults
        self.assertEqual(len(faults), 1, faults)
        return faults[0].text
