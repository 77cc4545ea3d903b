"""
The text of ``deletePolicy``: ``<delete|archive>,<retention>[,<compress>]``, split at commas, no
part trimmed.

Source: ``DeletePolicyFactory``, ``DiscardDeletePolicy.init``, ``ArchiveDeletePolicy.init``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DELETE = "delete"
ARCHIVE = "archive"

#: Milliseconds of a retention's unit; without a suffix it is in hours.
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000}
_RETENTION = re.compile(r"([+-]?[0-9]+)([smh]?)", re.ASCII)
_INT_LIMIT = 1 << 31


@dataclass(frozen=True, slots=True)
class PolicyText:
    """
    A parsed policy.

    :ivar name: ``delete`` or ``archive``.
    :ivar retention_ms: a segment last modified longer ago than this is disposed of; zero and below:
        every segment with a successor.
    :ivar compress: archive as ``.zip`` and not by renaming to ``.arc``.
    """

    name: str
    retention_ms: int
    compress: bool = False


def parse_policy(text: str) -> PolicyText:
    """
    Read a policy.

    :raises ValueError: with the original's message and the valid form.
    """
    name, *values = text.split(",")
    if name not in (DELETE, ARCHIVE):
        raise ValueError(
            f"UnknownDeletePolicyException: {name!r}; the policy is {DELETE} or {ARCHIVE},"
            " as in delete,168"
        )
    retention = _RETENTION.fullmatch(values[0]) if values else None
    if retention is None or not -_INT_LIMIT <= int(retention[1][:12]) < _INT_LIMIT:
        raise ValueError(
            f"New delete policy `{name}` failed: {','.join(values[:1])!r} is not a retention;"
            " a number of hours, or one with the suffix s, m or h, follows the comma directly,"
            " as in delete,168 or delete,30m"
        )
    return PolicyText(
        name,
        int(retention[1]) * _UNITS[retention[2] or "h"],
        name == ARCHIVE and len(values) > 1 and values[1].lower() == "true",
    )
