"""
The role of a command line, and its object made from the property file. The modules of a role are
imported only when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

from metamorphosis.config.roles import (
    FollowerConfig,
    PairMasterConfig,
    RoleConfig,
    RoleKind,
)
from metamorphosis.errors import ConfigError

if TYPE_CHECKING:
    from metamorphosis.replication.role import Role

_log = Logger()


@dataclass(frozen=True, slots=True)
class RoleOption:
    """
    A role that a command line names.

    :ivar option: the text of the option, for errors.
    :ivar path: the property file.
    """

    option: str
    kind: RoleKind
    path: str


def plugin_option(text: str) -> RoleOption:
    """
    The role of an option ``-F``: the name of one of the original's plugins, and its file.

    :raises ConfigError: the name is unknown, or the file is missing.
    """
    name, _, path = text.partition("=")
    names = ", ".join(kind.value for kind in RoleKind)
    try:
        kind = RoleKind(name.strip())
    except ValueError:
        raise ConfigError(f"-F {text}: the name in front of = must be one of {names}") from None
    if not path:
        raise ConfigError(f"-F {text}: the file is missing, as in -F {kind.value}=FILE")
    return RoleOption(f"-F {text}", kind, path)


def only_one(given: list[RoleOption]) -> RoleOption | None:
    """
    The role of the command line.

    Differs: of several roles the original takes ``metaslave`` and ignores the others.

    :raises ConfigError: there are several.
    """
    if len(given) > 1:
        options = " and ".join(each.option for each in given)
        raise ConfigError(f"{options}: a broker has one role; leave the others out")
    return given[0] if given else None


def make_role(config: RoleConfig) -> Role:
    """
    The role of a property file; the warnings of the file are logged.
    """
    for warning in config.warnings:
        _log.warn("{path}: {text}", path=config.path, text=warning)
    if isinstance(config, FollowerConfig):
        from metamorphosis.replication.follower.role import Follower

        return Follower(config)
    if isinstance(config, PairMasterConfig):
        from metamorphosis.replication.pairmaster.role import PairMaster

        return PairMaster(config)
    from metamorphosis.replication.pairslave.role import PairSlave

    return PairSlave(config)
