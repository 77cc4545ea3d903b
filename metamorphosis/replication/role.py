"""
The interface between the daemon and the roles of a broker.

``daemon.service`` starts a role last, when the port is open and the registration has begun, and
stops it first. In between a role replaces the responders of some commands (``Dispatch.replace``,
``Routes``), and does its own work.

Source: ``BrokerPlugin``, ``MetamorphosisSlaveBroker``, ``SamsaMasterBroker``,
``GregorSlaveBroker``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from metamorphosis.broker.sockets import Line, NoLine

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
"""The reply to a put, of every slave; status 403."""


JOINING_GROUP = "metamorphosis-joining"
"""The group in which a pair master asks where a log ends before it sends what that lacks; see
``pairslave.unbroken``."""


Adopt = Callable[[Any, Callable[[bytes], bool], Callable[[], bool]], Line]
"""See ``BrokerSockets.adopt``."""


class Registers(Enum):
    """The time at which a broker of a role registers in ZooKeeper."""

    AT_START = "like any broker"
    WHEN_TOLD = "after ``BrokerRegistration.resume``; the session is there from the start"
    NEVER = "as with zk.zkEnable=false, whatever server.ini says"


@dataclass(frozen=True, slots=True)
class Attached:
    """
    The parts of the broker that a role works with. Thread: reactor.

    :ivar config: of the start; ``Role.reconfigure`` gets later ones.
    :ivar settings: likewise.
    :ivar broker: id and published address.
    :ivar responders: dispatch, routes, rules, statistics, figures and long polls.
    :ivar threads: for work that blocks on a disk.
    :ivar turn: commits the stores, and drains the connections.
    :ivar presence: session and registration.
    :ivar reload: reloads ``server.ini``, as the signal does.
    :ivar adopt: serves the socket of a connection to another broker in the same turn as those of
        the clients, see ``BrokerSockets.adopt``; after ``Role.start``.
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
    adopt: Adopt = lambda transport, take, is_expected: NoLine()


class Role(Protocol):
    """
    Providers: ``Plain``, and the ``role`` modules of ``follower``, ``pairmaster`` and
    ``pairslave``. Thread: reactor.

    :ivar name: for the log: "asynchronous slave 0"; empty for a plain broker.
    :ivar slave_id: of the broker's nodes in ZooKeeper; None: a master's.
    :ivar has_transactions: False: the journal is neither replayed nor written, and a journal with
        an unfinished transaction refuses the start.
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
        """Replace responders of commands. Called once, before the port opens."""

    def start(self) -> Deferred[None] | None:
        """Begin the work: the port is open, and the registration has begun."""

    def stop(self) -> Deferred[None] | None:
        """End the work: the port is closed, and the clients have their replies. Only called after
        ``start``."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """Take a new configuration, after all other parts have it."""


class Plain:
    """The role of a broker that only serves; it changes neither replies nor speed."""

    name = ""
    slave_id = None
    registers = Registers.AT_START
    has_transactions = True

    def attach(self, parts: Attached) -> None:
        """The responders of all commands stay."""

    def start(self) -> None:
        """No work to begin."""

    def stop(self) -> None:
        """No work to end."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """No settings to take."""


PLAIN = Plain()
"""The only instance; it has no state."""
