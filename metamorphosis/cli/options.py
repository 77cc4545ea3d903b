"""The command line of ``metaq``: its commands, and the options for the cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import shtab

from metamorphosis import __version__, native
from metamorphosis.cli.arguments import positive
from metamorphosis.cli.lookoptions import add_looks
from metamorphosis.cli.messageoptions import add_messages
from metamorphosis.cli.replicationoptions import add_replication
from metamorphosis.cli.txoptions import add_tx
from metamorphosis.cli.where import FILE_NAME, NoCluster, locate
from metamorphosis.errors import ConfigError

STATUS = """\
exit status: 0 when the whole command succeeded, 1 when not (one line on standard error
has the reason), 2 for a wrong command line, 130 when interrupted, 141 when the output was closed by
its reader.
"""

ENVIRONMENT = f"""\
environment: METAQ_ZOOKEEPER or METAQ_BROKER, METAQ_ROOT, METAQ_CLUSTER and METAQ_CONFIG stand for
--zookeeper, --broker, --root, --cluster and --config. Without any of them ~/.config/{FILE_NAME} is
read: [metaq] has zookeeper=HOSTS or broker=HOST:PORT, and root and timeout if they differ from the
defaults; [cluster NAME] has the same for --cluster NAME.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: None: those of the process.
    :raises SystemExit: they are wrong, name no cluster, or ask for help.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if hasattr(options, "cluster"):
        try:
            where = locate(options, os.environ)
        except (NoCluster, ConfigError) as error:
            parser.exit(2, f"metaq: {error}\n")
        options.zookeeper, options.broker = where.zookeeper, where.broker
        options.root, options.timeout = where.root, where.timeout
    return options


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="metaq",
        description="Produce and consume messages of a MetaQ cluster, and look at it.",
        epilog=STATUS + ENVIRONMENT,
    )
    parser.add_argument("--version", action="version", version=f"metaq {__version__}; {native.way}")
    shtab.add_argument_to(parser, "--print-completion", help="print the completion of a shell")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()
    add_messages(commands, common, STATUS)
    add_looks(commands, common, STATUS)
    add_tx(commands)
    add_replication(commands)
    return parser


def _common() -> argparse.ArgumentParser:
    """The options for the cluster."""
    common = argparse.ArgumentParser(add_help=False)
    where = common.add_mutually_exclusive_group()
    where.add_argument(
        "--zookeeper", metavar="HOSTS", help="host:port,host:port/chroot of the cluster's ZooKeeper"
    )
    where.add_argument(
        "--broker", metavar="HOST:PORT", help="one broker, directly and without ZooKeeper"
    )
    common.add_argument("--cluster", metavar="NAME", help="a section of the configuration file")
    common.add_argument(
        "--config", metavar="FILE", help=f"configuration file (default: ~/.config/{FILE_NAME})"
    )
    common.add_argument("--root", help="the cluster's root in ZooKeeper (default: /meta)")
    common.add_argument(
        "--timeout",
        type=positive(float),
        metavar="SECONDS",
        help="how long to wait for a connection (default: 10)",
    )
    common.add_argument("--verbose", action="store_true", help="log events to standard error")
    return common
