"""The parts of a broker that serves, for those that look at it: dashboard, plugins, tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamorphosis.broker.factory import BrokerFactory
    from metamorphosis.broker.figures import FigureSource
    from metamorphosis.broker.responders import Responders
    from metamorphosis.cluster.model import Broker
    from metamorphosis.cluster.registration import BrokerRegistration
    from metamorphosis.ids import MessageIds
    from metamorphosis.interfaces import IRegistry
    from metamorphosis.store.messagestores import MessageStores
    from metamorphosis.store.retention import Retention
    from metamorphosis.transactions.service import TransactionService


@dataclass(frozen=True, slots=True)
class Stored:
    """
    The parts that ``BrokerStorage`` has built. Thread: reactor.

    :ivar ids: gives message ids.
    :ivar stores: every partition.
    :ivar journal: of the transactions, and the open ones; None in a role without them.
    :ivar retention: deletes what is old.
    """

    ids: MessageIds
    stores: MessageStores
    journal: TransactionService | None
    retention: Retention


@dataclass(frozen=True, slots=True)
class Served:
    """
    The parts that answer clients. Thread: reactor.

    :ivar broker: id and published address.
    :ivar responders: answer commands.
    :ivar factory: has the port and the connections.
    """

    broker: Broker
    responders: Responders
    factory: BrokerFactory


@dataclass(frozen=True, slots=True)
class Built:
    """
    A broker that serves, from the end of its start to the end of its process. Thread: reactor.

    :ivar registry: the session with ZooKeeper.
    :ivar registration: keeps the broker in it; withdraws and resumes.
    """

    stored: Stored
    served: Served
    registry: IRegistry
    registration: BrokerRegistration

    @property
    def figures(self) -> FigureSource:
        """For every reader of figures."""
        return self.served.responders.figures
