"""The command lines of the commands that show a cluster."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from metamorphosis.cli.arguments import count, positive, target

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_looks(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    """Add the commands."""
    for add in (_offsets, _lag, _topics, _brokers, _stats):
        add(commands, common, status)


def _offsets(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "offsets",
        parents=[common],
        help="show the positions of groups, or set them",
        description="Show the positions of groups and how many bytes they have before them. With"
        " --to, set the positions of a group of which no member is running.",
        epilog=status,
    )
    _of_groups(parser)
    parser.add_argument(
        "--to", type=target, metavar="earliest|latest|N", help="the new position of the group"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each row")


def _lag(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "lag",
        parents=[common],
        help="show the unread bytes and messages of groups",
        description="Show the bytes and the messages that groups have before them in each"
        " partition, the member that reads it, and the time of the last commit there. Messages are"
        " counted in the next 256 KiB; where more is left, their number is an estimate from"
        " those, with a ~ before it.",
        epilog=status + "With --max and --max-messages: 1 when there is more in one partition.\n",
    )
    _of_groups(parser)
    parser.add_argument(
        "--watch",
        type=positive(float),
        metavar="SECONDS",
        help="repeat after this time, until interrupted",
    )
    parser.add_argument(
        "--max", type=count, metavar="BYTES", help="more than this in a partition is a failure"
    )
    parser.add_argument(
        "--max-messages", type=count, metavar="N", help="more than this is a failure, too"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each row")


def _of_groups(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", help="default: every topic the group has positions of")
    parser.add_argument("--group", help="default: every group in ZooKeeper")
    parser.add_argument("--partition", help="<brokerId>-<number>; default: all")


def _topics(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "topics",
        parents=[common],
        help="show topics and their partitions",
        description="Show topics, their partitions, the brokers that have them, and the offsets of"
        " the oldest message and after the newest one. Messages are counted by the brokers: those"
        " stored since the start and those of the newest file then.",
        epilog=status,
    )
    parser.add_argument("topic", nargs="*", help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object for each topic")


def _brokers(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "brokers",
        parents=[common],
        help="show masters and slaves",
        description="Show the brokers of a cluster, masters and asynchronous slaves, with the"
        " figures of each. The slave of a synchronous pair is not in ZooKeeper: metaq slave-status"
        " asks it.",
        epilog=status,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each broker")


def _stats(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "stats",
        parents=[common],
        help="show the figures of brokers",
        description="Show the replies of brokers to the command stats: of all masters of the"
        " cluster and their asynchronous slaves, or of the one of --broker.",
        epilog=status,
    )
    parser.add_argument(
        "item",
        nargs="?",
        default="",
        metavar="ITEM",
        help="topics, offsets, realtime, config, replication, help, reset (zeroes the figures of"
        " realtime), or a topic (default: figures of the broker)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each broker")
