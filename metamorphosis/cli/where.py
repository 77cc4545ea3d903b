"""
The cluster of a command: from the command line, else from environment variables, else from a
configuration file.

The file has one section for each named cluster, and one for commands without a name::

    [metaq]
    zookeeper = zk1:2181,zk2:2181/shop
    root = /meta
    timeout = 10

    [cluster test]
    broker = 127.0.0.1:8123
"""

from __future__ import annotations

import configparser
import difflib
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace

from metamorphosis.errors import ConfigError

FILE_NAME = "metaq.ini"
SECTION = "metaq"
CLUSTER = "cluster "
"""Prefix of the names of the other sections."""

ROOT = "/meta"
TIMEOUT = 10.0

KEYS = ("zookeeper", "broker", "root", "timeout")

NOWHERE = (
    "which cluster? Give --zookeeper HOSTS or --broker HOST:PORT, or set METAQ_ZOOKEEPER or"
    " METAQ_BROKER, or write zookeeper=HOSTS below [metaq] in {path}"
)


class NoCluster(ConfigError):
    """No cluster is named, or two names contradict each other."""


@dataclass(frozen=True, slots=True)
class Where:
    """
    A cluster.

    :ivar zookeeper: its connect string; None in direct mode.
    :ivar broker: ``host:port``; None in ZooKeeper mode.
    :ivar timeout: seconds to wait for a connection.
    """

    zookeeper: str | None = None
    broker: str | None = None
    root: str = ROOT
    timeout: float = TIMEOUT


def locate(options: Namespace, environment: Mapping[str, str]) -> Where:
    """
    Find the cluster. A value that is missing in one of the three sources is taken from the next;
    but the cluster of one source is not mixed with parts of another.

    :param options: with ``zookeeper``, ``broker``, ``root``, ``timeout``, ``cluster`` and
        ``config``, each None if it was not given.
    :raises NoCluster: no source names a cluster, or one names two.
    :raises ConfigError: the file cannot be read, or has faults.
    """
    path, is_asked_for = _path(options, environment)
    named = options.cluster or environment.get("METAQ_CLUSTER")
    given = Where(options.zookeeper, options.broker)
    if given.zookeeper or given.broker:
        if options.cluster:
            used = "--zookeeper" if given.zookeeper else "--broker"
            raise NoCluster(f"--cluster {options.cluster} and {used}: give one of them")
    elif not options.cluster:
        given = _of_environment(environment)
    if given.zookeeper or given.broker:
        found = given
    elif named or is_asked_for or os.path.exists(path):
        found = _of_file(path, named)
    else:
        raise NoCluster(NOWHERE.format(path=path))
    root = options.root or environment.get("METAQ_ROOT") or found.root
    return replace(found, root=root, timeout=options.timeout or found.timeout)


def _path(options: Namespace, environment: Mapping[str, str]) -> tuple[str, bool]:
    """The path of the configuration file, and whether it was named by the user."""
    named = options.config or environment.get("METAQ_CONFIG")
    if named:
        return named, True
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(
        environment.get("HOME") or os.path.expanduser("~"), ".config"
    )
    return os.path.join(home, FILE_NAME), False


def _of_environment(environment: Mapping[str, str]) -> Where:
    zookeeper, broker = (environment.get(f"METAQ_{each}") for each in ("ZOOKEEPER", "BROKER"))
    if zookeeper and broker:
        raise NoCluster(
            "METAQ_ZOOKEEPER and METAQ_BROKER are both set: unset one of them, or give"
            " --zookeeper or --broker"
        )
    return Where(zookeeper or None, broker or None)


def _of_file(path: str, cluster: str | None) -> Where:
    """The cluster of a section of the file, of ``[metaq]`` without a name."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8") from None
    except configparser.Error as error:
        raise ConfigError(" ".join(str(error).replace("<string>", path).split())) from None
    _check_sections(path, parser)
    name = SECTION if cluster is None else f"{CLUSTER}{cluster}"
    if not parser.has_section(name):
        there = ", ".join(each.removeprefix(CLUSTER) for each in _clusters(parser)) or "none"
        raise NoCluster(f"{path}: there is no section [{name}]; clusters with a name: {there}")
    return _of_section(path, name, parser[name])


def _clusters(parser: configparser.ConfigParser) -> list[str]:
    return [each for each in parser.sections() if each.startswith(CLUSTER)]


def _check_sections(path: str, parser: configparser.ConfigParser) -> None:
    """
    Check the names of sections and keys.

    :raises ConfigError: a section or a key is unknown.
    """
    for name in parser.sections():
        is_cluster = name.startswith(CLUSTER) and bool(name.removeprefix(CLUSTER).strip())
        if name != SECTION and not is_cluster:
            raise ConfigError(f"{path}: section [{name}]: [metaq] or [cluster NAME] expected")
        for key in parser[name]:
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, 1)
                hint = f"; do you mean {near[0]}?" if near else f"; keys are {', '.join(KEYS)}"
                raise ConfigError(f"{path}: section [{name}]: unknown key {key}{hint}")


def _of_section(path: str, name: str, section: Mapping[str, str]) -> Where:
    zookeeper, broker = section.get("zookeeper"), section.get("broker")
    if bool(zookeeper) == bool(broker):
        what = "has both zookeeper and broker" if broker else "has neither zookeeper nor broker"
        raise NoCluster(f"{path}: section [{name}] {what}; one of them is needed")
    text = section.get("timeout", str(TIMEOUT))
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"{path}: section [{name}]: timeout={text} is not a number above 0")
    return Where(zookeeper or None, broker or None, section.get("root") or ROOT, timeout)
