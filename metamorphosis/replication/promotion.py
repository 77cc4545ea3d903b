"""
The promotion of a slave of either kind to the master: the comparison before it, and the correction
of the consumers' positions. ``metaq promote`` without its command line.

The slave is stopped meanwhile; the lock of its data directory prevents a start. Its log does not
change: it is a prefix of the master's, and the messages beyond it can only be copied from the old
master.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from metamorphosis.cluster.model import Broker
from metamorphosis.cluster.paths import Paths
from metamorphosis.config.model import BrokerConfig
from metamorphosis.errors import MetaQError, NoNode
from metamorphosis.interfaces import IRegistry, IRuntime
from metamorphosis.replication.comparing import DirectorySide, Row, Side, compare_sides, side_of
from metamorphosis.replication.idsearch import Place, Position
from metamorphosis.replication.logs import PREFIXES, Verdict
from metamorphosis.replication.offsetrecovery import OffsetRecovery, Recovered


class StillRegistered(MetaQError):
    """The old master is in ZooKeeper, so it serves, or served until a moment ago."""


@dataclass(slots=True)
class Promotion:
    """
    The result of a promotion.

    :ivar rows: each partition here (A) and on the old master (B); None: it could not be compared.
    :ivar not_compared: the reason for that.
    :ivar recovered: the positions of the consumers.
    """

    rows: list[Row] | None = None
    not_compared: str = ""
    recovered: Recovered = field(default_factory=Recovered)

    def missing(self) -> list[str]:
        """One line for each log of the old master that has, or may have, more than the one here."""
        if self.rows is None:
            return [
                f"the old master was not compared: {self.not_compared}. What it acknowledged after"
                " the last copy, if anything, is missing here"
            ]
        return [line for row in self.rows if (line := _missing(row))]


def _missing(row: Row) -> str:
    name = f"{row.topic}-{row.number}"
    found = row.comparison
    if found is None or found.verdict not in (*PREFIXES, Verdict.DIFFERENT):
        return f"{name}: {row.verdict('this broker', 'the old master')}"
    if found.verdict is Verdict.DIFFERENT:
        return f"{name}: the old master has something else from offset {found.differs_at} on"
    if found.verdict is Verdict.B_AHEAD:
        end = found.a.end if found.a else 0
        return f"{name}: {found.ahead} bytes of the old master from offset {end} on are missing"
    return ""


def data_paths(config: BrokerConfig) -> list[str]:
    """Every directory that may hold partitions, each once."""
    paths = [config.data_path, *(topic.data_path for topic in config.topics.values())]
    return list(dict.fromkeys(path for path in paths if path))


async def refuse_if_registered(registry: IRegistry, paths: Paths, broker_id: int) -> None:
    """
    :raises StillRegistered: a master of that id is registered.
    :raises RegistryError: ZooKeeper does not reply.
    """
    path = paths.master(broker_id)
    try:
        data, _ = await registry.get(path)
    except NoNode:
        return
    url = (data or b"").decode("utf-8", "replace")
    raise StillRegistered(
        f"{url or 'a master'} is registered as broker {broker_id} ({path}). Stop it first; after a"
        " crash its node goes with the ZooKeeper session, within seconds"
    )


async def old_address(registry: IRegistry, paths: Paths, broker_id: int) -> str | None:
    """The last ``host:port`` of the old master, from its persistent node."""
    try:
        data, _ = await registry.get(paths.broker(broker_id))
        url = Broker.parse(broker_id, (data or b"").decode("utf-8", "replace")).url
    except (NoNode, ValueError):
        return None
    return url.removeprefix("meta://")


class Promoting:
    """
    One promotion. Thread: the loop's.

    :param registry: its results can be awaited by the caller.
    :param old: the old master: ``host:port`` or a data directory; None: the address in ZooKeeper.
    :param timeout: seconds to wait for it.
    """

    def __init__(
        self,
        runtime: IRuntime,
        registry: IRegistry,
        config: BrokerConfig,
        old: str | None,
        timeout: float,
    ) -> None:
        self._runtime = runtime
        self._registry = registry
        self._config = config
        self._paths = Paths(config.zookeeper.root)
        self._old = old
        self._timeout = timeout
        self._here = DirectorySide(*data_paths(config), name="this broker")

    async def run(
        self, change: bool = True, progress: Callable[[Row], object] = lambda row: None
    ) -> Promotion:
        """
        Compare, and correct the positions of the consumers.

        :param change: False: only report what would be done.
        :raises StillRegistered: the old master is registered.
        :raises MetaQError: ZooKeeper, or the data directory, cannot be read; or ``old`` was given
            and cannot be read.
        """
        await refuse_if_registered(self._registry, self._paths, self._config.broker_id)
        await self._here.open()
        promotion = Promotion()
        await self._compare(promotion, progress)
        # The comparison may take a while, and the old master may have come back meanwhile.
        await refuse_if_registered(self._registry, self._paths, self._config.broker_id)
        recovery = OffsetRecovery(
            self._registry,
            self._paths,
            self._config.broker_id,
            self._here.logs(),
            self._run_blocking,
        )
        promotion.recovered = await recovery.run(change)
        return promotion

    async def _compare(self, promotion: Promotion, progress: Callable[[Row], object]) -> None:
        old = self._old
        if old is None:
            old = await old_address(self._registry, self._paths, self._config.broker_id)
            if old is None:
                promotion.not_compared = "ZooKeeper does not say where it was"
                return
        side = side_of(self._runtime, old, self._timeout)
        try:
            promotion.rows = await self._rows(side, progress)
        except MetaQError as error:
            if self._old is not None:
                raise
            promotion.not_compared = str(error)
        finally:
            await side.close()

    async def _rows(self, side: Side, progress: Callable[[Row], object]) -> list[Row]:
        await side.open()
        rows = []
        async for row in compare_sides(self._here, side):
            rows.append(row)
            progress(row)
        return rows

    async def _run_blocking(
        self, searching: Callable[[], dict[Position, Place]]
    ) -> dict[Position, Place]:
        return searching()  # the process has no other work meanwhile
