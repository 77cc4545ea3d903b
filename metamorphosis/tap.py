"""
``twistd metaq``: its options, and the service made from them.

Both configuration files are read completely before any part starts; all faults of both are reported
at once. Faults of a file end the process here instead of becoming a ``usage.UsageError``:
``twistd`` would print sixty lines of its own help before them, and before 26.10 exit with status 0.

Source: ``MetamorphosisStartup``, ``ServerStartup``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from twisted.python import usage

import twisted
from metamorphosis import __version__, native
from metamorphosis.config import serverini, settings
from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.config.roles import PairSlaveConfig, RoleConfig, RoleKind, load_role
from metamorphosis.daemon import logs
from metamorphosis.errors import ConfigError
from metamorphosis.terminal import escape_output

if TYPE_CHECKING:
    from metamorphosis.daemon.local import LocalService
    from metamorphosis.daemon.roles import RoleOption
    from metamorphosis.daemon.service import BrokerService
    from metamorphosis.zookeeper.service import ZooKeeperSettings

T = TypeVar("T")

DIRECTORY = "metaq-data"
BROKER_PORT = 8123
ZOOKEEPER_PORT = 2181

NO_BROKER = BrokerConfig(broker_id=0, server_port=0)
"""Replaces a faulty ``server.ini``, so that the faults of a property file are also reported."""

EPILOGUE = """
Roles, one at most
  (none)         a master; any number of asynchronous slaves may follow it
  --slave FILE   an asynchronous slave: copies its master, and serves consumers
  --samsa FILE   the master of a synchronous pair: acknowledges what its slave has, too
  --gregor FILE  the slave of a synchronous pair; start it before its master
FILE is the property file of the original: async_slave.properties, samsa_master.properties,
gregor_slave.properties.

Options of twistd go before the word metaq: with "twistd -n metaq -f server.ini" the broker
stays in the foreground and logs to the terminal.

Signals
  SIGTERM, SIGINT  unregister from ZooKeeper, let clients leave, answer what is in flight,
                   flush, and end with status 0; a second one does not wait for clients
  SIGHUP           read both files again

Exit status
  0  stopped by a signal
  1  could not start; one line says why
"""


class Options(usage.Options):
    """
    The command line after ``twistd metaq``.

    :ivar broker_config: the configuration of ``--config``, complete and valid.
    :ivar broker_settings: the settings of ``--settings``, else of the file beside ``server.ini``,
        else the defaults.
    :ivar broker_role: the configuration of the role, None for a plain broker.
    :ivar zookeeper: the settings of the coordination service, None without ``--local``.
    """

    synopsis = "{-f server.ini | --local} [options]"

    longdesc = (
        "Runs a MetaQ broker for the clients of Metamorphosis 1.4, on the server.ini and the data"
        " directories of the original broker as they are."
    )

    optParameters = [
        ["config", "f", None, "The server.ini of this broker; without --local required."],
        [
            "settings",
            None,
            None,
            f"Settings that the original does not have; without this option {settings.FILE_NAME}"
            " beside server.ini is read if it exists.",
        ],
        ["data", None, None, f"With --local, without -f: where everything is ({DIRECTORY})."],
        ["port", None, None, f"With the same: the port of the broker ({BROKER_PORT})."],
        [
            "zookeeper-port",
            None,
            None,
            f"With the same: the port of the coordination service ({ZOOKEEPER_PORT}).",
        ],
        *logs.PARAMETERS,
    ]

    optFlags = [
        [
            "check",
            None,
            "Read both files, try what a start does short of listening and writing, say what is"
            " wrong, and end.",
        ],
        [
            "local",
            "l",
            "Run a coordination service in this process, where zk.zkConnect says, with its data"
            " beside dataPath: no ZooKeeper is needed. Without -f a server.ini is written, and used"
            " again by the next start.",
        ],
        [
            "accept-loss",
            None,
            "With --local: start once although the coordination service has less than it"
            " acknowledged, with what is there. Without it such a start is refused.",
        ],
    ]

    compData = usage.Completions(
        optActions={
            "config": usage.CompleteFiles("*.ini"),
            "settings": usage.CompleteFiles("*.ini"),
            "data": usage.CompleteDirs(),
            "log-file": usage.CompleteFiles("*.log"),
        }
    )

    broker_config: BrokerConfig
    broker_settings: Settings
    broker_role: RoleConfig | None = None
    zookeeper: ZooKeeperSettings | None = None

    def __init__(self) -> None:
        super().__init__()
        self._roles: list[RoleOption] = []

    def opt_slave(self, path: str) -> None:
        """Be an asynchronous slave, as this property file says."""
        self._add_role("slave", RoleKind.FOLLOWER, path)

    def opt_samsa(self, path: str) -> None:
        """Be the master of a synchronous pair, as this property file says."""
        self._add_role("samsa", RoleKind.PAIR_MASTER, path)

    def opt_gregor(self, path: str) -> None:
        """Be the slave of a synchronous pair, as this property file says."""
        self._add_role("gregor", RoleKind.PAIR_SLAVE, path)

    def _add_role(self, name: str, kind: RoleKind, path: str) -> None:
        from metamorphosis.daemon.roles import RoleOption

        self._roles.append(RoleOption(f"--{name} {path}", kind, path))

    def opt_plugin(self, text: str) -> None:
        """The same as the original has it: metaslave=FILE, samsa=FILE or gregor=FILE."""
        from metamorphosis.daemon.roles import plugin_option

        try:
            self._roles.append(plugin_option(text))
        except ConfigError as error:
            raise SystemExit(str(error)) from error

    opt_F = opt_plugin

    def opt_version(self) -> None:
        """
        Print the versions of metamorphosis, Twisted and Python, whether the part in C is used,
        and exit.
        """
        python = sys.version.partition(" ")[0]
        print(
            f"metamorphosis {__version__}, Twisted {twisted.__version__}, Python {python};"
            f" {native.way}"
        )
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The usual text, and the part that ``usage`` would join into one paragraph."""
        return f"{super().getUsage(width)}{EPILOGUE}"

    def postOptions(self) -> None:
        """
        Read both files.

        :raises SystemExit: one of them is faulty, options contradict each other, or ``--check`` was
            given.
        """
        escape_output()
        if self.parent is not None:
            from metamorphosis.daemon.process import use_pid_file

            use_pid_file(self.parent)
        if not self["check"]:
            logs.use_log_options(self, self.parent)
        self._check_local_options()
        role = self._role()
        path = self["config"] or self._local_config()
        faults: list[str] = []
        config = _read(lambda: serverini.load(path), faults)
        own = _read(lambda: settings.load_for(path, self["settings"]), faults)
        if role is not None:
            self.broker_role = _read(
                lambda: load_role(role.kind, role.path, config or NO_BROKER), faults
            )
        if config is None or own is None or faults:
            raise SystemExit("\n".join(faults))
        self.broker_config, self.broker_settings = config, own
        if self["local"]:
            self._prepare_local(config)
        if self["check"]:
            _check(config, own, self.broker_role)
            print(describe(config, own, self.zookeeper, self.broker_role))
            raise SystemExit(0)

    def _check_local_options(self) -> None:
        for name in ("data", "port", "zookeeper-port"):
            if self[name] is not None and not self["local"]:
                raise SystemExit(f"--{name} is for --local, and that is missing")
        if self["accept-loss"] and not self["local"]:
            raise SystemExit("--accept-loss is for --local, and that is missing")
        if self["data"] and self["config"]:
            raise SystemExit("--data: with -f, data is where dataPath says, and beside it")

    def _role(self) -> RoleOption | None:
        """The role of the command line."""
        from metamorphosis.daemon.roles import only_one

        try:
            role = only_one(self._roles)
        except ConfigError as error:
            raise SystemExit(str(error)) from error
        if role is not None and role.kind is RoleKind.FOLLOWER and self["local"]:
            raise SystemExit(
                f"{role.option} with --local: a slave finds its master in the ZooKeeper that both"
                " use, and that of --local is for this process only; leave --local out"
            )
        return role

    def _local_config(self) -> str:
        """The path of the ``server.ini`` under ``--data``, which is written if it does not
        exist."""
        if not self["local"]:
            raise SystemExit(
                "Please tell me the configuration file path by -f option,"
                " as in: twistd -n metaq -f server.ini; or try: twistd -n metaq --local"
            )
        from metamorphosis.daemon import local

        directory = self["data"] or DIRECTORY
        path = os.path.join(directory, local.SERVER_INI)
        if self["check"] and not os.path.exists(path):
            print(f"{path} does not exist; the first start writes it")
            raise SystemExit(0)
        ports = self._port("port", BROKER_PORT), self._port("zookeeper-port", ZOOKEEPER_PORT)
        text = local.default_server_ini(directory, *ports)
        try:
            return local.write_server_ini(directory, text)
        except ConfigError as error:
            raise SystemExit(str(error)) from error

    def _port(self, name: str, default: int) -> int:
        from metamorphosis.zookeeper.tap import integer

        return default if self[name] is None else integer(name, self[name], 1, 65535)

    def _prepare_local(self, config: BrokerConfig) -> None:
        """Set the settings of the coordination service; options that would have no effect are
        refused."""
        from metamorphosis.daemon import local

        try:
            self.zookeeper = zookeeper = local.zookeeper_settings(config)
        except ConfigError as error:
            raise SystemExit(str(error)) from error
        if self["accept-loss"]:
            self.zookeeper = replace(zookeeper, accept_loss=True)
        for name, key, value in (
            ("port", "serverPort", config.server_port),
            ("zookeeper-port", "zk.zkConnect", zookeeper.port),
        ):
            if self[name] not in (None, str(value)):
                raise SystemExit(
                    f"--{name} {self[name]}: {config.path} exists and has another port"
                    f" ({key}, {value}). Change it there, or leave --{name} out"
                )


def _read(load: Callable[[], T], faults: list[str]) -> T | None:
    """The result of ``load``; its faults are added to ``faults``."""
    try:
        return load()
    except ConfigError as error:
        faults.append(str(error))
        return None


def _check(config: BrokerConfig, own: Settings, role: RoleConfig | None) -> None:
    """
    Try the steps of a start.

    :raises SystemExit: with all faults.
    """
    from metamorphosis.daemon.check import try_start

    found = try_start(config, own, has_transactions=role is None)
    for warning in (*config.warnings, *own.warnings, *found.warnings):
        print(f"warning: {warning}")
    if role is not None:
        for warning in role.warnings:
            print(f"warning: {role.path}: {warning}")
    if found.problems:
        count = len(found.problems)
        headline = f"{config.path}: {count} problem{'' if count == 1 else 's'}"
        raise SystemExit("\n  ".join((headline, *found.problems)))


def describe(
    config: BrokerConfig,
    own: Settings,
    embedded: ZooKeeperSettings | None = None,
    role: RoleConfig | None = None,
) -> str:
    """The findings of ``--check``, as text."""
    zookeeper = config.zookeeper
    registers = f"{zookeeper.connect}, root {zookeeper.root}"
    if not zookeeper.enable or isinstance(role, PairSlaveConfig):
        registers = "not used"
    if embedded is not None:
        registers += f", which this process runs, with its data in {embedded.directory}"
    return "\n".join(
        (
            f"{config.path} is good:",
            f"    broker     {config.broker_id}, port {config.server_port}",
            f"    role       {'master' if role is None else role}",
            f"    data       {os.path.abspath(config.data_path)}",
            f"    ZooKeeper  {registers}",
            f"    topics     {', '.join(sorted(config.topics))}",
            f"{own.path} is good" if own.path else "no settings file: all defaults",
        )
    )


def makeService(
    options: Options,
) -> BrokerService | LocalService:
    """The broker that ``options`` describe, alone or with a coordination service."""
    from twisted.internet import reactor

    from metamorphosis.daemon.process import (
        Signals,
        keep_freed_memory,
        raise_file_limit,
        use_monotonic_timers,
    )
    from metamorphosis.daemon.roles import make_role
    from metamorphosis.daemon.service import BrokerService
    from metamorphosis.replication.role import PLAIN

    raise_file_limit()
    keep_freed_memory()
    use_monotonic_timers(reactor)
    config, own = options.broker_config, options.broker_settings
    try:
        role = PLAIN if options.broker_role is None else make_role(options.broker_role)
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    if options.zookeeper is not None:
        from metamorphosis.daemon.local import local_service

        both = local_service(reactor, config, own, options.zookeeper, role)
        Signals(reactor, both.broker.hurry, both.broker.reload).install()
        return both
    service = BrokerService(reactor, config, own, role)
    Signals(reactor, service.hurry, service.reload).install()
    return service
