"""The property files of the roles: values, defaults, and all faults at once."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.faults import ConfigFaults
from metamorphosis.config.model import BrokerConfig
from metamorphosis.config.roles import (
    FollowerConfig,
    PairMasterConfig,
    PairSlaveConfig,
    RoleConfig,
    RoleKind,
    load_role,
)

BROKER = BrokerConfig(0, server_port=8123, host_name="broker0.example")

FOLLOWER, MASTER, SLAVE = RoleKind.FOLLOWER, RoleKind.PAIR_MASTER, RoleKind.PAIR_SLAVE

SHIPPED = {
    # As the original ships them: keys and order, comments in Chinese, GBK.
    FOLLOWER: "#\u5f02\u6b65\u590d\u5236\r\n\r\n#\u7f16\u53f7\r\nslaveId=0\r\n\r\n"
    "slaveGroup=meta-slave-group\r\n\r\n#\u5ef6\u8fdf\t\r\nslaveMaxDelayInMills=500\r\n"
    "\r\n#\u662f\u5426\r\nautoSyncMasterConfig=true",
    MASTER: "#\u540c\u6b65\u590d\u5236\n\n#\u8282\u70b9\nslave=localhost:8124\n"
    "#\u7ebf\u7a0b\ncallbackThreadCount=10\n#\u6062\u590d\nrecoverOffset=false\n"
    "sendToSlaveTimeoutInMills=2000\nslaveContinuousFailureThreshold=100\n"
    "checkSlaveIntervalInMills=100\n",
    SLAVE: "#\u540c\u6b65\u590d\u5236\n#\u8282\u70b9\n\n\n",
}


class RolesTestCase(SynchronousTestCase):
    """Files of the test."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def load(self, kind: RoleKind, text: str, encoding: str = "utf-8") -> RoleConfig:
        """The role of a file with this text."""
        with open(self.path, "wb") as file:
            file.write(text.encode(encoding))
        return load_role(kind, self.path, BROKER)

    def faults(self, kind: RoleKind, text: str) -> list[str]:
        """Those of a file with this text."""
        error = self.assertRaises(ConfigFaults, self.load, kind, text)
        self.assertIn(self.path, str(error))
        return [str(fault) for fault in error.faults]


class GoodFilesTests(RolesTestCase):
    """What is read."""

    def test_shipped_files(self) -> None:
        """Of the original, in both encodings, without a warning."""
        for encoding in ("gbk", "utf-8"):
            found = [self.load(kind, text, encoding) for kind, text in SHIPPED.items()]
            self.assertEqual(
                [
                    FollowerConfig(0, "meta-slave-group", 500, True, self.path),
                    PairMasterConfig("localhost:8124", path=self.path),
                    PairSlaveConfig(self.path),
                ],
                found,
            )
            self.assertEqual([()] * 3, [each.warnings for each in found])

    def test_defaults(self) -> None:
        """R18: the group is named after the slave; blank values are missing ones."""
        text = "slaveId=3\nslaveGroup=\nslaveMaxDelayInMills= \nautoSyncMasterConfig=\n"
        for each in ("slaveId=3", text):
            expected = FollowerConfig(3, "meta-slave-group_3", 500, False, self.path)
            self.assertEqual(expected, self.load(FOLLOWER, each))
        expected = PairMasterConfig("h:1", False, 2000, 100, 100, self.path)
        self.assertEqual(expected, self.load(MASTER, "slave=h:1"))

    def test_values(self) -> None:
        """All keys."""
        found = self.load(
            FOLLOWER,
            "slaveId: 7\nslaveGroup g\nslaveMaxDelayInMills=1\nautoSyncMasterConfig=TRUE",
        )
        self.assertEqual(FollowerConfig(7, "g", 1, True, self.path), found)
        found = self.load(
            MASTER,
            "slave=[::1]:8124\nrecoverOffset=true\nsendToSlaveTimeoutInMills=1\n"
            "checkSlaveIntervalInMills=2\nslaveContinuousFailureThreshold=3\n"
            "recoverParallel=false\nrecoverParallelHint=2\ncallbackThreadCount=1",
        )
        self.assertEqual(PairMasterConfig("[::1]:8124", True, 1, 2, 3, self.path), found)
        self.assertEqual((), found.warnings)

    def test_names(self) -> None:
        """In the log, and for ``--check``."""
        found = self.load(FOLLOWER, "slaveId=3\nautoSyncMasterConfig=true")
        self.assertEqual("asynchronous slave 3", found.name)
        self.assertIn("group meta-slave-group_3, takes topics over", str(found))
        found = self.load(MASTER, "slave=h:1\nrecoverOffset=true")
        self.assertEqual("synchronous master", found.name)
        self.assertIn("synchronous master of h:1, corrects the offsets", str(found))

    def test_unknown_keys(self) -> None:
        """Are warnings with the nearest that is known."""
        found = self.load(FOLLOWER, "slaveId=0\nslavegroup=x\n")
        (warning,) = found.warnings
        self.assertIn("line 2, slavegroup: this key is unknown", warning)
        self.assertIn("do you mean slaveGroup?", warning)
        self.assertEqual(1, len(self.load(SLAVE, "slave=localhost:1").warnings))


class FaultTests(RolesTestCase):
    """What is refused: file, line, key, and what would be right."""

    def test_all_at_once(self) -> None:
        """In the order of their lines."""
        found = self.faults(
            FOLLOWER,
            "slaveId=-1\nslaveGroup=a/b\nslaveMaxDelayInMills=0\nautoSyncMasterConfig=yes\nx=\\u1\n",
        )
        for fault, expected in zip(
            found,
            (
                "line 1: slaveId: Could not start as a slave broker: an integer from 0 on",
                "line 2: slaveGroup: 'a/b' cannot be the name of a group",
                "line 3: slaveMaxDelayInMills: Invalid slaveMaxDelayInMills value: a number above",
                "line 4: autoSyncMasterConfig: true or false is needed, found yes",
                "line 5: Malformed",
            ),
            strict=True,
        ):
            self.assertTrue(fault.startswith(expected), fault)

    def test_slave_id(self) -> None:
        """Missing, blank, no integer, beyond 32 bits."""
        for text in ("", "slaveId=", "slaveGroup=g"):
            (fault,) = self.faults(FOLLOWER, text)
            self.assertIn("slaveId: this key is missing; an integer from 0 on", fault)
        for value in ("x", "1.5", "0x1", "2147483648", "9" * 5000, "1 2", "\u0661"):
            (fault,) = self.faults(FOLLOWER, f"slaveId={value}")
            self.assertIn("line 1: slaveId: Could not start as a slave broker", fault)

    def test_group(self) -> None:
        """Stands in commands and in paths."""
        for group in ("a b", "a\\tb", "/a", "..", ".", "g" * 300):
            (fault,) = self.faults(FOLLOWER, f"slaveId=0\nslaveGroup={group}")
            self.assertTrue(fault.startswith("line 2: slaveGroup: "), fault)

    def test_slave(self) -> None:
        """Missing, without a port, no host, the broker itself."""
        for value, expected in (
            ("", "Blank slave; <host>:<port>"),
            ("host", "host has no port from 1 to 65535"),
            ("host:", "has no port"),
            ("host:0", "has no port"),
            ("host:65536", "has no port"),
            ("host:8124x", "has no port"),
            (":8124", "nothing is no host"),
            ("a b:8124", "a b is no host"),
            ("localhost:8123", "is this broker's own address"),
            ("127.0.0.1:8123", "is this broker's own address"),
            ("[::1]:8123", "is this broker's own address"),
            ("broker0.example:8123", "is this broker's own address"),
        ):
            (fault,) = self.faults(MASTER, f"slave={value}")
            self.assertIn(f"slave: {expected}" if not value else expected, fault)
            self.assertIn("such as 10.0.0.2:8123", fault)
        self.load(MASTER, "slave=localhost:8124")
        self.load(MASTER, "slave=other.example:8123")

    def test_numbers_of_a_pair_master(self) -> None:
        """Above 0, also those that mean nothing here."""
        keys = (
            "sendToSlaveTimeoutInMills",
            "checkSlaveIntervalInMills",
            "slaveContinuousFailureThreshold",
            "callbackThreadCount",
            "recoverParallelHint",
        )
        for value in ("0", "-1", "x"):
            text = "".join(f"{key}={value}\n" for key in keys)
            found = self.faults(MASTER, f"slave=h:1\n{text}recoverParallel=1\nrecoverOffset=no")
            self.assertEqual(7, len(found))
            for key, fault in zip(keys, found, strict=False):
                self.assertIn(f"{key}: Invalid {key} value: a number above 0 is needed", fault)

    def test_missing_file(self) -> None:
        """Is named."""
        for kind in RoleKind:
            error = self.assertRaises(ConfigFaults, load_role, kind, "/nowhere/x", BROKER)
            self.assertIn("/nowhere/x", str(error))
        error = self.assertRaises(
            ConfigFaults, load_role, SLAVE, os.path.dirname(self.path), BROKER
        )
        self.assertIn("the file cannot be read: Is a directory", str(error))
