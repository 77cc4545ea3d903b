"""The recorded sessions against the original and against ours."""

from __future__ import annotations

from compat import replay
from tests.support import peers, zookeeper


class OriginalReplayTests(replay.ReplayBehaviour):
    """The harness is right: the published original repeats what the recorded one did."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurReplayTests(replay.ReplayBehaviour):
    """Our broker does what the recorded original did; it needs no other software for that."""

    kind = peers.OurBroker

    def registry(self) -> zookeeper.ZooKeeperServer:
        """None."""
        return peers.no_zookeeper()
