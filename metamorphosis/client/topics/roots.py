"""
Where in a ZooKeeper there are clusters: a mistyped root is empty, and looks like a cluster without
topics.
"""

from __future__ import annotations

from typing import Any

from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import MetaQError, NoNode

DEPTH = 3
"""So deep roots are looked for; deeper ones are unheard of."""
MOST_LOOKS = 200
"""Nodes that are looked at; a ZooKeeper of many other users is not searched to its end."""
NOT_OURS = frozenset({"zookeeper", "brokers", "consumers"})


async def check_root(session: Any) -> None:
    """
    See that brokers have registered below the root, ever.

    :raises MetaQError: none has; the text names the roots where some have.
    """
    registry, paths = session.registry, session.paths
    if registry is None or await _names(registry, paths.broker_ids) is not None:
        return
    where = session.config.zookeeper
    wanted = f"root {session.config.zookeeper_root} of ZooKeeper {where}"
    if await _names(registry, "/") is None:
        raise MetaQError(f"{wanted}: the chroot behind the host does not exist")
    roots = [root or "/" for root in await known_roots(registry)]
    there = f"roots there are: {', '.join(roots)}" if roots else "nor below any other root of it"
    raise MetaQError(f"no broker has ever registered below {wanted}; {there}")


async def known_roots(registry: Any) -> list[str]:
    """
    Every node below which brokers of ours have registered topics for producers, which those of
    Kafka do not; the root of the tree is ``""``.
    """
    found: list[str] = []
    level, looks = [""], 0
    for _ in range(DEPTH + 1):
        below: list[str] = []
        for root in level:
            looks += 1
            if looks > MOST_LOOKS:
                return found
            topics = Paths(root or "/").topics_pub("x").rpartition("/")[0]
            if await _names(registry, topics) is not None:
                found.append(root)
            names = await _names(registry, root or "/") or []
            below += [f"{root}/{name}" for name in names if name not in NOT_OURS]
        level = below
    return found


async def _names(registry: Any, path: str) -> list[str] | None:
    """The children of a node; None without the node."""
    try:
        return sorted(await registry.children(path))
    except NoNode:
        return None
