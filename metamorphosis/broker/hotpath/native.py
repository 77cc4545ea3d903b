"""
The hot path with its puts in C; ``contract`` has the rules.

A put costs a tenth of its cost in ``pure``. Gets are taken by ``pure``, because their time is spent
in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metamorphosis.broker.hotpath.pure import PUT, take_get
from metamorphosis.native import compiled

if TYPE_CHECKING:
    from metamorphosis.broker.hotpath.contract import Routes, Scan
    from metamorphosis.broker.replies import ReplyGroup
    from metamorphosis.ids import MessageIds


def scan(
    data: bytes | bytearray,
    source: bytes | memoryview,
    start: int,
    end: int,
    routes: Routes,
    ids: MessageIds,
    group: ReplyGroup,
) -> int:
    """
    See ``contract.Scan``.

    :raises AttributeError: the native part is not built or left out.
    """
    take_puts: Scan = compiled.take_puts  # type: ignore[union-attr]
    ids.start_chunk()
    position = start
    while position < end:
        if data[position] == PUT:
            position = take_puts(data, source, position, end, routes, ids, group)
            if position < end and data[position] == PUT:
                break  # it is not ordinary
        else:
            past = take_get(data, position, end, routes, group)
            if not past:
                break
            position = past
    return position
