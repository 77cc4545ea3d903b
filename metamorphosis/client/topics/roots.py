"""
Finds the roots of clusters in a ZooKeeper: a mistyped root is empty, and looks like a cluster
without topics.
"""

from __future__ import annotations

from metamorphosis.client.settings import ClientConfig
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import MetaQError, NoNode
from metamorphosis.interfaces import IRegistry

DEPTH = 3
"""Levels that are searched; deeper roots are not used in practice."""
MOST_LOOKS = 200
"""Limit of nodes that are read, for a large ZooKeeper with other users."""
NOT_OURS = frozenset({"zookeeper", "brokers", "consumers"})


async def check_root(registry: IRegistry | None, config: ClientConfig) -> None:
    """
    Check that a broker has registered below the configured root, now or earlier.

    :param registry: ZooKeeper; None in direct mode, without a check.
    :raises MetaQError: no broker has; the text names the roots with brokers.
    """
    paths = Paths(config.zookeeper_root)
    if registry is None or await _names(registry, paths.broker_ids) is not None:
        return
    wanted = f"root {config.zookeeper_root} of ZooKeeper {config.zookeeper}"
    if await _names(registry, "/") is None:
        raise MetaQError(f"{wanted}: the chroot after the host does not exist")
    roots = [root or "/" for root in await known_roots(registry)]
    there = f"roots there are: {', '.join(roots)}" if roots else "nor below any other root of it"
    raise MetaQError(f"no broker has ever registered below {wanted}; {there}")


async def known_roots(registry: IRegistry) -> list[str]:
    """
    Every node below which MetaQ brokers have registered topics for producers (Kafka's brokers have
    no such nodes); the root of the tree is ``""``.
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


async def _names(registry: IRegistry, path: str) -> list[str] | None:
    """The children of a node; None without the node."""
    try:
        return sorted(await registry.children(path))
    except NoNode:
        return None
