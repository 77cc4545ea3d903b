"""The recorded sessions against the original and against ours."""

from __future__ import annotations

from compat import replay
from tests.support import peers, zookeeper


class OriginalReplayTests(replay.ReplayBehaviour):
    """The published original behaves as the recorded one: a check of the harness."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurReplayTests(replay.ReplayBehaviour):
    """Our broker behaves as the recorded original, without other software."""

    kind = peers.OurBroker

    def registry(self) -> zookeeper.ZooKeeperServer:
        """None."""
        return peers.no_zookeeper()
