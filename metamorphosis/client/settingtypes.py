"""
The settings as keyword arguments, for type checkers and editors.

Made from ``settings.py`` by ``tools/settings.py``: change that, run 'make settings'.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypedDict


class ClientSettings(TypedDict, total=False):
    """The settings of ``ClientConfig``, but zookeeper and broker."""

    zookeeper_root: str
    """The node below which brokers and groups register, ``zk.zkRoot`` of the brokers. Default:
    /meta."""
    zookeeper_session_timeout_ms: int
    """ZooKeeper gives the partitions of a consumer that died to others after so long. Default:
    30000."""
    zookeeper_connection_timeout_ms: int
    """Time limit of ``start`` for the first session. Default: 30000."""
    zookeeper_sync_time_ms: int
    """The pause between two attempts to rebalance. Default: 5000."""
    recover_message_interval_ms: int
    """Between two attempts to deliver messages that were kept for later. Default: 300000."""
    recover_thread_count: int
    """The number of messages that are recovered at a time. Default: the number of processors."""
    partitions_info: Mapping[str, str]
    """Ordered producers: topic -> ``<brokerId>:<count>;<brokerId>:<count>``. Default: none."""
    send_timeout_ms: int
    """Time limit of the reply to each attempt to send a message. Default: 3000."""
    delivery_timeout_ms: int
    """Time limit of all attempts to send a message, if their number is not limited. Default:
    120000."""
    stats_timeout_ms: int
    """How long ``get_stats`` waits for each broker. Default: 3000."""
    connect_timeout_ms: int
    """Direct mode: time limit of ``start`` for the broker. Default: 80000."""
    refused_timeout_ms: int
    """Shorter time limit if every attempt to connect is refused, or the name cannot be
    resolved. Set it to the limits above to wait for servers that are started later. Default:
    5000."""
    connect_attempt_timeout_ms: int
    """Time limit of an attempt to connect; then the next one begins. Default: 10000."""
    publish_connect_timeout_ms: int
    """Time limit of ``publish`` for each broker of the topic. Default: 10000."""
    heartbeat_idle_ms: int
    """A request for the version is sent on a connection that was silent for this time. Default:
    10000."""
    heartbeat_timeout_ms: int
    """How long the answer to that may take. Default: 5000."""
    heartbeat_failures: int
    """The number of unanswered heartbeats in a row that ends the connection. Default: 3."""
    max_scheduled_written_bytes: int
    """Limit of requests that wait for a broker's socket; above it the connection is not
    ``writable``. Default: 16777216 (16 MiB)."""
    max_reply_line_bytes: int
    """Longest first line of a reply; a longer one ends the connection. Default: 4096."""
    max_reply_bytes: int
    """Longest body of a reply; a longer one is a fault of the broker, and ends the connection.
    Default: 67108864 (64 MiB)."""
    loopback_connection: bool
    """Connect to ``localhost`` if a broker's address belongs to this machine. Default: False."""
    duplicate_cache_size: int
    """The number of remembered message ids, to detect duplicates. Default: 4096."""
    max_body_bytes: int
    """Longest message, including its attribute: producers refuse longer ones
    (``MessageTooLarge``), consumers skip them unless the subscription's ``max_size`` is
    larger. The default is that of the consumers of all clients. Default: 2097152 (2 MiB)."""
    recover_path: str | os.PathLike[str]
    """Messages that a consumer could not process. Default: ~/.meta_recover."""
    local_message_path: str | os.PathLike[str]
    """Messages that an ordered producer could not send. Default: ~/.meta_localmessage."""
    async_storage_path: str | os.PathLike[str]
    """Messages that a one-way producer could not send. Default: ~/.meta_async_storage."""
    ordered_save_to_local_when_failed: bool
    """Ordered producers keep a message locally after any refusal of the broker. Default: False."""
    xa_producer_host_name: str | None
    """XA producers: in place of this machine's name in their ``unique_qualifier``. Default:
    none."""


class AllClientSettings(ClientSettings, total=False):
    """All settings of ``ClientConfig``."""

    zookeeper: str | None
    """The servers of ZooKeeper: ``host:port,host:port/chroot``. This or ``broker``. Default:
    none."""
    broker: str | None
    """Direct mode: the one broker, without ZooKeeper (``serverUrl``). Default: none."""


class ConsumerSettings(TypedDict, total=False):
    """The settings of ``ConsumerConfig``, but group."""

    consumer_id: str | None
    """Replaces the generated part of the member's id; unique in the group. Default: none."""
    fetch_runner_count: int
    """Without meaning: every partition is fetched by itself. ``max_deliveries`` limits calls.
    Default: the number of processors."""
    fetch_timeout_ms: int
    """Limit of one ``get`` or ``offset`` request. Default: 10000."""
    max_delay_fetch_time_ms: int
    """Longest pause between two fetches of a partition. Default: 5000."""
    commit_offset_period_ms: int
    """Between two commits of the positions; a crash repeats what was done since the last one.
    Default: 5000."""
    max_fetch_retries: int
    """The number of further deliveries of a failing message before it is rejected. Default: 5."""
    max_increase_fetch_data_retries: int
    """The number of fetches without a whole message before the fetch size is doubled. Default:
    5."""
    offset: int
    """The start without a stored offset, bytes; ``MAX_OFFSET``: the end. Default: 0."""
    offset_at_ms: int | None
    """The start without a stored offset: the first message of this time or later, ms since
    1970; replaces ``offset``. ``Consumer.offset_at`` describes the accuracy. For messages of
    a Java broker, which have no time: the beginning, with a warning. Default: none."""
    always_consume_from_max_offset: bool
    """Start at the end, even if an offset is stored. Default: False."""
    partition: str | None
    """Direct mode: ``<brokerId>-<number>``. Default: none."""
    load_balance_strategy: str
    """``DEFAULT`` or ``CONSIST``; the same in every member of the group. Default: DEFAULT."""
    long_poll_ms: int
    """Time for which a broker may hold a ``get`` at the end of the log; 0: it replies at once.
    At most half of ``fetch_timeout_ms`` is requested. Default: 5000."""
    max_buffered_bytes: int
    """Limit of fetched and undelivered bytes of all partitions: each has the same share for two
    fetches, which limits their size. A longer message is fetched nevertheless. Default:
    67108864 (64 MiB)."""
    max_deliveries: int
    """Limit of pending listener calls of all partitions; 0: one per partition. Default: 0."""
    stop_timeout_ms: int
    """Time limit of a rebalance or ``close`` for a busy listener; messages that it finishes
    later are not acknowledged. 0: unlimited, as in the original. Default: 60000."""


class AllConsumerSettings(ConsumerSettings, total=False):
    """All settings of ``ConsumerConfig``."""

    group: str
    """The members of a group share the partitions of a topic; each group gets all messages."""
