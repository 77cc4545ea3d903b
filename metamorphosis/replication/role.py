"""
What a broker is besides a plain one: what the daemon asks of a role, and what it gives it.

``daemon.service`` starts a role last, when the port is open and the registration has begun, and
stops it first. Between, a role answers some commands in the place of the plain broker
(``Dispatch.replace``, ``Routes``), and does the work of its own.

Source: ``BrokerPlugin``, ``MetamorphosisSlaveBroker``, ``SamsaMasterBroker``,
``GregorSlaveBroker``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from metamorphosis.broker.responders import Responders
    from metamorphosis.broker.turn import Turn
    from metamorphosis.cluster.model import Broker
    from metamorphosis.cluster.presence import Presence
    from metamorphosis.config.model import BrokerConfig, Settings
    from metamorphosis.ids import MessageIds
    from metamorphosis.interfaces import IWorkerThreads
    from metamorphosis.store.messagestores import MessageStores

SLAVE = "The broker is a slave,put is not allowed"
"""The answer to a put, of every slave; status 403."""


JOINING_GROUP = "metamorphosis-joining"
"""The group in which a pair master asks where a log ends before it sends what that lacks; see
``pairslave.unbroken``."""


class Registers(Enum):
    """When a broker of a role is in ZooKeeper."""

    AT_START = "like any broker"
    WHEN_TOLD = "after ``BrokerRegistration.resume``; the session is there from the start"
    NEVER = "as with zk.zkEnable=false, whatever server.ini says"


@dataclass(frozen=True, slots=True)
class Attached:
    """
    What a role works with: the parts of its broker. Thread: reactor.

    :ivar config: of the start; ``Role.reconfigure`` brings later ones.
    :ivar settings: likewise.
    :ivar broker: id and published address.
    :ivar responders: dispatch, routes, rules, statistics, figures and long polls.
    :ivar threads: for what blocks on a disk.
    :ivar turn: commits the stores, and drains the connections.
    :ivar presence: session and registration.
    :ivar reload: reads ``server.ini`` again, as the signal does.
    """

    reactor: Any
    config: BrokerConfig
    settings: Settings
    broker: Broker
    responders: Responders
    stores: MessageStores
    ids: MessageIds
    threads: IWorkerThreads
    turn: Turn
    presence: Presence
    reload: Callable[[], None]


class Role(Protocol):
    """
    Providers: ``Plain``, and the ``role`` modules of ``follower``, ``pairmaster`` and
    ``pairslave``. Thread: reactor.

    :ivar name: for the log: "asynchronous slave 0"; empty for a plain broker.
    :ivar slave_id: of the broker's nodes in ZooKeeper; None: a master's.
    :ivar has_transactions: without them the journal is neither replayed nor written, and one that
        holds anything unfinished refuses the start.
    """

    @property
    def name(self) -> str: ...

    @property
    def slave_id(self) -> int | None: ...

    @property
    def registers(self) -> Registers: ...

    @property
    def has_transactions(self) -> bool: ...

    def attach(self, parts: Attached) -> None:
        """Take commands over. Called once, before the port opens."""

    def start(self) -> Deferred[None] | None:
        """Begin to work: the port is open, and the registration has begun."""

    def stop(self) -> Deferred[None] | None:
        """End the work: the port is closed, and the clients have their replies. Only called after
        ``start``."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """A reload was applied everywhere else."""


class Plain:
    """A broker that does nothing besides serving; its replies and its speed are those of a broker
    without roles."""

    name = ""
    slave_id = None
    registers = Registers.AT_START
    has_transactions = True

    def attach(self, parts: Attached) -> None:
        """Every command is answered by the responders."""

    def start(self) -> None:
        """There is no other work."""

    def stop(self) -> None:
        """Likewise."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """Likewise."""


PLAIN = Plain()
"""It has no state."""
