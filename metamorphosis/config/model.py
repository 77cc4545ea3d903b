"""
The configuration as frozen values. One attribute per ``server.ini`` key, in snake_case; the comment
has the key.

Source: ``MetaConfig``, ``TopicConfig``, ``ZKConfig``. Section numbers are those of the
storage-and-config specification.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


def default_data_path() -> str:
    """``<home>/meta``, as the original."""
    return os.path.join(os.path.expanduser("~"), "meta")


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """The values of one topic: its section, or a copy of the global values."""

    name: str
    num_partitions: int = 1  # numPartitions
    unflush_threshold: int = 1000  # unflushThreshold, messages; <= 0: group commit
    unflush_interval: int = 10000  # unflushInterval, ms
    data_path: str = ""  # dataPath
    delete_policy: str = "delete,168"  # deletePolicy
    delete_when: str = "0 0 6,18 * * ?"  # deleteWhen
    accept_publish: bool = True  # acceptPublish
    accept_subscribe: bool = True  # acceptSubscribe
    stat: bool = False  # stat
    filters: Mapping[str, str] = field(default_factory=dict)  # group.<group> = class


@dataclass(frozen=True, slots=True)
class ZooKeeperConfig:
    """Section ``[zookeeper]``."""

    connect: str = "localhost:2181"  # zk.zkConnect
    session_timeout: int = 30000  # zk.zkSessionTimeoutMs
    connection_timeout: int = 30000  # zk.zkConnectionTimeoutMs
    sync_time: int = 5000  # zk.zkSyncTimeMs
    enable: bool = True  # zk.zkEnable
    root: str = "/meta"  # zk.zkRoot, normalised: leading slash, no trailing one


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Section ``[system]``, the topics, and the identity of the file."""

    broker_id: int  # brokerId, 0..1023
    num_partitions: int = 1  # numPartitions
    unflush_threshold: int = 1000  # unflushThreshold
    unflush_interval: int = 10000  # unflushInterval, ms
    max_segment_size: int = 1 << 30  # maxSegmentSize, bytes
    max_transfer_size: int = 1 << 20  # maxTransferSize, bytes
    server_port: int = 8123  # serverPort
    dashboard_http_port: int = 8120  # dashboardHttpPort
    data_path: str = field(default_factory=default_data_path)  # dataPath
    data_log_path: str = ""  # dataLogPath, defaults to data_path
    app_class_path: str | None = None  # appClassPath
    host_name: str | None = None  # hostName
    get_process_thread_count: int = 10  # getProcessThreadCount
    put_process_thread_count: int = 10  # putProcessThreadCount
    delete_policy: str = "delete,168"  # deletePolicy
    delete_when: str = "0 0 6,18 * * ?"  # deleteWhen
    quartz_thread_count: int = 5  # quartzThreadCount
    max_checkpoints: int = 3  # maxCheckpoints
    checkpoint_interval: int = 3600000  # checkpointInterval, ms
    max_tx_timeout_timer_capacity: int = 30000  # maxTxTimeoutTimerCapacity
    flush_tx_log_at_commit: int = 1  # flushTxLogAtCommit
    max_tx_timeout_in_seconds: int = 60  # maxTxTimeoutInSeconds
    accept_subscribe: bool = True  # acceptSubscribe
    accept_publish: bool = True  # acceptPublish
    stat: bool = False  # stat
    update_consumer_offsets: bool = False  # updateConsumerOffsets
    load_message_stores_in_parallel: bool = False  # loadMessageStoresInParallel
    zookeeper: ZooKeeperConfig = field(default_factory=ZooKeeperConfig)
    topics: Mapping[str, TopicConfig] = field(default_factory=dict)  # sorted by code unit
    path: str = ""  # absolute path of the file
    checksum: int = 0  # unsigned CRC-32 of the file's bytes
    modified_ns: int = 0  # its mtime when it was read
    warnings: tuple[str, ...] = field(default=(), compare=False)  # to be logged
    problems: tuple[str, ...] = field(default=(), compare=False)  # certain mistakes: see suspicions

    def topic(self, name: str) -> TopicConfig:
        """
        The section of exactly this name, else a copy of the global values: a topic that is accepted
        only through a wildcard section does not inherit that section.
        """
        found = self.topics.get(name)
        if found is not None:
            return found
        return replace(self.default_topic, name=name)

    @property
    def default_topic(self) -> TopicConfig:
        """The global values in the form of a topic with an empty name."""
        return TopicConfig(
            name="",
            num_partitions=self.num_partitions,
            unflush_threshold=self.unflush_threshold,
            unflush_interval=self.unflush_interval,
            data_path=self.data_path,
            delete_policy=self.delete_policy,
            delete_when=self.delete_when,
            accept_publish=self.accept_publish,
            accept_subscribe=self.accept_subscribe,
            stat=self.stat,
        )


class OnDivergence(Enum):
    """The action of an asynchronous slave on a partition whose bytes are not its master's."""

    STOP = "stop"
    COPY_AGAIN = "copy-again"


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Our own settings, in a separate file (``metamorphosis.ini`` beside ``server.ini``): a Java slave
    copies its master's ``server.ini`` and refuses unknown keys.
    """

    flush_delay_ms: int = 25  # [store] flush-delay-ms: between background flushes
    sync_threads: int = 4  # [store] sync-threads
    writes_in_threads: bool = False  # [store] writes-in-threads
    fast_boot: bool = False  # [store] fast-boot: the original's meta.fast_boot
    max_transaction_bytes: int = 256 << 20  # [transactions] max-transaction-bytes
    max_line_bytes: int = 64 * 1024  # [network] max-line-bytes
    max_body_bytes: int = 64 * 1024 * 1024  # [network] max-body-bytes: longest body of one frame
    max_connection_bytes: int = 4 << 20  # [network] max-connection-bytes: then reading pauses
    max_total_bytes: int = 256 << 20  # [network] max-total-bytes: of all connections
    idle_seconds: int = 300  # [network] idle-seconds: closed after 1-2 times this
    max_long_poll_ms: int = 30000  # [network] max-long-poll-ms: longest that a get is held
    busy_poll_us: int = 60  # [network] busy-poll-us: see native/lingering.h
    congestion_control: str = "auto"  # [network] congestion-control: see broker.congestion
    interface: str = ""  # [network] interface: address to listen on, empty: all
    on_divergence: OnDivergence = OnDivergence.STOP  # [replication] on-divergence
    max_waiting_bytes: int = 64 << 20  # [replication] max-waiting-bytes: for the other broker
    probe_topic: str = "_metaq_slave_status_test"  # [replication] probe-topic
    closed_partitions: Mapping[str, tuple[tuple[int, int], ...]] = field(
        default_factory=dict
    )  # [closed-partitions] <topic> = 0-3,7
    path: str | None = None  # the file, None: all defaults
    warnings: tuple[str, ...] = field(default=(), compare=False)  # to be logged
