"""
Every setting of the client with its default, checked when the object is created. Pure.

Names are those of the original in PEP 8 form; times end in ``_ms``, sizes in ``_bytes``.

Source: ``MetaClientConfig``, ``ConsumerConfig``, ``ZkUtils.ZKConfig`` and the system properties of
the client.

Differs: settings are given to the session factory; the original reads a third of them from system
properties, and ZooKeeper's from a resource of the class path.

Differs: sockets always send without delay (there is no ``metaq.network.tcp_nodelay``).

Differs: lost connections are restored without end; the original gives up after
``metaq.client.network.max.reconnect.times``, 350.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from metamorphosis.client import checks
from metamorphosis.client.settingchecks import SETTING_CHECKS
from metamorphosis.cluster.paths import normalise_root
from metamorphosis.config.hostname import own_address
from metamorphosis.errors import InvalidConfig, InvalidConsumerConfig

if TYPE_CHECKING:
    from metamorphosis.client.settingtypes import AllClientSettings, AllConsumerSettings

MAX_OFFSET: Final = (1 << 63) - 1
"""As a start offset: the end of the partition."""

AT_TIME: Final = MAX_OFFSET - 1
"""As a position: the place of ``ConsumerConfig.offset_at_ms``, before it is known."""

INVALID_IN_GROUP: Final = "~!#$%^&*()+=`'\",;/?[]<>.: "
"""Characters that are invalid in a group's name."""


def normalise_url(text: str) -> str:
    """
    ``meta://host:port``, also from ``host:port``; a query is dropped.

    :raises InvalidConfig: the text is neither.
    """
    try:
        return checks.url_of(text)
    except ValueError as error:
        raise InvalidConfig(
            f"broker {text!r}: host:port or meta://host:port expected, as in localhost:8123"
        ) from error


def _processors() -> int:
    return os.cpu_count() or 1


def _home(name: str) -> Path:
    return Path.home() / name


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """
    Settings of a session factory and of all it creates.

    Either ``zookeeper`` or ``broker`` has to be given.

    :raises InvalidConfig: from the constructor, with the setting's name in the text.
    """

    zookeeper: str | None = None
    """The servers of ZooKeeper: ``host:port,host:port/chroot``. This or ``broker``."""
    broker: str | None = None
    """Direct mode: the one broker, without ZooKeeper (``serverUrl``)."""
    zookeeper_root: str = "/meta"
    """The node below which brokers and groups register, ``zk.zkRoot`` of the brokers."""
    zookeeper_session_timeout_ms: int = 30000
    """ZooKeeper gives the partitions of a consumer that died to others after so long."""
    zookeeper_connection_timeout_ms: int = 30000
    """Time limit of ``start`` for the first session."""
    zookeeper_sync_time_ms: int = 5000
    """The pause between two attempts to rebalance."""

    recover_message_interval_ms: int = 300000
    """Between two attempts to deliver messages that were kept for later."""
    recover_thread_count: int = field(default_factory=_processors)
    """The number of messages that are recovered at a time."""
    partitions_info: Mapping[str, str] = field(default_factory=dict)
    """Ordered producers: topic -> ``<brokerId>:<count>;<brokerId>:<count>``."""

    send_timeout_ms: int = 3000
    """Time limit of the reply to each attempt to send a message."""
    delivery_timeout_ms: int = 120000
    """Time limit of all attempts to send a message, if their number is not limited."""
    stats_timeout_ms: int = 3000
    """How long ``get_stats`` waits for each broker."""
    connect_timeout_ms: int = 80000
    """Direct mode: time limit of ``start`` for the broker."""
    refused_timeout_ms: int = 5000
    """Shorter time limit if every attempt to connect is refused, or the name cannot be resolved.
    Set it to the limits above to wait for servers that are started later."""
    connect_attempt_timeout_ms: int = 10000
    """Time limit of an attempt to connect; then the next one begins."""
    publish_connect_timeout_ms: int = 10000
    """Time limit of ``publish`` for each broker of the topic."""
    heartbeat_idle_ms: int = 10000
    """A request for the version is sent on a connection that was silent for this time."""
    heartbeat_timeout_ms: int = 5000
    """How long the answer to that may take."""
    heartbeat_failures: int = 3
    """The number of unanswered heartbeats in a row that ends the connection."""
    max_scheduled_written_bytes: int = 16 << 20
    """Limit of requests that wait for a broker's socket; above it the connection is not
    ``writable``."""
    max_reply_line_bytes: int = 4096
    """Longest first line of a reply; a longer one ends the connection."""
    max_reply_bytes: int = 64 << 20
    """Longest body of a reply; a longer one is a fault of the broker, and ends the connection."""
    loopback_connection: bool = False
    """Connect to ``localhost`` if a broker's address belongs to this machine."""

    duplicate_cache_size: int = 4096
    """The number of remembered message ids, to detect duplicates."""
    max_body_bytes: int = 2097152
    """Longest message, including its attribute: producers refuse longer ones (``MessageTooLarge``),
    consumers skip them unless the subscription's ``max_size`` is larger. The default is that of
    the consumers of all clients."""
    recover_path: Path = field(default_factory=lambda: _home(".meta_recover"))
    """Messages that a consumer could not process."""
    local_message_path: Path = field(default_factory=lambda: _home(".meta_localmessage"))
    """Messages that an ordered producer could not send."""
    async_storage_path: Path = field(default_factory=lambda: _home(".meta_async_storage"))
    """Messages that a one-way producer could not send."""
    ordered_save_to_local_when_failed: bool = False
    """Ordered producers keep a message locally after any refusal of the broker."""
    xa_producer_host_name: str | None = None
    """XA producers: in place of this machine's name in their ``unique_qualifier``."""

    def __post_init__(self) -> None:
        _check(self, InvalidConfig)
        _check_target(self)
        for name in ("recover_path", "local_message_path", "async_storage_path"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "partitions_info", MappingProxyType(dict(self.partitions_info)))

    @property
    def direct(self) -> bool:
        """Whether a single broker is used, without ZooKeeper."""
        return self.broker is not None

    def replaced(self, **changes: Unpack[AllClientSettings]) -> Self:
        """
        A copy with other values.

        :raises InvalidConfig: an unknown setting, or an invalid value.
        """
        return self.with_values(changes)

    def with_values(self, changes: Mapping[str, object]) -> Self:
        """The same, of values whose types are not known before."""
        return replace(self, **known(type(self), changes, InvalidConfig))


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig:
    """
    Settings of one consumer, in addition to the ``ClientConfig`` of its factory.

    :raises InvalidConsumerConfig: from the constructor, with the setting's name in the text.
    """

    group: str
    """The members of a group share the partitions of a topic; each group gets all messages."""
    consumer_id: str | None = None
    """Replaces the generated part of the member's id; unique in the group."""
    fetch_runner_count: int = field(default_factory=_processors)
    """Without meaning: every partition is fetched by itself. ``max_deliveries`` limits calls."""
    fetch_timeout_ms: int = 10000
    """Limit of one ``get`` or ``offset`` request."""
    max_delay_fetch_time_ms: int = 5000
    """Longest pause between two fetches of a partition."""
    commit_offset_period_ms: int = 5000
    """Between two commits of the positions; a crash repeats what was done since the last one."""
    max_fetch_retries: int = 5
    """The number of further deliveries of a failing message before it is rejected."""
    max_increase_fetch_data_retries: int = 5
    """The number of fetches without a whole message before the fetch size is doubled."""
    offset: int = 0
    """The start without a stored offset, bytes; ``MAX_OFFSET``: the end."""
    offset_at_ms: int | None = None
    """The start without a stored offset: the first message of this time or later, ms since 1970;
    replaces ``offset``. ``Consumer.offset_at`` describes the accuracy. For messages of a Java
    broker, which have no time: the beginning, with a warning."""
    always_consume_from_max_offset: bool = False
    """Start at the end, even if an offset is stored."""
    partition: str | None = None
    """Direct mode: ``<brokerId>-<number>``."""
    load_balance_strategy: str = "DEFAULT"
    """``DEFAULT`` or ``CONSIST``; the same in every member of the group."""

    long_poll_ms: int = 5000
    """Time for which a broker may hold a ``get`` at the end of the log; 0: it replies at once. At
    most half of ``fetch_timeout_ms`` is requested."""
    max_buffered_bytes: int = 64 << 20
    """Limit of fetched and undelivered bytes of all partitions: each has the same share for two
    fetches, which limits their size. A longer message is fetched nevertheless."""
    max_deliveries: int = 0
    """Limit of pending listener calls of all partitions; 0: one per partition."""
    stop_timeout_ms: int = 60000
    """Time limit of a rebalance or ``close`` for a busy listener; messages that it finishes later
    are not acknowledged. 0: unlimited, as in the original."""

    def __post_init__(self) -> None:
        _check(self, InvalidConsumerConfig)
        if self.offset_at_ms is not None and (self.offset or self.always_consume_from_max_offset):
            other = "offset" if self.offset else "always_consume_from_max_offset"
            raise InvalidConsumerConfig(f"both offset_at_ms and {other} are given; leave one out")
        object.__setattr__(self, "load_balance_strategy", self.load_balance_strategy.upper())

    def replaced(self, **changes: Unpack[AllConsumerSettings]) -> Self:
        """
        A copy with other values.

        :raises InvalidConsumerConfig: an unknown setting, or an invalid value.
        """
        return self.with_values(changes)

    def with_values(self, changes: Mapping[str, object]) -> Self:
        """The same, of values whose types are not known before."""
        return replace(self, **known(type(self), changes, InvalidConsumerConfig))

    def from_max_offset(self, always: bool = False) -> Self:
        """
        A copy that starts at the end: for a new group, or with ``always`` even if an offset is
        stored.

        Source: ``setConsumeFromMaxOffset`` of 1.4.6.2.
        """
        return self.replaced(
            offset=MAX_OFFSET, offset_at_ms=None, always_consume_from_max_offset=always
        )

    @property
    def start(self) -> int:
        """The position of a partition without a stored one: an offset, or ``AT_TIME``."""
        return self.offset if self.offset_at_ms is None else AT_TIME


def broadcast_config(config: ConsumerConfig, host: str | None = None) -> ConsumerConfig:
    """
    A copy with a separate group for this machine, so that every machine gets all messages.

    :param host: None: the address in the ids of this machine's clients.

    Source: ``MetaBroadcastMessageSessionFactory.updateGroupForBroadcast``.

    Differs: a copy; the original appends to the group of the given object, at each call again. The
    brackets of an IPv6 address are removed; the original refuses such a group.

    :raises InvalidConsumerConfig: the group's name is invalid.
    """
    name = (own_address() if host is None else host).strip("[]")
    for character in ".:%":
        name = name.replace(character, "-")
    return config.replaced(group=f"{config.group}-{name}")


def known(
    config: type, values: Mapping[str, object], error: type[InvalidConfig]
) -> Mapping[str, Any]:
    """
    The values, if all of them are settings.

    :raises InvalidConfig: one is not; the text names the most similar setting.
    """
    names = [each.name for each in fields(config)]
    for name in values:
        if name not in names:
            from difflib import get_close_matches

            near = get_close_matches(name, names, 1)
            hint = f"; {near[0]} is one" if near else f"; those there are: {', '.join(names)}"
            raise error(f"{name} is not a setting of {config.__name__}{hint}")
    return values


def consumer_config(
    config: ConsumerConfig | None, group: str | None, settings: Mapping[str, object]
) -> ConsumerConfig:
    """The arguments of ``create_consumer``, as one ``ConsumerConfig``."""
    if group is not None:
        settings = {**settings, "group": group}
    if config is not None:
        if not isinstance(config, ConsumerConfig):
            raise InvalidConsumerConfig(checks.fault("config", config, "a ConsumerConfig expected"))
        return config.with_values(settings)
    return ConsumerConfig(**{"group": "", **known(ConsumerConfig, settings, InvalidConsumerConfig)})


def client_config(config: ClientConfig | None, settings: Mapping[str, object]) -> ClientConfig:
    """The arguments of a session factory, as one ``ClientConfig``."""
    given = {name: value for name, value in settings.items() if value is not None}
    if config is not None:
        if not isinstance(config, ClientConfig):
            raise InvalidConfig(checks.fault("config", config, "a ClientConfig expected"))
        return config.with_values(given)
    return ClientConfig(**known(ClientConfig, given, InvalidConfig))


def _check(config: ClientConfig | ConsumerConfig, error: type[InvalidConfig]) -> None:
    """Check all settings; a setting without a check fails every test."""
    for each in fields(config):
        if each.name == "group":
            _check_group(getattr(config, each.name))
            continue
        value = getattr(config, each.name)
        expected = SETTING_CHECKS[each.name](value)
        if expected is not None:
            raise error(checks.fault(each.name, value, expected))


def _check_target(config: ClientConfig) -> None:
    """Check that exactly one of ``zookeeper`` and ``broker`` is given, and normalise it."""
    if config.broker is not None and config.zookeeper is not None:
        raise InvalidConfig("both zookeeper and broker are given; broker means no ZooKeeper at all")
    if config.broker is not None:
        object.__setattr__(config, "broker", normalise_url(config.broker))
    elif config.zookeeper is None:
        raise InvalidConfig(
            "no zookeeper and no broker: give zookeeper='host:port' or broker='host:port'"
        )
    object.__setattr__(config, "zookeeper_root", normalise_root(config.zookeeper_root) or "/")


def _check_group(group: object) -> None:
    """Check a group's name; the texts are the original's."""
    if not isinstance(group, str) or not group.strip():
        raise InvalidConsumerConfig("Blank group")
    for character in group:
        if character in INVALID_IN_GROUP or character.isspace():
            raise InvalidConsumerConfig(f"Group name has invalid character {character}")


def unclosed_warning(config: ClientConfig) -> str:
    """The warning about a session factory of these settings that was dropped without ``close``."""
    where = config.broker or f"ZooKeeper at {config.zookeeper}"
    return f"a session factory of {where} was not closed; use it in a with statement, or call close"
