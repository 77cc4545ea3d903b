"""``metaq slave-status``: the state of a replicated broker, with reasons for stopped partitions."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from metamorphosis.cli.cluster import Cluster
from metamorphosis.cli.console import Console
from metamorphosis.cli.table import table
from metamorphosis.errors import MetaQError
from metamorphosis.replication.status import (
    MASTER,
    PartitionFigures,
    RoleFigures,
    original_lines,
    parse_status,
)

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

HEAD = ("PARTITION", "STATE", "MIN", "MAX", "OTHER", "BEHIND", "SECONDS", "STANDS")


async def slave_status(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Ask one broker.

    :raises MetaQError: it does not report a role, or does not replicate.
    """
    text = await Cluster(session).stats(str(session.config.broker), "replication")
    figures = parse_status(text.split("\r\n"))
    if figures is None:
        raise MetaQError(
            f"{options.broker} is a broker that does not tell its role; the original shows it in"
            " JMX, as com.taobao.metamorphosis.metaslave:type=SubscribeHandler"
        )
    if options.json:
        await console.print(as_json(figures), True)
    else:
        await console.print(as_text(figures), False)
    if figures.role == MASTER:
        raise MetaQError(f"{options.broker} is a {MASTER} without a pair: it copies from nobody")
    if not figures.is_well:
        raise MetaQError(f"{options.broker}: {_trouble(figures)}")


def as_text(figures: RoleFigures) -> str:
    """The original's line, the other broker, then a line for each partition."""
    state = f"{figures.role}: {figures.state}"
    if figures.role == MASTER:
        return state
    other = figures.other or "not known"
    lines = [*original_lines(figures), "", state]
    lines.append(f"other broker: {other}{'' if figures.connected else ', not connected'}")
    if not figures.registered:
        lines.append("not registered in ZooKeeper")
    if figures.failures:
        lines.append(f"puts in a row without acknowledgement: {figures.failures}")
    if figures.waiting_records:
        waiting = f"{figures.waiting_records} messages, {figures.waiting_bytes} bytes"
        lines.append(f"waiting for the other broker: {waiting}")
    lines += figures.notes
    if figures.partitions:
        lines += ["", table(HEAD, [_row(each) for each in figures.partitions])]
    return "\n".join(lines)


def as_json(figures: RoleFigures) -> dict[str, object]:
    """The same as one object."""
    return {
        "role": figures.role,
        "state": figures.state,
        "well": figures.is_well,
        "other": figures.other,
        "connected": figures.connected,
        "registered": figures.registered,
        "failures": figures.failures,
        "waiting": {"messages": figures.waiting_records, "bytes": figures.waiting_bytes},
        "notes": list(figures.notes),
        "partitions": [
            {
                "topic": each.topic,
                "partition": each.number,
                "state": each.state,
                "min": each.own.first,
                "max": each.own.end,
                "other_max": each.other_end,
                "behind_bytes": each.behind,
                "behind_seconds": each.seconds,
                "stands": each.stands or None,
            }
            for each in figures.partitions
        ],
    }


def _row(each: PartitionFigures) -> tuple[object, ...]:
    ends = each.own.first, each.own.end, each.other_end, each.behind
    return (each.name, each.state, *ends, f"{each.seconds:.1f}", each.stands)


def _trouble(figures: RoleFigures) -> str:
    standing = [each.name for each in figures.partitions if each.stands]
    if not figures.runs:
        return f"it does not replicate: {figures.state}"
    if not figures.connected:
        return "no connection to the other broker"
    return f"{len(standing)} of {len(figures.partitions)} partitions stand: {', '.join(standing)}"
