"""
Every znode path of the product, below one root. Pure.

Source: ``MetaZookeeper``, ``BrokerZooKeeper``.
"""

from __future__ import annotations


def normalise_root(root: str) -> str:
    """
    ``zk.zkRoot`` as a prefix of paths: a leading slash is added, one trailing slash is removed;
    ``/`` gives ``""``.

    :raises ValueError: the root is empty, for which the original makes paths that no server
        accepts.
    """
    if not root:
        raise ValueError("zk.zkRoot is empty; /meta is the default, / means no prefix")
    rooted = root if root.startswith("/") else "/" + root
    return rooted[:-1] if rooted.endswith("/") else rooted


class Paths:
    """The paths below ``root``. Brokers write below ``brokers``, consumers below ``consumers``."""

    __slots__ = ("root",)

    def __init__(self, root: str = "/meta") -> None:
        self.root = normalise_root(root)

    @property
    def broker_ids(self) -> str:
        """Parent of one node per broker id; its children must be decimal numbers."""
        return f"{self.root}/brokers/ids"

    def broker(self, broker_id: int) -> str:
        """Persistent; holds the master's URL for clients older than 1.4."""
        return f"{self.root}/brokers/ids/{broker_id}"

    def master(self, broker_id: int) -> str:
        """Ephemeral; the master's URL."""
        return f"{self.root}/brokers/ids/{broker_id}/master"

    def slave(self, broker_id: int, slave_id: int) -> str:
        """Ephemeral; an asynchronous slave's URL."""
        return f"{self.root}/brokers/ids/{broker_id}/slave{slave_id}"

    def checksum(self, broker_id: int) -> str:
        """Ephemeral; CRC-32 of the master's configuration file, decimal."""
        return f"{self.root}/brokers/ids/{broker_id}/master_config_checksum"

    def topics(self, topic: str) -> str:
        """Directory read by clients older than 1.4.3 and those in other languages."""
        return f"{self.root}/brokers/topics/{topic}"

    def topics_pub(self, topic: str) -> str:
        """Directory read by producers."""
        return f"{self.root}/brokers/topics-pub/{topic}"

    def topics_sub(self, topic: str) -> str:
        """Directory read by consumers and slaves."""
        return f"{self.root}/brokers/topics-sub/{topic}"

    def consumer_ids(self, group: str) -> str:
        """Directory of the living members of a consumer group."""
        return f"{self.root}/consumers/{group}/ids"

    def owners(self, group: str, topic: str) -> str:
        """Directory of the claims of a group on a topic."""
        return f"{self.root}/consumers/{group}/owners/{topic}"

    def owner(self, group: str, topic: str, partition: str) -> str:
        """Ephemeral; the consumer that reads a partition, which is named ``<brokerId>-<n>``."""
        return f"{self.root}/consumers/{group}/owners/{topic}/{partition}"

    def offset(self, group: str, topic: str, partition: str) -> str:
        """Persistent; ``<msgId>-<offset>`` of a group in a partition."""
        return f"{self.root}/consumers/{group}/offsets/{topic}/{partition}"
