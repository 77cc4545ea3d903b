"""
The keys of ``server.ini``, with their types and the limits of their values.

Source: ``MetaConfig.populateSystemConf``, ``populateZookeeperConfig``, ``populateTopicsConfig``,
``Config.checkConfigKeys``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from metamorphosis.cluster.connect import parse_connect
from metamorphosis.config.expressions import boolean, int32, integer
from metamorphosis.config.policies import parse_policy
from metamorphosis.cron import CronExpression


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key of a section.

    :ivar attribute: the attribute of the configuration that takes it.
    :ivar read: turns the text into the value, or raises ValueError with the valid form.
    :ivar required: whether a missing or blank value is a fault.
    :ivar low: smallest valid value, None: no limit.
    :ivar high: largest valid value, None: no limit.
    :ivar hint: the text of the fault when a limit is exceeded.
    """

    name: str
    attribute: str
    read: Callable[[str], object]
    required: bool = False
    low: int | None = None
    high: int | None = None
    hint: str = ""


def policy(text: str) -> str:
    """A deletion policy, checked, as its text."""
    parse_policy(text)
    return text


def schedule(text: str) -> str:
    """A cron expression that will fire at least once more, as its text."""
    if CronExpression.parse(text).next_after(datetime.now()) is None:
        raise ValueError(f"Schedule delete job failed: {text!r} never fires again")
    return text


def class_path(text: str) -> str:
    """An existing directory. Source: ``ConsumerFilterManager``."""
    if not os.path.isdir(text):
        raise ValueError(
            f"Initializing ConsumerFilterManager failed: {text!r} is not a directory; right is one"
            " with the Python modules of consumer filters, or no value"
        )
    return text


def lenient_boolean(text: str) -> bool:
    """``true`` in any case is true, anything else is false. Source: ``Boolean.valueOf``."""
    return text.lower() == "true"


def root_path(text: str) -> str:
    """
    The ZooKeeper root with a leading slash and without one trailing slash. Source:
    ``MetaZookeeper``.
    """
    return ("" if text.startswith("/") else "/") + text.removesuffix("/")


def connect_string(text: str) -> str:
    """``host:port,host:port/chroot``, checked and unchanged."""
    parse_connect(text)
    return text


_POSITIVE = "a number above 0 is needed"
_NOT_NEGATIVE = "0 or more is needed"

SYSTEM: tuple[Key, ...] = (
    Key(
        "brokerId",
        "broker_id",
        int32,
        required=True,
        low=0,
        high=1023,
        hint="worker Id can't be greater than 1023 or less than 0",
    ),
    Key("serverPort", "server_port", int32, low=0, high=65535, hint="0 to 65535 is needed"),
    Key("dashboardHttpPort", "dashboard_http_port", int32),
    Key("dataPath", "data_path", str),
    Key("appClassPath", "app_class_path", class_path),
    Key("dataLogPath", "data_log_path", str),
    Key("hostName", "host_name", str),
    Key("numPartitions", "num_partitions", int32, required=True),
    Key("unflushThreshold", "unflush_threshold", int32, required=True),
    Key("unflushInterval", "unflush_interval", int32, required=True),
    Key("maxSegmentSize", "max_segment_size", int32, required=True),
    Key("maxTransferSize", "max_transfer_size", int32, required=True),
    Key("getProcessThreadCount", "get_process_thread_count", int32, low=1, hint=_POSITIVE),
    Key("putProcessThreadCount", "put_process_thread_count", int32, low=1, hint=_POSITIVE),
    Key("deletePolicy", "delete_policy", policy),
    Key("deleteWhen", "delete_when", schedule),
    Key(
        "quartzThreadCount",
        "quartz_thread_count",
        int32,
        low=1,
        hint=f"Initialize quartz scheduler failed: {_POSITIVE}",
    ),
    Key("maxCheckpoints", "max_checkpoints", int32, low=1, hint=_POSITIVE),
    Key("checkpointInterval", "checkpoint_interval", integer, low=1, hint=_POSITIVE),
    Key("maxTxTimeoutTimerCapacity", "max_tx_timeout_timer_capacity", int32),
    Key(
        "flushTxLogAtCommit",
        "flush_tx_log_at_commit",
        int32,
        low=0,
        high=2,
        hint="Invalid flushLogTxCommit,only supports 0,1 or 2",
    ),
    Key("maxTxTimeoutInSeconds", "max_tx_timeout_in_seconds", int32),
    Key("acceptSubscribe", "accept_subscribe", boolean),
    Key("acceptPublish", "accept_publish", boolean),
    Key("stat", "stat", boolean),
    Key("updateConsumerOffsets", "update_consumer_offsets", boolean),
    Key("loadMessageStoresInParallel", "load_message_stores_in_parallel", boolean),
)

ZOOKEEPER: tuple[Key, ...] = (
    Key("zk.zkConnect", "connect", connect_string),
    Key("zk.zkSessionTimeoutMs", "session_timeout", int32, low=0, hint=_NOT_NEGATIVE),
    Key("zk.zkConnectionTimeoutMs", "connection_timeout", int32, low=0, hint=_NOT_NEGATIVE),
    Key("zk.zkSyncTimeMs", "sync_time", int32, low=0, hint=_NOT_NEGATIVE),
    Key("zk.zkEnable", "enable", boolean),
    Key("zk.zkRoot", "root", root_path),
)

TOPIC: tuple[Key, ...] = (
    Key("numPartitions", "num_partitions", int32),
    Key("stat", "stat", lenient_boolean),
    Key("deletePolicy", "delete_policy", policy),
    Key("deleteWhen", "delete_when", schedule),
    Key("dataPath", "data_path", str),
    Key("unflushInterval", "unflush_interval", int32),
    Key("unflushThreshold", "unflush_threshold", int32),
    Key("acceptSubscribe", "accept_subscribe", boolean),
    Key("acceptPublish", "accept_publish", boolean),
)

#: Names that the original accepts only because it compares keys with the fields of a class.
SYSTEM_IGNORED = frozenset(
    (
        "topics slaveConfig zkConfig topicConfigMap propertyChangeSupport lastModified path"
        " configFileChecksum closedPartitionMap log serialVersionUID"
    ).split()
)
ZOOKEEPER_IGNORED = SYSTEM_IGNORED | {key.name for key in SYSTEM}
TOPIC_IGNORED = frozenset(("topic", "filterClassNames"))


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that needs the fewest edits; the first of several."""
    return min(names, key=lambda candidate: edits(name, candidate))


def edits(left: str, right: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for i, left_char in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, right_char in enumerate(right, start=1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (left_char != right_char)),
            )
    return row[-1]
