"""The settings and connections that the parts of one member of a group share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from metamorphosis.client.network.flow import Event
from metamorphosis.client.network.links import Log
from metamorphosis.client.settings import ConsumerConfig
from metamorphosis.cluster.paths import Paths
from metamorphosis.interfaces import IRegistry, IRuntime


@dataclass(frozen=True, slots=True)
class Member:
    """
    One member. Thread: the loop's.

    :ivar consumer_id: its name in ZooKeeper.
    :ivar topics: the subscribed topics; they may change.
    :ivar wake: set when the lists, the session or the subscriptions may have changed.
    :ivar closing: set when the member leaves.
    """

    runtime: IRuntime
    registry: IRegistry
    paths: Paths
    config: ConsumerConfig
    consumer_id: str
    topics: Iterable[str]
    log: Log
    wake: Event
    closing: Event

    @property
    def group(self) -> str:
        """The name of the group."""
        return self.config.group
