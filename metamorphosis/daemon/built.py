"""
The objects that the parts of a broker have built, as frozen values for the parts that start later.

A role gets the same parts as ``replication.role.Attached``, the administration as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metamorphosis.broker.factory import BrokerFactory
    from metamorphosis.broker.responders import Responders
    from metamorphosis.cluster.model import Broker
    from metamorphosis.ids import MessageIds
    from metamorphosis.store.messagestores import MessageStores
    from metamorphosis.store.retention import Retention
    from metamorphosis.transactions.service import TransactionService


@dataclass(frozen=True, slots=True)
class Stored:
    """
    The parts that ``BrokerStorage`` has built. Thread: reactor.

    :ivar ids: gives message ids.
    :ivar stores: every partition.
    :ivar journal: the transactions and their journal; None in a role without them.
    :ivar retention: deletes or archives old segments.
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
    :ivar factory: owns the port and the connections.
    """

    broker: Broker
    responders: Responders
    factory: BrokerFactory
