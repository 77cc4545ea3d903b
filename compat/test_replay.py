"""The recorded sessions against the original and against ours."""

from __future__ import annotations

from compat import peers, replay
from tests.integration import zookeeper


class OriginalReplayTests(replay.ReplayBehaviour):
    """The harness is right: the published original repeats what the recorded one did."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurReplayTests(replay.ReplayBehaviour):
    """Our broker does what the recorded original did."""

    skip = zookeeper.missing()
    kind = peers.OurBroker
