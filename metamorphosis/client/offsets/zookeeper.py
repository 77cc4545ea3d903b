"""
Offsets in ZooKeeper, shared with Java members of the group: one persistent node per partition.

Source: ``ZkOffsetStorage``.

Differs: a node without a number, even an empty one, fails every rebalance of the original; ours
treats an empty node as missing, and any other is an error with path and data. Only the partition of
that node is not read before the node is corrected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zope.interface import implementer

from metamorphosis.client.checked import checked
from metamorphosis.client.model import Partition, StoredOffset
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import InvalidConfig, NodeExists, NoNode, OffsetStoreError
from metamorphosis.interfaces import IOffsetStore, IRegistry
from metamorphosis.wire.numbers import shown

_NUMBER = re.compile("-?[0-9]+")


def parse_offset(text: str) -> tuple[int, int]:
    """
    Message id and offset of ``<msgId>-<offset>``: the last hyphen separates them unless it is the
    first character, because the id may be negative. Clients before 1.4 and some tools write only an
    offset; the id is then -1.

    :raises ValueError: the text is neither.
    """
    head, hyphen, tail = text.rpartition("-")
    id_text, offset_text = (head, tail) if hyphen and head else ("-1", text)
    for number in (id_text, offset_text):
        if not _NUMBER.fullmatch(number):
            raise ValueError(f"{shown(text)}: <msgId>-<offset> expected, as in -1-0")
    return int(id_text), int(offset_text)


def position_in(
    path: str, data: bytes | None, topic: str, partition: Partition
) -> StoredOffset | None:
    """
    The position that a node holds; None for an empty node.

    :raises OffsetStoreError: the node holds other data.
    """
    text = (data or b"").decode("utf-8", "replace").strip()
    if not text:
        return None
    try:
        message_id, offset = parse_offset(text)
    except ValueError as error:
        raise OffsetStoreError(f"ZooKeeper node {path} holds {error}") from None
    return StoredOffset(topic, partition, offset, message_id)


@implementer(IOffsetStore)
class ZooKeeperOffsetStore:
    """
    The original's default store.

    :param registry: its results can be awaited by the caller of the store; it stays open when the
        store is closed.
    """

    @checked(error=InvalidConfig)
    def __init__(self, registry: IRegistry, paths: Paths) -> None:
        self._registry = registry
        self._paths = paths

    @checked()
    async def load(self, topic: str, group: str, partition: Partition) -> StoredOffset | None:
        """
        See ``IOffsetStore``.

        :raises OffsetStoreError: the node holds other data.
        """
        path = self._paths.offset(group, topic, str(partition))
        try:
            data, _ = await self._registry.get(path)
        except NoNode:
            return None
        return position_in(path, data, topic, partition)

    @checked()
    async def initialise(self, topic: str, group: str, partition: Partition, offset: int) -> None:
        """See ``IOffsetStore``; does nothing: a node is created with its first value."""

    @checked()
    async def commit(self, group: str, offsets: Sequence[StoredOffset]) -> None:
        """See ``IOffsetStore``. All writes are sent at once."""
        writes = []
        for each in offsets:
            path = self._paths.offset(group, each.topic, str(each.partition))
            value = b"%d-%d" % (each.message_id, each.offset)
            writes.append((path, value, self._registry.set_data(path, value)))
        failure: Exception | None = None
        for path, value, written in writes:
            try:
                try:
                    await written
                except NoNode:
                    await self._create(path, value)
            except Exception as error:  # wait for the other writes, too
                failure = failure or error
        if failure is not None:
            raise failure

    async def _create(self, path: str, value: bytes) -> None:
        try:
            await self._registry.create(path, value, False)
        except NodeExists:  # another member was faster, or the reply to our create was lost
            await self._registry.set_data(path, value)

    async def close(self) -> None:
        """See ``IOffsetStore``; does nothing: the session belongs to the factory."""
