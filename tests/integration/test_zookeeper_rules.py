"""Debian's ZooKeeper and ours keep the same rules, and ours does not copy known faults."""

from __future__ import annotations

from tests.integration import zookeeperrules
from tests.support import zookeeper
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.zookeeper import ZooKeeperServer


class DebianRules:
    """The original keeps the rules: a check of the rules."""

    skip = zookeeper.missing()
    server_kind = ZooKeeperServer


class EmbeddedRules:
    """Ours keeps them, too."""

    server_kind = EmbeddedZooKeeper


class DebianZxidTests(DebianRules, zookeeperrules.ZxidRules):
    """Zxids, on Debian's."""


class DebianNodeTests(DebianRules, zookeeperrules.NodeRules):
    """Names, data, results, on Debian's."""


class DebianWatchTests(DebianRules, zookeeperrules.WatchRules):
    """Watches on Debian's."""


class DebianOrderTests(DebianRules, zookeeperrules.OrderRules):
    """Several clients on Debian's."""


class DebianSessionTests(DebianRules, zookeeperrules.SessionRules):
    """Sessions on Debian's."""


class DebianVersionTests(DebianRules, zookeeperrules.VersionRules):
    """Properties that depend on the version, on Debian's."""


class EmbeddedZxidTests(EmbeddedRules, zookeeperrules.ZxidRules):
    """Zxids, on ours."""


class EmbeddedNodeTests(EmbeddedRules, zookeeperrules.NodeRules):
    """Names, data, results, on ours."""


class EmbeddedWatchTests(EmbeddedRules, zookeeperrules.WatchRules):
    """Watches on ours."""


class EmbeddedOrderTests(EmbeddedRules, zookeeperrules.OrderRules):
    """Several clients on ours."""


class EmbeddedSessionTests(EmbeddedRules, zookeeperrules.SessionRules):
    """Sessions on ours."""


class EmbeddedVersionTests(EmbeddedRules, zookeeperrules.VersionRules):
    """Properties that depend on the version, on ours."""
