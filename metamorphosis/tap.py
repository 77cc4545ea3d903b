"""
``twistd metaq``: options, and the service they describe.

Both configuration files are read completely before anything starts; every fault of both is said at
once. Faults of a file end the process here instead of becoming a ``usage.UsageError``: ``twistd``
would print sixty lines of its own help before them, and before 26.10 report success.

Source: ``MetamorphosisStartup``, ``ServerStartup``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import twisted
from twisted.python import usage

from metamorphosis import __version__
from metamorphosis.config import serverini, settings
from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.errors import ConfigError

if TYPE_CHECKING:
    from metamorphosis.service import BrokerService

T = TypeVar("T")

EPILOGUE = """
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

    :ivar broker_config: of ``--config``, complete and free of faults.
    :ivar broker_settings: of ``--settings``, or of the file beside ``server.ini``, or the defaults.
    """

    synopsis = "-f server.ini [options]"

    longdesc = (
        "Runs a MetaQ broker for the clients of Metamorphosis 1.4, on the server.ini and the data"
        " directories of the original broker as they are."
    )

    optParameters = [
        ["config", "f", None, "The server.ini of this broker (required)."],
        [
            "settings",
            None,
            None,
            f"Settings that the original does not have; without this option {settings.FILE_NAME}"
            " beside server.ini is read if it exists.",
        ],
    ]

    optFlags = [["check", None, "Read both files, say what is wrong with them and end."]]

    compData = usage.Completions(
        optActions={
            "config": usage.CompleteFiles("*.ini"),
            "settings": usage.CompleteFiles("*.ini"),
        }
    )

    broker_config: BrokerConfig
    broker_settings: Settings

    def opt_version(self) -> None:
        """
        Print the versions of metamorphosis, Twisted and Python, and exit.
        """
        python = sys.version.partition(" ")[0]
        print(f"metamorphosis {__version__}, Twisted {twisted.__version__}, Python {python}")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The usual text, and what ``usage`` would make one paragraph of."""
        return f"{super().getUsage(width)}{EPILOGUE}"

    def postOptions(self) -> None:
        """
        Read both files.

        :raises SystemExit: one of them is faulty, or ``--check`` was given.
        """
        if not self["config"]:
            raise SystemExit(
                "Please tell me the configuration file path by -f option,"
                " as in: twistd -n metaq -f server.ini"
            )
        faults: list[str] = []
        config = _read(lambda: serverini.load(self["config"]), faults)
        own = _read(lambda: settings.load_for(self["config"], self["settings"]), faults)
        if config is None or own is None:
            raise SystemExit("\n".join(faults))
        self.broker_config, self.broker_settings = config, own
        if self["check"]:
            for warning in (*config.warnings, *own.warnings):
                print(f"warning: {warning}")
            print(describe(config, own))
            raise SystemExit(0)


def _read(load: Callable[[], T], faults: list[str]) -> T | None:
    """What ``load`` returns; its faults are added to ``faults``."""
    try:
        return load()
    except ConfigError as error:
        faults.append(str(error))
        return None


def describe(config: BrokerConfig, own: Settings) -> str:
    """What ``--check`` found, for a person."""
    zookeeper = config.zookeeper
    registers = f"{zookeeper.connect}, root {zookeeper.root}" if zookeeper.enable else "not used"
    return "\n".join(
        (
            f"{config.path} is good:",
            f"    broker     {config.broker_id}, port {config.server_port}",
            f"    data       {os.path.abspath(config.data_path)}",
            f"    ZooKeeper  {registers}",
            f"    topics     {', '.join(sorted(config.topics))}",
            f"{own.path} is good" if own.path else "no settings file: all defaults",
        )
    )


def makeService(options: Options) -> BrokerService:  # noqa: N802 - twistd's name
    """The broker that ``options`` describe."""
    from twisted.internet import reactor

    from metamorphosis.process import Signals, keep_freed_memory, raise_file_limit
    from metamorphosis.service import BrokerService

    raise_file_limit()
    keep_freed_memory()
    service = BrokerService(reactor, options.broker_config, options.broker_settings)
    Signals(reactor, service.hurry, service.reload).install()
    return service
