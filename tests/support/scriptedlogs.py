"""The logs of scripted peers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

FIRST_OPAQUE: Final = -(1 << 31)
END_OF_LOG: Final = (1 << 63) - 1
HEADER_BYTES: Final = 20
MAX_BODY: Final = 2097152
PROBE: Final = "_metaq_slave_status_test"
CHECKSUM_FAILURE = "Checksum failure,message may be corrupted when transfering on networking."

Place = tuple[str, int]
"""Topic and partition."""


def record(message_id: int, flag: int, body: bytes) -> bytes:
    """A record as it lies in the log."""
    checksum = zlib.crc32(body) & 0x7FFFFFFF
    head = len(body).to_bytes(4, "big") + checksum.to_bytes(4, "big")
    return (
        head
        + message_id.to_bytes(8, "big", signed=True)
        + flag.to_bytes(4, "big", signed=True)
        + body
    )


@dataclass
class ScriptedLog:
    """
    One partition of a scripted peer.

    :ivar first: its lowest offset.
    :ivar data: what stands from there on.
    :ivar flushed: how much of it a ``get`` sees; None: everything.
    :ivar hidden: the peer was restarted with its journal among the partitions, and says 404 for
        this one until something is appended [BUG-26].
    """

    first: int = 0
    data: bytearray = field(default_factory=bytearray)
    flushed: int | None = None
    hidden: bool = False

    @property
    def end(self) -> int:
        """Where the next record will stand."""
        return self.first + len(self.data)

    @property
    def readable(self) -> int:
        """Where reading ends."""
        return self.end if self.flushed is None else self.first + self.flushed

    def append(self, message_id: int, flag: int, body: bytes) -> int:
        """Its offset."""
        offset = self.end
        self.data += record(message_id, flag, body)
        self.hidden = False
        return offset

    def ids(self) -> list[int]:
        """Of all records, in their order."""
        found, at = [], 0
        while at < len(self.data):
            found.append(int.from_bytes(self.data[at + 8 : at + 16], "big", signed=True))
            at += HEADER_BYTES + int.from_bytes(self.data[at : at + 4], "big")
        return found
