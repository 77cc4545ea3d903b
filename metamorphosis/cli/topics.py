"""``metaq topics``: the topics, the brokers of their partitions, and their sizes."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from metamorphosis.cli.cluster import Cluster, TopicState
from metamorphosis.cli.console import Console
from metamorphosis.cli.table import table
from metamorphosis.errors import MetaQError

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

HEAD = ("TOPIC", "PARTITION", "BROKER", "MIN", "MAX")


async def topics(session: SessionFactory, console: Console, options: Namespace) -> None:
    """
    Show the topics.

    :raises MetaQError: a request failed.
    """
    cluster = Cluster(session)
    found = await cluster.topics(options.topic)
    for name, state in found.items():
        if options.json:
            await console.print(as_json(name, state), True)
    if found and not options.json:
        await console.print(as_text(found), False)
    if not found and not cluster.faults:
        raise MetaQError(cluster.no_topics())
    for fault in cluster.faults[1:]:
        console.complain(fault)
    if cluster.faults:
        raise MetaQError(cluster.faults[0])


def as_text(found: dict[str, TopicState]) -> str:
    """A line for each topic, then a line for each partition."""
    counts = [
        (name, len(state.partitions), state.messages, state.size) for name, state in found.items()
    ]
    rows = [
        (name, str(partition), there.url, *there.ends)
        for name, state in found.items()
        for partition, there in sorted(state.partitions.items())
    ]
    overview = table(("TOPIC", "PARTITIONS", "MESSAGES", "BYTES"), counts)
    return f"{overview}\n\n{table(HEAD, rows)}"


def as_json(name: str, state: TopicState) -> dict[str, object]:
    """The same as one object."""
    return {
        "topic": name,
        "messages": state.messages,
        "bytes": state.size,
        "partitions": [
            {"partition": str(p), "broker": there.url, "min": there.ends[0], "max": there.ends[1]}
            for p, there in sorted(state.partitions.items())
        ],
    }
