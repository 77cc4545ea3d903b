"""``metaq promote``: makes a stopped slave ready to be the master."""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING

from metamorphosis.cli.compare import as_text
from metamorphosis.cli.console import Console
from metamorphosis.cluster.paths import Paths
from metamorphosis.config import serverini
from metamorphosis.config.model import BrokerConfig
from metamorphosis.daemon.directorylock import DirectoryLock
from metamorphosis.errors import DirectoryLocked, MetaQError
from metamorphosis.replication.comparing import Row
from metamorphosis.replication.promotion import (
    Promoting,
    Promotion,
    data_paths,
    refuse_if_registered,
)

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory


HEADS = ("this broker", "the old master")


def read_configuration(options: Namespace) -> None:
    """
    Read ``server.ini``, and set the options for its cluster.

    :raises ConfigError: the file is faulty.
    """
    options.server = serverini.load(options.config)
    options.zookeeper = options.server.zookeeper.connect
    options.root = options.server.zookeeper.root or "/"
    options.broker = None


async def promote(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Report missing messages, correct the positions of consumers, name the command to start.

    :raises MetaQError: the master is still registered, or a node or log cannot be read.
    """
    config: BrokerConfig = options.server
    registry = session.registry
    assert registry is not None  # set together with ``zookeeper``
    await refuse_if_registered(registry, Paths(config.zookeeper.root), config.broker_id)
    with ExitStack() as held:
        for path in data_paths(config):
            held.callback(_locked(path).release)
        promoting = Promoting(session.runtime, registry, config, options.old, options.timeout)
        promotion = await promoting.run(not options.check, lambda row: _progress(console, row))
        console.clear_progress()
    for line in report(promotion, config, options.check):
        await console.print(line, False)
    if promotion.recovered.faults:
        raise MetaQError("not all positions of consumers could be looked at; run it again")


def _locked(path: str) -> DirectoryLock:
    lock = DirectoryLock(path)
    try:
        lock.acquire()
    except DirectoryLocked as error:
        raise MetaQError(f"{error}; stop the slave first, then promote it") from None
    return lock


def _progress(console: Console, row: Row) -> None:
    console.progress(f"compared: {row.topic}-{row.number}")


def report(promotion: Promotion, config: BrokerConfig, only_check: bool) -> list[str]:
    """The lines of the whole run."""
    lines = [] if not promotion.rows else [as_text(promotion.rows, HEADS), ""]
    missing = promotion.missing()
    lines += [f"May be missing: {line}" for line in missing]
    if not missing:
        lines.append("Nothing is missing: the old master has no message that is not here.")
    verb = "would be corrected" if only_check else "corrected"
    recovered = promotion.recovered
    lines += [f"Offset {verb}: {change}" for change in recovered.changes]
    lines += [f"Offset not looked at: {fault}" for fault in recovered.faults]
    counts = f"{len(recovered.changes)} {verb}, {recovered.right} right as they are"
    lines += [f"Offsets of consumers: {counts}.", ""]
    return lines + _next_steps(config, only_check, bool(missing))


def _next_steps(config: BrokerConfig, only_check: bool, missing: bool) -> list[str]:
    if only_check:
        return ["Nothing was changed. Run the same without --check to promote this broker."]
    lines = [
        "Start it as the master, with the same server.ini:",
        f"    twistd metaq -f {config.path}",
        "or, with a slave that must have everything before a producer is answered:",
        f"    twistd metaq -f {config.path} --samsa FILE",
    ]
    if not config.zookeeper.enable:
        lines.append("Before that set zk.zkEnable=true, or no client will find it.")
    lines.append(
        "The old master must not be started as a master again. Before it comes back as a slave,"
        f" compare it: metaq compare {config.data_path} OLD"
    )
    if missing:
        lines.append("Keep the data directory of the old master until nothing in it is wanted.")
    return lines
