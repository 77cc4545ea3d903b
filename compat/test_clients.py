"""The original Java client through the original broker, and through ours."""

from __future__ import annotations

from compat import behaviour, peers


class OriginalClientTests(
    behaviour.ExchangeBehaviour, behaviour.OffsetBehaviour, behaviour.RebalanceBehaviour
):
    """The harness is right: original client, original broker."""

    skip = peers.missing()
    kind = peers.JavaBroker


class OurClientTests(
    behaviour.ExchangeBehaviour, behaviour.OffsetBehaviour, behaviour.RebalanceBehaviour
):
    """The original client does not notice that the broker is ours."""

    skip = peers.missing()
    kind = peers.OurBroker
