"""The command line of ``metaq``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

from metamorphosis import __version__
from metamorphosis.cli.consume import EARLIEST, LATEST, STORED
from metamorphosis.cli.replicationoptions import add_replication
from metamorphosis.cli.txoptions import add_tx

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

STATUS = """\
exit status: 0 when the whole command succeeded, 1 when not (one line on standard error
says why), 2 for a wrong command line, 130 when interrupted, 141 when the output was closed by its
reader.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: None: those of the process.
    :raises SystemExit: they make no sense, or ask for help.
    """
    parser = argparse.ArgumentParser(
        prog="metaq",
        description="Produce and consume messages of a MetaQ cluster, and look at it.",
        epilog=STATUS,
    )
    parser.add_argument("--version", action="version", version=f"metaq {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()
    for add in (_produce, _consume, _offsets, _topics):
        add(commands, common)
    add_tx(commands)
    add_replication(commands)
    return parser.parse_args(arguments)


def _common() -> argparse.ArgumentParser:
    """Where the cluster is."""
    common = argparse.ArgumentParser(add_help=False)
    where = common.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--zookeeper", metavar="HOSTS", help="host:port,host:port/chroot of the cluster's ZooKeeper"
    )
    where.add_argument(
        "--broker", metavar="HOST:PORT", help="one broker, directly and without ZooKeeper"
    )
    common.add_argument(
        "--root", default="/meta", help="the cluster's root in ZooKeeper (default: %(default)s)"
    )
    common.add_argument(
        "--timeout",
        type=_positive(float),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a connection (default: %(default)g)",
    )
    common.add_argument("--verbose", action="store_true", help="say what happens meanwhile")
    return common


def _produce(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "produce",
        parents=[common],
        help="send messages",
        description="Send each line of standard input as a message, in their order within each"
        " partition. After the first one that cannot be sent no further one is tried.",
        epilog=STATUS,
    )
    parser.add_argument("topic")
    parser.add_argument("--attribute", help="of every message")
    parser.add_argument(
        "--partition", help="<brokerId>-<number>, or a number where there is one broker"
    )
    parser.add_argument("--file", metavar="PATH", help="send the whole file as one message")
    _longest(parser, "refuse longer messages")
    parser.add_argument(
        "--rate", type=_positive(float), metavar="N", help="at most N messages a second"
    )
    parser.add_argument(
        "--transaction",
        type=_positive(int),
        metavar="N",
        help="store every N messages as one, and those that are left at the end: all of them or"
        " none; they go to one broker",
    )
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="several messages of a partition at a time: faster; their order is kept only by a"
        " broker that answers in order, and as long as nothing fails",
    )


def _consume(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "consume",
        parents=[common],
        help="receive messages as a member of a group",
        description="Write the bodies of a topic's messages to standard output, each with a line"
        " end after it. Positions of the group are kept in ZooKeeper, with --broker in"
        " ~/.meta_offsets.",
        epilog=STATUS,
    )
    parser.add_argument("topic")
    parser.add_argument("--group", required=True)
    parser.add_argument(
        "--from",
        dest="start",
        choices=(EARLIEST, LATEST, STORED),
        default=STORED,
        help="where to begin, whatever the group's position is; stored: there, and a new group"
        " with the oldest message (default: %(default)s)",
    )
    parser.add_argument("--max", type=_positive(int), metavar="N", help="end after N messages")
    parser.add_argument(
        "--idle",
        type=_positive(float),
        metavar="SECONDS",
        help="end when nothing has come for so long, although the brokers answer",
    )
    _longest(parser, "pass over longer messages")
    parser.add_argument("--json", action="store_true", help="one JSON object for each message")


def _longest(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--max-body-bytes",
        type=_positive(int),
        metavar="BYTES",
        help=f"{what} (default: 2097152, which all consumers take unless told otherwise)",
    )


def _offsets(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "offsets",
        parents=[common],
        help="show how far groups are, or set it",
        description="Show the positions of groups and how many bytes they have before them. With"
        " --to, set the positions of a group of which no member is running.",
        epilog=STATUS,
    )
    parser.add_argument("topic", nargs="?", help="default: every topic the group has positions of")
    parser.add_argument("--group", help="default: every group in ZooKeeper")
    parser.add_argument("--partition", help="<brokerId>-<number>; default: all")
    parser.add_argument(
        "--to", type=_target, metavar="earliest|latest|N", help="where the group is to go on"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each row")


def _topics(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "topics",
        parents=[common],
        help="show topics and their partitions",
        description="Show topics, their partitions, the brokers that have them, and the offsets of"
        " the oldest message and after the newest one. Messages are counted by the brokers: those"
        " stored since the start and those of the newest file then.",
        epilog=STATUS,
    )
    parser.add_argument("topic", nargs="*", help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object for each topic")


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return value

    return parse


def _target(text: str) -> str:
    if text not in (EARLIEST, LATEST) and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither earliest nor latest nor an offset")
    return text
