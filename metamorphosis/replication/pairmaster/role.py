"""
The role of the synchronous master: its parts, and their connections.

    connection ──> Syncs <── PairedLog (one a partition) <── hot path, PairPuts
        │            │
        └─> Joining ─┴─> Withdrawal ──> registration

Source: ``SamsaMasterBroker``. Differs: the original waits up to 80 s for its slave before it
listens, and then registers without one and refuses every put.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.replication.logs import LogEnds
from metamorphosis.replication.pairmaster.connection import SlaveConnection
from metamorphosis.replication.pairmaster.firstjoin import FirstJoin
from metamorphosis.replication.pairmaster.joining import Joining
from metamorphosis.replication.pairmaster.pairedlog import PairedLog
from metamorphosis.replication.pairmaster.pairedlogs import PairedLogs
from metamorphosis.replication.pairmaster.puts import PairPuts
from metamorphosis.replication.pairmaster.standing import Standing
from metamorphosis.replication.pairmaster.syncs import Syncs
from metamorphosis.replication.pairmaster.withdrawal import Visibility, Withdrawal
from metamorphosis.replication.peer import Heartbeats, Peer
from metamorphosis.replication.role import Attached, Registers
from metamorphosis.replication.status import PartitionFigures, RoleFigures, status_lines

if TYPE_CHECKING:
    from metamorphosis.config.model import BrokerConfig, Settings
    from metamorphosis.config.roles import PairMasterConfig
    from metamorphosis.interfaces import IRuntime

HEARTBEATS: Final = Heartbeats(idle_ms=5000, timeout_ms=5000, failures=3)
"""A slave that hangs is noticed much earlier by the time limits of the puts; heartbeats detect a
link that drops all packets."""

REFUSING: Final = "the slave acknowledges no put, and is probed"
"""The reason why a joined partition stands."""


class PairMaster:
    """
    See ``Role``. Thread: reactor.

    :param runtime: None: that of the reactor; tests pass their own.
    """

    name = "synchronous master"
    slave_id = None
    registers = Registers.WHEN_TOLD
    has_transactions = False

    _log = Logger()

    def __init__(self, config: PairMasterConfig, runtime: IRuntime | None = None) -> None:
        self._config = config
        self._url = f"meta://{config.slave}"
        self._runtime = runtime
        self.syncs: Syncs
        self.logs: PairedLogs
        self.joining: Joining
        self.withdrawal: Withdrawal
        self.peer: Peer

    def attach(self, parts: Attached) -> None:
        """See ``Role``."""
        runtime = self._runtime or TwistedRuntime(parts.reactor)
        config, settings, responders = self._config, parts.settings, parts.responders
        seconds = config.send_timeout_ms / 1000
        self.syncs = Syncs(runtime, parts.turn.store_dirty, seconds, settings.max_waiting_bytes)
        make = partial(SlaveConnection, syncs=self.syncs, turn=parts.turn, adopt=parts.adopt)
        self.peer = Peer(runtime, self._url, HEARTBEATS, make=make)
        self.logs = PairedLogs(responders, self.syncs)
        first = FirstJoin(runtime, parts, config.recovers_offsets, self._may_be_seen)
        self.joining = Joining(runtime, self.peer, self.syncs, self.logs, parts.ids, first.joined)
        self.withdrawal = Withdrawal(
            runtime,
            parts.presence.registration,
            self.syncs,
            parts.ids,
            config.failure_threshold,
            config.check_interval_ms / 1000,
            settings.probe_topic,
            self._takes_puts,
        )
        puts = PairPuts(responders, self.logs, self.syncs, self._url, self._is_joined)
        responders.dispatch.replace(puts.table())
        responders.figures.replication = lambda: status_lines(self.figures())
        self.peer.on_change(self._changed)

    def _is_joined(self) -> bool:
        return self.joining.is_joined

    def _takes_puts(self) -> bool:
        return self.joining.takes_puts

    def start(self) -> None:
        """See ``Role``."""
        self.peer.start()

    def stop(self) -> Deferred[None]:
        """See ``Role``."""
        self.withdrawal.stop()
        self.joining.is_broken = True  # the end of the connection is not an alarm
        closed: Deferred[None] = self.peer.close()  # type: ignore[assignment]
        return closed

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """See ``Role``: the slave may have the same topics now."""
        if self.joining.is_joined:
            self.joining.look_at_diverged()

    def figures(self) -> RoleFigures:
        """The present state of the pair."""
        now = self.syncs.now()
        refusing = "" if self.withdrawal.state is not Visibility.PROBING else REFUSING
        return RoleFigures(
            role=self.name,
            state=self.withdrawal.state.name.lower(),
            other=self._url,
            connected=self.syncs.is_connected,
            registered=self.withdrawal.state is Visibility.PRESENT,
            failures=self.syncs.failures,
            waiting_records=self.syncs.under_way,
            waiting_bytes=self.syncs.waiting,
            partitions=tuple(_partition(log, now, refusing) for log in self.logs),
        )

    def _changed(self, connected: bool) -> None:
        if connected:
            self.withdrawal.connected()
            self.joining.connected()
            return
        fault = self.peer.fault
        self.withdrawal.lost()
        self.joining.lost("the connection was lost" if fault is None else fault.reason)

    def _may_be_seen(self) -> None:
        if self.joining.takes_puts:
            self.withdrawal.joined()


def _partition(log: PairedLog, now: float, refusing: str) -> PartitionFigures:
    own = LogEnds(log.store.min_offset, log.store.next_offset)
    joined = log.standing is Standing.JOINED
    return PartitionFigures(
        topic=log.topic,
        number=log.partition,
        own=own,
        other_end=own.end if joined else None,
        seconds=0.0 if log.apart_since is None else now - log.apart_since,
        state=log.standing.name.lower(),
        stands=refusing if joined else log.reason,
    )
