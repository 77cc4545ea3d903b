"""The command lines of ``metaq compare``, ``metaq slave-status`` and ``metaq promote``."""

from __future__ import annotations

import argparse
import os
from typing import TypeAlias

from metamorphosis.cli.arguments import positive

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

COMPARE_STATUS = """\
exit status: 0 when in every partition one log begins with the other, 1 when not, or when a side
cannot be read (one line on standard error says why), 2 for a wrong command line.
"""

SLAVE_STATUS = """\
exit status: 0 when everything is copied, 1 when not (one line on standard error says why), 2 for a
wrong command line.
"""

PROMOTE_STATUS = """\
exit status: 0 when it was done, 1 when not (one line on standard error says why), 2 for a command
line or a server.ini that makes no sense.
"""


def add_replication(commands: Commands) -> None:
    """Add the commands."""
    _compare(commands)
    _slave_status(commands)
    _promote(commands)


def _compare(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare the logs of two brokers, or of their data directories",
        description="Compare every byte that both have. Each side is HOST:PORT of a broker, the"
        " original or ours, or a data directory, whose broker may be stopped.",
        epilog=COMPARE_STATUS,
    )
    parser.add_argument("a", metavar="A", help="HOST:PORT or a directory")
    parser.add_argument("b", metavar="B", help="HOST:PORT or a directory")
    parser.add_argument("--json", action="store_true", help="one JSON object for each partition")
    _connection(parser)


def _slave_status(commands: Commands) -> None:
    parser = commands.add_parser(
        "slave-status",
        help="show how far a replicated broker is",
        description="Ask an asynchronous slave, or a member of a synchronous pair, what it has"
        " copied, what it lacks, and why a partition stands.",
        epilog=SLAVE_STATUS,
    )
    known = os.environ.get("METAQ_BROKER")
    parser.add_argument(
        "--broker",
        required=not known,
        default=known,
        metavar="HOST:PORT",
        help="the broker to ask (default: METAQ_BROKER of the environment)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(zookeeper=None, root="/meta")
    _connection(parser)


def _promote(commands: Commands) -> None:
    parser = commands.add_parser(
        "promote",
        help="make a stopped slave ready to be the master",
        description="Run this on the machine of the slave, which is stopped, when its master is"
        " gone for good. It shows what the old master has that is missing here, corrects the"
        " positions of consumers in ZooKeeper, and says what to start.",
        epilog=PROMOTE_STATUS,
    )
    parser.add_argument(
        "-f", "--config", required=True, metavar="FILE", help="the server.ini of the slave"
    )
    parser.add_argument(
        "--old",
        metavar="OLD",
        help="the old master: HOST:PORT, or a data directory (default: where it was registered"
        " last)",
    )
    parser.add_argument(
        "--check", action="store_true", help="only say what is missing and what would be corrected"
    )
    _connection(parser)


def _connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=positive(float),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a connection or an answer (default: %(default)g)",
    )
    parser.add_argument("--verbose", action="store_true", help="say what happens meanwhile")
