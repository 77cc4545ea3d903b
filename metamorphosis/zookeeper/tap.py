"""
``twistd metaq-zookeeper``: the coordination service alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.python import usage

from metamorphosis.daemon import logs
from metamorphosis.terminal import escape_output
from metamorphosis.zookeeper.service import ZooKeeperSettings

if TYPE_CHECKING:
    from metamorphosis.zookeeper.service import ZooKeeperService

EPILOGUE = """
Options of twistd go before the word metaq-zookeeper: with "twistd -n metaq-zookeeper --data DIR"
the service stays in the foreground and logs to the terminal. SIGTERM and SIGINT end it in order.
"""

ACCEPT_LOSS = (
    "Start once with the present files although the database has less than was acknowledged."
    " Without it such a start is refused."
)

NUMBERS = {
    "port": (0, 65535),
    "max-connections": (1, 1_000_000),
    "tick": (1, 3_600_000),
}
"""Options that are integers, their least and greatest value."""


class Options(usage.Options):
    """
    The command line after ``twistd metaq-zookeeper``.

    :ivar settings: the settings from the options.
    """

    synopsis = "--data DIR [options]"

    longdesc = (
        "Runs a coordination service of one node, for clients of ZooKeeper 3.4. It keeps"
        " acknowledged changes in a directory of its own and needs no Java."
    )

    optParameters = [
        ["data", None, None, "The directory of its files; created if missing (required)."],
        ["port", None, 2181, "The port to listen on."],
        [
            "interface",
            None,
            "127.0.0.1",
            "The address to listen on; 0.0.0.0 for every IPv4 and :: for every address. There is"
            " no encryption: leave it to a network that you trust.",
        ],
        ["max-connections", None, 1000, "Further connections are closed."],
        [
            "tick",
            None,
            2000,
            "Milliseconds; session timeouts are kept between 2 and 20 ticks.",
        ],
        *logs.PARAMETERS,
    ]

    optFlags = [["accept-loss", None, ACCEPT_LOSS]]

    compData = usage.Completions(optActions={"data": usage.CompleteDirs()})

    settings: ZooKeeperSettings

    def getUsage(self, width: int | None = None) -> str:
        """The usual text, and the part that ``usage`` would join into one paragraph."""
        return f"{super().getUsage(width)}{EPILOGUE}"

    def postOptions(self) -> None:
        """
        Check every option.

        :raises SystemExit: one of them is invalid; not a ``UsageError``, after whose text
            ``twistd`` prints sixty lines of its own.
        """
        escape_output()
        if self.parent is not None:
            from metamorphosis.daemon.process import use_pid_file

            use_pid_file(self.parent)
        logs.use_log_options(self, self.parent)
        if not self["data"]:
            raise SystemExit(
                "Please tell me the directory for the data by --data, as in:"
                " twistd -n metaq-zookeeper --data ./zookeeper-data"
            )
        if not isIPAddress(self["interface"]) and not isIPv6Address(self["interface"]):
            raise SystemExit(
                f"--interface {self['interface']}: an address such as 127.0.0.1 expected"
            )
        numbers = {name: integer(name, self[name], *NUMBERS[name]) for name in NUMBERS}
        self.settings = ZooKeeperSettings(
            self["data"],
            numbers["port"],
            self["interface"],
            numbers["max-connections"],
            numbers["tick"],
            accept_loss=bool(self["accept-loss"]),
        )


def integer(name: str, text: object, least: int, most: int) -> int:
    """
    The value of an option that is an integer.

    :raises SystemExit: it is not an integer, or out of bounds.
    """
    try:
        value = int(str(text))
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise SystemExit(f"--{name} {text}: a number from {least} to {most} expected")
    return value


def makeService(options: Options) -> ZooKeeperService:
    """The service that ``options`` describe."""
    from twisted.internet import reactor

    from metamorphosis.daemon.process import (
        Signals,
        keep_freed_memory,
        raise_file_limit,
        use_monotonic_timers,
    )
    from metamorphosis.zookeeper.service import ZooKeeperService

    raise_file_limit()
    keep_freed_memory()
    use_monotonic_timers(reactor)
    service = ZooKeeperService(reactor, options.settings)
    Signals(reactor, lambda: None, lambda: None).install()
    return service
