"""
The role of the slave of a synchronous pair: it stores what its master sends, takes nothing from
anybody else, and is not in ZooKeeper.

Source: ``GregorSlaveBroker``. Differs: the original takes puts, connects to ZooKeeper, and deletes
the topics of a master that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.errors import Forbidden
from metamorphosis.replication.role import SLAVE, Attached, Registers
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

    def attach(self, parts: Attached) -> None:
        """Refuse puts."""
        parts.responders.dispatch.replace({wire.PutCommand: self._refuse})

    def start(self) -> None:
        """The master begins."""

    def stop(self) -> None:
        """What is in flight is answered when the port closes."""

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """The rules know it."""

    def _refuse(self, command: wire.PutCommand, session: Session) -> None:
        raise Forbidden(SLAVE)
