"""
The role of an asynchronous slave: it copies the partitions that the master of its broker id offers
to consumers, and serves them.

``cluster`` finds the master and its topics. Each master address has one ``Peer``, and each
partition of both brokers has one ``PartitionCopy``. A partition that our ``server.ini`` does not
have is *lacking*: it is logged, and copied when a reload adds it.

Source: ``MetamorphosisSlaveBroker``, ``SubscribeHandler``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from metamorphosis.client.network.flow import Slots, settle
from metamorphosis.client.runtimes.tx import TwistedRuntime
from metamorphosis.cluster.paths import Paths
from metamorphosis.cluster.presence import VISIBLE
from metamorphosis.config.model import OnDivergence
from metamorphosis.errors import PeerError
from metamorphosis.interfaces import IRuntime, Timer
from metamorphosis.replication.follower.budget import Budget
from metamorphosis.replication.follower.cluster import GroupMember, MasterView, MasterWatch
from metamorphosis.replication.follower.configsync import ConfigSync
from metamorphosis.replication.follower.copying import Pace
from metamorphosis.replication.follower.fetched import FETCH_BYTES
from metamorphosis.replication.follower.ownlog import OwnLog
from metamorphosis.replication.follower.partition import Following, PartitionCopy
from metamorphosis.replication.follower.serving import Serving
from metamorphosis.replication.follower.standing import figures_of, lacking_figures
from metamorphosis.replication.peer import Peer
from metamorphosis.replication.role import Attached, Registers
from metamorphosis.replication.status import RoleFigures, status_lines

if TYPE_CHECKING:
    from metamorphosis.config.model import BrokerConfig, Settings
    from metamorphosis.config.roles import FollowerConfig

COMPARISONS: Final = 16
"""Limit of comparisons at a time."""

LOOK_SECONDS: Final = 5.0
"""Between two requests for the end of the master's log, for partitions that are not level."""

LEAST_POLL_BYTES: Final = 4096

SHOWN: Final = 5

Key = tuple[str, int]


class Follower:
    """
    See ``Role``. Thread: reactor.

    :param runtime: for tests; None: the reactor's.
    """

    registers = Registers.AT_START
    has_transactions = False

    def __init__(self, config: FollowerConfig, runtime: IRuntime | None = None) -> None:
        self.name = config.name
        self.slave_id = config.slave_id
        self._config = config
        self._given = runtime
        self._peer: Peer | None = None
        self._copies: dict[Key, PartitionCopy] = {}
        self._logs: dict[Key, OwnLog] = {}
        self._lacking: dict[Key, str] = {}  # why partitions of the master are not copied
        self._timer: Timer | None = None
        self._closing: list[Awaitable[None]] = []
        self._checksum: bytes | None = None
        self._stopped = False

    # Role

    def attach(self, parts: Attached) -> None:
        """See ``Role``: puts are refused."""
        self._parts = parts
        self._runtime: IRuntime = self._given or TwistedRuntime(parts.reactor)
        self._log = self._runtime.logger(__name__)
        self._serving = Serving(parts.responders)
        self._pace = Pace(
            Budget(max(parts.settings.max_waiting_bytes, 2 * FETCH_BYTES)),
            self._config.max_delay_ms / 1000,
            parts.settings.max_body_bytes,
        )
        self._lanes = Slots(self._runtime, COMPARISONS)
        parts.responders.figures.slave = True
        parts.responders.figures.replication = lambda: status_lines(self.figures())
        paths = Paths(parts.config.zookeeper.root)
        registry = parts.presence.registry
        self._watch = MasterWatch(
            self._runtime,
            registry,
            paths,
            parts.config.broker_id,
            GroupMember(registry, paths, self._config.group),
            self._changed,
            self._log,
        )
        self._sync = ConfigSync(self._runtime, parts.config.path, parts.reload, self._log)

    def start(self) -> None:
        """See ``Role``."""
        if not self._parts.config.zookeeper.enable:
            self._log.error("zk.zkEnable=false: an asynchronous slave finds no master")
        self._watch.start()
        self._look_later()

    def stop(self) -> Deferred[None]:
        """See ``Role``."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._close_peer()
        await self._watch.stop()
        await settle(self._closing)

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """See ``Role``: topics may have been added."""
        self._assign(self._watch.view)

    # The master

    def _changed(self, view: MasterView) -> None:
        """Apply a changed view of the master."""
        if view.url is not None and (self._peer is None or self._peer.url != view.url):
            self._close_peer()
            self._open_peer(view.url)
        elif view.checksum is not None and view.checksum != self._checksum:
            self._sync_config()
        self._checksum = view.checksum
        self._assign(view)

    def _open_peer(self, url: str) -> None:
        self._log.info("The master is {url}", url=url)
        peer = Peer(self._runtime, url)
        self._peer = peer
        self._following = Following(
            self._runtime,
            peer,
            self._config.group,
            self._pace,
            self._lanes,
            self._log,
            self._parts.settings.on_divergence is OnDivergence.COPY_AGAIN,
            self._copied,
            self._serving.show,
        )
        peer.on_change(partial(self._connection_changed, peer))
        peer.start()

    def _close_peer(self) -> None:
        """End all copying."""
        self._sync.stop()
        for copy in self._copies.values():
            copy.stop()
        self._copies.clear()
        peer, self._peer = self._peer, None
        if peer is not None:
            self._closing.append(peer.close())

    def _connection_changed(self, peer: Peer, connected: bool) -> None:
        if peer is not self._peer:
            return
        for copy in list(self._copies.values()):
            if connected:
                copy.connected()
            else:
                copy.lost()
        if connected:
            self._sync_config()

    def _sync_config(self) -> None:
        if self._config.syncs_config and self._peer is not None and self._peer.is_connected:
            self._sync.sync(self._peer)

    # Partitions

    def _assign(self, view: MasterView) -> None:
        """
        Copy the partitions that both brokers have. Without a master in ZooKeeper the present copies
        continue: the master may only be unregistered, or restarting.
        """
        peer = self._peer
        if peer is None:
            return
        offered = {(topic, n) for topic, count in view.topics.items() for n in range(count)}
        lacking = {key: why for key in sorted(offered) if (why := self._why_lacking(*key))}
        if lacking != self._lacking:
            self._lacking = lacking
            self._tell_lacking()
        for key in sorted(self._copies.keys() - (offered - lacking.keys())):
            if key in lacking or view.url is not None:
                self._copies.pop(key).stop()
        for key in sorted(offered - lacking.keys() - self._copies.keys()):
            if key not in self._logs:
                self._logs[key] = OwnLog(self._parts.responders, *key)
            copy = self._copies[key] = PartitionCopy(self._following, self._logs[key])
            if peer.is_connected:
                copy.connected()
        share = self._pace.budget.total // 2 // max(len(self._copies), 1)
        self._pace.poll_bytes = min(max(share, LEAST_POLL_BYTES), FETCH_BYTES)

    def _why_lacking(self, topic: str, partition: int) -> str:
        """The reason why a partition of the master is not configured here; empty if it is."""
        rules = self._parts.responders.rules
        if not rules.accepts(topic):
            return f"there is no section [topic={topic}] in server.ini"
        count = rules.partition_count(topic)
        return "" if partition < count else f"[topic={topic}] numPartitions is {count}"

    def _tell_lacking(self) -> None:
        reasons = sorted(set(self._lacking.values()))
        if reasons:
            self._log.error(
                "{count} partitions of the master are not copied until a reload brings them: {why}",
                count=len(self._lacking),
                why="; ".join(reasons[:SHOWN]) + ("; and more" if len(reasons) > SHOWN else ""),
            )
        else:
            self._log.info("Every partition of the master is copied")

    def _copied(self, records: int) -> None:
        self._parts.responders.statistics.cmd_put += records

    # State

    def _look_later(self) -> None:
        if not self._stopped:
            self._timer = self._runtime.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Ask for the ends of the master's logs, for the figures of the lag."""
        self._runtime.start(self._look_at_all())

    async def _look_at_all(self) -> None:
        for copy in list(self._copies.values()):
            if self._peer is None or not self._peer.is_connected:
                break
            if not copy.is_level:
                try:
                    await copy.look()
                except PeerError:
                    break
        self._look_later()

    def figures(self) -> RoleFigures:
        """For ``stats replication`` and the pages."""
        connected = self._peer is not None and self._peer.is_connected
        return RoleFigures(
            role=self.name,
            state="following" if connected else "waiting",
            other=None if self._peer is None else self._peer.url,
            connected=connected,
            registered=self._parts.presence.registration.status in VISIBLE,
            partitions=(
                *map(figures_of, self._copies.values()),
                *(lacking_figures(*key, why) for key, why in self._lacking.items()),
            ),
            notes=(f"server.ini: {self._sync.fault}",) if self._sync.fault else (),
        )
