"""
The configured partitions of ordered producers: ``ClientConfig.partitions_info``. Pure.

Source: ``ConfigPartitionsSupport``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from metamorphosis.client.model import Partition
from metamorphosis.errors import InvalidConfig

COUNT_KEY: Final = "topic.num."
"""Prefix of the topic in the original's properties."""


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """
    Expand ``<brokerId>:<count>;<brokerId>:<count>;...`` to partitions, sorted; empty pieces are
    ignored.

    :raises ValueError: a piece has another form.
    """
    found: set[Partition] = set()
    for piece in text.split(";"):
        piece = piece.strip()
        if not piece:
            continue
        broker_id, _, count = piece.partition(":")
        if not (broker_id.isdecimal() and count.isdecimal() and int(count) > 0):
            raise ValueError(
                f"partitions {text!r}: {piece!r} is not <brokerId>:<count>, as in 0:4;1:4"
            )
        found.update(Partition(int(broker_id), number) for number in range(int(count)))
    return tuple(sorted(found))


def parse_partitions_info(info: Mapping[str, str]) -> dict[str, tuple[Partition, ...]]:
    """
    ``ClientConfig.partitions_info`` as topic -> partitions. The original's keys
    ``topic.num.<topic>`` are accepted as well.

    :raises InvalidConfig: a value is malformed; the text names the key.
    """
    found = {}
    for key, text in info.items():
        try:
            found[key.removeprefix(COUNT_KEY)] = parse_partitions(text)
        except ValueError as error:
            raise InvalidConfig(f"partitions_info, {key}: {error}") from None
    return found
