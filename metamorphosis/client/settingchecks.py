"""The checks of each setting of the client. Pure; see ``client.checks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from metamorphosis.client import checks
from metamorphosis.client.checks import INT63_MAX
from metamorphosis.client.partitionsinfo import parse_partitions_info
from metamorphosis.errors import InvalidConfig
from metamorphosis.wire.numbers import INT32_MAX

STRATEGIES: Final = ("DEFAULT", "CONSIST")

_COUNT: Final = checks.integer(0, INT32_MAX, "a number")
_COUNT_ABOVE_0: Final = checks.integer(1, INT32_MAX, "a number")
_TIME: Final = checks.integer(0, INT32_MAX, "milliseconds")
_TIME_ABOVE_0: Final = checks.integer(1, INT32_MAX, "milliseconds")
_BYTES: Final = checks.integer(1, INT63_MAX, "bytes")


def _strategy(value: object) -> str | None:
    if isinstance(value, str) and value.upper() in STRATEGIES:
        return None
    return "DEFAULT or CONSIST expected"


def _consumer_id(value: object) -> str | None:
    """Part of the name of a node."""
    if not isinstance(value, str):
        return "a str expected"
    if value.strip() and value.isprintable() and "/" not in value:
        return None
    return "a name without slashes and unprintable characters expected; None generates one"


def _partition(value: object) -> str | None:
    if isinstance(value, str):
        broker_id, _, number = value.partition("-")
        if broker_id.isdecimal() and number.isdecimal():
            return None
    return "<brokerId>-<number> expected, as in '0-3'"


def _root(value: object) -> str | None:
    if isinstance(value, str) and value.strip() and value.isprintable() and "//" not in value:
        return None
    return "a path in ZooKeeper expected; /meta is the default"


def _partitions_info(value: object) -> str | None:
    expected = "topic -> '<brokerId>:<count>;...' expected, as in {'orders': '0:4;1:4'}"
    if not isinstance(value, Mapping):
        return expected
    if all(isinstance(each, str) for pair in value.items() for each in pair):
        try:
            parse_partitions_info(value)
            return None
        except InvalidConfig as error:
            return f"{expected} ({error})"
    return expected


SETTING_CHECKS: Final[Mapping[str, checks.Check]] = {
    "zookeeper": checks.optional(checks.zookeeper),
    "broker": checks.optional(checks.broker),
    "zookeeper_root": _root,
    "zookeeper_session_timeout_ms": _TIME_ABOVE_0,
    "zookeeper_connection_timeout_ms": _TIME_ABOVE_0,
    "zookeeper_sync_time_ms": _TIME,
    "recover_message_interval_ms": _TIME_ABOVE_0,
    "recover_thread_count": checks.integer(1, 10000, "a number"),
    "partitions_info": _partitions_info,
    "delivery_timeout_ms": _TIME_ABOVE_0,
    "send_timeout_ms": _TIME_ABOVE_0,
    "stats_timeout_ms": _TIME_ABOVE_0,
    "connect_timeout_ms": _TIME_ABOVE_0,
    "refused_timeout_ms": _TIME,
    "connect_attempt_timeout_ms": _TIME_ABOVE_0,
    "publish_connect_timeout_ms": _TIME_ABOVE_0,
    "heartbeat_idle_ms": _TIME_ABOVE_0,
    "heartbeat_timeout_ms": _TIME_ABOVE_0,
    "heartbeat_failures": _COUNT_ABOVE_0,
    "max_scheduled_written_bytes": _BYTES,
    "max_reply_line_bytes": checks.integer(64, INT32_MAX, "bytes"),
    "max_reply_bytes": checks.integer(1024, INT32_MAX, "bytes"),
    "loopback_connection": checks.truth,
    "duplicate_cache_size": _COUNT,
    "max_body_bytes": checks.integer(1, INT32_MAX, "bytes"),
    "recover_path": checks.path,
    "local_message_path": checks.path,
    "async_storage_path": checks.path,
    "ordered_save_to_local_when_failed": checks.truth,
    "xa_producer_host_name": checks.optional(checks.text),
    "consumer_id": checks.optional(_consumer_id),
    "fetch_runner_count": checks.integer(1, 100000, "a number"),
    "fetch_timeout_ms": _TIME_ABOVE_0,
    "max_delay_fetch_time_ms": _TIME,
    "commit_offset_period_ms": _TIME_ABOVE_0,
    "max_fetch_retries": _COUNT,
    "max_increase_fetch_data_retries": _COUNT,
    "offset": checks.integer(0, INT63_MAX, "bytes"),
    "offset_at_ms": checks.optional(checks.integer(0, INT63_MAX, "milliseconds since 1970")),
    "always_consume_from_max_offset": checks.truth,
    "partition": checks.optional(_partition),
    "load_balance_strategy": _strategy,
    "long_poll_ms": _TIME,
    "max_buffered_bytes": _BYTES,
    "max_deliveries": _COUNT,
    "stop_timeout_ms": _TIME,
}
"""Every setting except ``group``, whose errors are the original's."""
