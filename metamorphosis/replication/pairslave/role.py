"""
The role of the slave of a synchronous pair: it stores the records of its master only, and is not in
ZooKeeper.

Source: ``GregorSlaveBroker``. Differs: the original accepts puts, connects to ZooKeeper, and
deletes the topics of a running master.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.errors import Forbidden
from metamorphosis.replication.logs import LogEnds
from metamorphosis.replication.pairslave.probes import DiskLook
from metamorphosis.replication.pairslave.records import Records
from metamorphosis.replication.pairslave.takeover import Takeover
from metamorphosis.replication.role import SLAVE, Attached, Registers
from metamorphosis.replication.status import PartitionFigures, RoleFigures, status_lines
from metamorphosis.wire import commands as wire

if TYPE_CHECKING:
    from metamorphosis.broker.session import Session
    from metamorphosis.config.model import BrokerConfig, Settings
    from metamorphosis.config.roles import PairSlaveConfig


class PairSlave:
    """See ``Role``. Thread: reactor."""

    slave_id = None
    registers = Registers.NEVER
    has_transactions = False

    def __init__(self, config: PairSlaveConfig) -> None:
        self.name = config.name
        self._parts: Attached
        self._takeover: Takeover

    def attach(self, parts: Attached) -> None:
        """See ``Role``: accept records, and refuse puts."""
        self._parts = parts
        self._takeover = Takeover(parts.reactor)
        records = Records(parts, self._takeover, DiskLook(parts.threads))
        responders = parts.responders
        responders.dispatch.replace(records.table())
        responders.dispatch.replace({wire.PutCommand: self._refuse})
        responders.figures.replication = lambda: status_lines(self.figures())

    def start(self) -> None:
        """No work to begin: the master connects."""

    def stop(self) -> None:
        """No work to end: pending records are answered when the port closes."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """No settings to take: the rules know closed partitions, and clear the routes."""

    def figures(self) -> RoleFigures:
        """The master's end is unknown: the master is never asked for it."""
        master = self._takeover.host
        return RoleFigures(
            role=self.name,
            state="alone" if master is None else "paired",
            other=master,
            connected=master is not None,
            registered=False,
            partitions=tuple(
                PartitionFigures(
                    store.topic,
                    store.partition,
                    LogEnds(store.min_offset, store.next_offset),
                    state="storing",
                )
                for store in self._parts.stores
            ),
        )

    def _refuse(self, command: wire.PutCommand, session: Session) -> None:
        self._parts.responders.statistics.count_puts(command.topic, 1, len(command.body))
        raise Forbidden(SLAVE)
