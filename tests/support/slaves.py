"""A broker in memory that is the slave of a pair, for tests of it and of its hot path."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from metamorphosis.cluster.model import Broker as Address
from metamorphosis.cluster.presence import Presence
from metamorphosis.config.roles import PairSlaveConfig
from metamorphosis.replication.pairslave.role import PairSlave
from metamorphosis.replication.role import Attached
from metamorphosis.testing.registry import MemoryRegistry, MemoryTree
from metamorphosis.threads import SynchronousThreads
from tests.support.serving import Broker


def sync(
    body: bytes,
    topic: bytes = b"test",
    partition: bytes = b"0",
    message_id: bytes = b"7",
    opaque: bytes = b"1",
    flag: bytes = b"0",
    checksum: bytes | None = None,
) -> bytes:
    """
    A record as a master sends it.

    :param checksum: None: the right one; empty: the form with 7 tokens.
    """
    if checksum is None:
        checksum = b"%d" % (crc32(body) & 0x7FFFFFFF)
    words = [b"sync", topic, partition, b"%d" % len(body), flag, message_id]
    words += [checksum] if checksum else []
    return b" ".join([*words, opaque]) + b"\r\n" + body


class SlaveBroker(Broker):
    """
    A ``Broker`` with the role of the slave of a pair.

    :ivar role: it.
    """

    def __init__(self, directory: str, *args: Any, **options: Any) -> None:
        super().__init__(directory, *args, **options)
        self.role = PairSlave(PairSlaveConfig())
        self.registry = MemoryRegistry(MemoryTree())
        broker = Address(0, "localhost", 8123)
        threads = SynchronousThreads()
        presence = Presence(self.clock, self.config, broker, threads, lambda *args: self.registry)
        self.role.attach(
            Attached(
                self.clock,
                self.config,
                self.settings,
                broker,
                self.responders,
                self.stores,
                self.ids,
                self.threads,
                self.turn,
                presence,
                lambda: None,
            )
        )
        self.role.start()
