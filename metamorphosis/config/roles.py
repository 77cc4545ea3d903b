"""
The property file of a role, as values; all its faults are reported at once.

Source: ``SlaveConfig``, ``MetamorphosisSlaveBroker``, ``SamsaMasterBroker``, ``GregorSlaveBroker``.
Differs: with a faulty file the original neither serves nor ends; it reads any text other than
``true`` as false, and accepts the master itself as its slave.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final

from metamorphosis.config.faults import ConfigFaults, Fault
from metamorphosis.config.hostname import interface_addresses, is_java_host
from metamorphosis.config.keys import nearest
from metamorphosis.config.model import BrokerConfig
from metamorphosis.config.properties import Property, PropertyFile, parse

INT32_MAX: Final = (1 << 31) - 1
LONGEST_GROUP: Final = 255

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_NO_GROUP: Final = re.compile(r"[/\s\x00-\x1f\x7f]")


class RoleKind(Enum):
    """The roles, by the names of the original's plugins."""

    FOLLOWER = "metaslave"
    PAIR_MASTER = "samsa"
    PAIR_SLAVE = "gregor"


@dataclass(frozen=True, slots=True)
class FollowerConfig:
    """
    An asynchronous slave.

    :ivar slave_id: 0 or more, different for each slave of a master.
    :ivar group: the group name under which it reads from the master.
    :ivar max_delay_ms: the longest pause between two fetches of a partition that return nothing.
    :ivar syncs_config: whether topic sections of the master's ``server.ini`` are taken over.
    """

    slave_id: int  # slaveId
    group: str  # slaveGroup
    max_delay_ms: int = 500  # slaveMaxDelayInMills
    syncs_config: bool = False  # autoSyncMasterConfig
    path: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """For logs."""
        return f"asynchronous slave {self.slave_id}"

    def __str__(self) -> str:
        """For ``--check``."""
        takes = ", takes topics over from its server.ini" if self.syncs_config else ""
        return f"{self.name}, reads from its master as group {self.group}{takes} ({self.path})"


@dataclass(frozen=True, slots=True)
class PairMasterConfig:
    """
    A synchronous master.

    :ivar slave: ``host:port``.
    :ivar recovers_offsets: whether the offsets of consumers are corrected at the start.
    :ivar send_timeout_ms: the longest time that a put waits for the slave's answer.
    :ivar check_interval_ms: the time between two probes of a slave that has failed.
    :ivar failure_threshold: number of failures in a row after which the master withdraws from
        ZooKeeper.
    """

    slave: str  # slave
    recovers_offsets: bool = False  # recoverOffset
    send_timeout_ms: int = 2000  # sendToSlaveTimeoutInMills
    check_interval_ms: int = 100  # checkSlaveIntervalInMills
    failure_threshold: int = 100  # slaveContinuousFailureThreshold
    path: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    name: ClassVar[str] = "synchronous master"

    def __str__(self) -> str:
        """For ``--check``."""
        recovers = ", corrects the offsets of consumers" if self.recovers_offsets else ""
        return f"{self.name} of {self.slave}{recovers} ({self.path})"

    @property
    def slave_url(self) -> str:
        """``meta://host:port``, as in refusals."""
        return f"meta://{self.slave}"


@dataclass(frozen=True, slots=True)
class PairSlaveConfig:
    """A synchronous slave; its file must only exist."""

    path: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    name: ClassVar[str] = "synchronous slave"

    def __str__(self) -> str:
        """For ``--check``."""
        return f"{self.name} ({self.path})"


RoleConfig = FollowerConfig | PairMasterConfig | PairSlaveConfig


def load_role(kind: RoleKind, path: str, broker: BrokerConfig) -> RoleConfig:
    """
    Read the property file of a role.

    :raises ConfigFaults: with every fault of the file.
    """
    path = os.path.abspath(path)
    try:
        with open(path, "rb") as stream:
            file = parse(stream.read())
    except FileNotFoundError:
        raise ConfigFaults(path, [Fault(f"File {path} is not exists")]) from None
    except OSError as error:
        raise ConfigFaults(path, [Fault(f"the file cannot be read: {error.strerror}")]) from error
    reader = RoleReader(file)
    config = _READERS[kind](reader, path, broker)
    if reader.faults:
        raise ConfigFaults(path, reader.faults)
    return config


class RoleReader:
    """
    Reads values from a property file.

    :ivar faults: the faults found so far.
    """

    def __init__(self, file: PropertyFile) -> None:
        self.faults = list(file.faults)
        self._warnings = list(file.warnings)
        self._properties = file.properties
        self._known: list[str] = []

    def fault(self, key: str, text: str) -> None:
        """Record that the value of a key cannot be used."""
        found = self._properties.get(key)
        line = None if found is None else found.line
        self.faults.append(Fault(f"{key}: {text}", line))

    def text(self, key: str) -> str | None:
        """A value; None: the key is missing, or has a blank value."""
        self._known.append(key)
        found: Property | None = self._properties.get(key)
        return found.value or None if found is not None else None

    def integer(self, key: str, default: int, low: int, hint: str) -> int:
        """An integer of 32 bits from ``low`` on; the default replaces a faulty one."""
        text = self.text(key)
        if text is None:
            return default
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= INT32_MAX:
            self.fault(key, f"{hint}, found {text}")
            return default
        return int(text)

    def positive(self, key: str, default: int) -> int:
        """An integer above 0; see ``integer``."""
        hint = f"Invalid {key} value: a number above 0 is needed"
        return self.integer(key, default, 1, hint)

    def boolean(self, key: str, default: bool) -> bool:
        """``true`` or ``false``, in any case."""
        text = self.text(key)
        if text is None:
            return default
        if text.lower() not in ("true", "false"):
            self.fault(key, f"true or false is needed, found {text}")
        return text.lower() == "true"

    def warnings(self) -> tuple[str, ...]:
        """The warnings of the file, and one for each key that was not read."""
        unknown = [
            f"line {found.line}, {key}: this key is unknown and has no effect;"
            + (f" do you mean {nearest(key, self._known)}?" if self._known else " none has one")
            for key, found in self._properties.items()
            if key not in self._known
        ]
        return (*self._warnings, *unknown)


def _follower(reader: RoleReader, path: str, broker: BrokerConfig) -> FollowerConfig:
    hint = "Could not start as a slave broker: an integer from 0 on is needed"
    if reader.text("slaveId") is None:
        reader.fault(
            "slaveId",
            "this key is missing; an integer from 0 on is needed, another one for each slave of a"
            " master",
        )
    slave_id = reader.integer("slaveId", 0, 0, hint)
    group = reader.text("slaveGroup") or f"meta-slave-group_{slave_id}"
    wrong = group_problem(group)
    if wrong is not None:
        reader.fault("slaveGroup", wrong)
    return FollowerConfig(
        slave_id,
        group,
        reader.positive("slaveMaxDelayInMills", 500),
        reader.boolean("autoSyncMasterConfig", False),
        path,
        reader.warnings(),
    )


def group_problem(group: str) -> str | None:
    """The reason why this cannot be the name of a group, which is used in commands and in paths of
    ZooKeeper; None: it can."""
    hint = "letters, digits, -, _ and . are right"
    if len(group.encode()) > LONGEST_GROUP:
        return f"a group has at most {LONGEST_GROUP} bytes, found {len(group.encode())}"
    if group in (".", "..") or _NO_GROUP.search(group):
        return f"{group!r} cannot be the name of a group; {hint}"
    return None


def _pair_master(reader: RoleReader, path: str, broker: BrokerConfig) -> PairMasterConfig:
    slave = _slave(reader, broker)
    recovers = reader.boolean("recoverOffset", False)
    timeout = reader.positive("sendToSlaveTimeoutInMills", 2000)
    interval = reader.positive("checkSlaveIntervalInMills", 100)
    threshold = reader.positive("slaveContinuousFailureThreshold", 100)
    # These keys have no effect: there are no such threads. Faulty values are still reported.
    reader.positive("callbackThreadCount", 1)
    reader.boolean("recoverParallel", True)
    reader.positive("recoverParallelHint", 1)
    return PairMasterConfig(slave, recovers, timeout, interval, threshold, path, reader.warnings())


def _slave(reader: RoleReader, broker: BrokerConfig) -> str:
    """``host:port`` of the slave of a pair."""
    right = "<host>:<port> of the synchronous slave is needed, such as 10.0.0.2:8123"
    text = reader.text("slave")
    if text is None:
        reader.fault("slave", f"Blank slave; {right}")
        return ""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or not 0 < int(port) <= 65535:
        reader.fault("slave", f"{text} has no port from 1 to 65535; {right}")
    elif not is_java_host(host):
        reader.fault("slave", f"{host or 'nothing'} is no host; {right}")
    elif int(port) == broker.server_port and host.strip("[]") in _own_hosts(broker):
        reader.fault("slave", f"{text} is this broker's own address; {right}")
    return text


def _own_hosts(broker: BrokerConfig) -> Iterable[str]:
    """Names and addresses of this broker; no name is looked up."""
    yield from ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname())
    if broker.host_name:
        yield broker.host_name.strip("[]")
    yield from interface_addresses()


def _pair_slave(reader: RoleReader, path: str, broker: BrokerConfig) -> PairSlaveConfig:
    return PairSlaveConfig(path, reader.warnings())


_READERS: dict[RoleKind, Callable[[RoleReader, str, BrokerConfig], RoleConfig]] = {
    RoleKind.FOLLOWER: _follower,
    RoleKind.PAIR_MASTER: _pair_master,
    RoleKind.PAIR_SLAVE: _pair_slave,
}
