"""A published topic, as its producers see it."""

from __future__ import annotations

from metamorphosis.client.model import Partition
from metamorphosis.client.network.connection import BrokerConnection
from metamorphosis.client.network.flow import Event
from metamorphosis.errors import NoPartition
from metamorphosis.interfaces import IRuntime, Timer


class PublishedTopic:
    """
    A published topic, shared by all producers of a session, which read it and do not change it.

    :ivar listed: all partitions that ZooKeeper lists, sorted by number; the broker of one may be
        missing in ``brokers``. Keys choose from these, so that a lost connection moves no key.
    :ivar partitions: of these, the ones that selectors choose from now: those whose broker is
        connected; if there are none, those whose broker has an address; else all.
    :ivar brokers: broker id -> its connection, open or not.
    """

    __slots__ = (
        "absence",
        "again",
        "brokers",
        "failures",
        "known",
        "listed",
        "looked_at",
        "looking",
        "name",
        "partitions",
        "timer",
        "urls",
        "users",
    )  # fmt: skip

    def __init__(self, runtime: IRuntime, name: str) -> None:
        self.name = name
        self.listed: tuple[Partition, ...] = ()
        self.absence: NoPartition | None = None  # the reason why there are none
        self.looked_at = 0.0
        self.partitions: tuple[Partition, ...] = ()
        self.brokers: dict[int, BrokerConnection] = {}
        self.urls: dict[int, str] = {}
        self.users: set[int] = set()  # by id, see ``connections``
        self.known = Event(runtime)  # has been read once
        self.looking = False
        self.again = False  # it changed while it was being read
        self.failures = 0
        self.timer: Timer | None = None

    def choose_from(self) -> None:
        """Compute ``partitions`` again, after a change of a connection or of the list."""
        brokers = self.brokers
        near = [each for each in self.listed if each[0] in brokers]
        connected = [each for each in near if brokers[each[0]].is_connected]
        self.partitions = tuple(connected or near or self.listed)
