"""The command lines of ``metaq produce`` and ``metaq consume``."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from metamorphosis.cli.arguments import START_TEXT, STORED, positive, start
from metamorphosis.cli.formats import FIELDS, format_of

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_messages(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    """Add the commands."""
    _produce(commands, common, status)
    _consume(commands, common, status)


def _produce(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "produce",
        parents=[common],
        help="send messages",
        description="Send each line of standard input as a message, in their order within each"
        " partition. After the first one that cannot be sent no further one is tried.",
        epilog=status,
    )
    parser.add_argument("topic")
    parser.add_argument("--attribute", help="of every message")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--partition", help="<brokerId>-<number>, or a number with a single broker")
    place.add_argument("--key", help="messages with the same key go to the same partition")
    place.add_argument(
        "--key-separator",
        metavar="TEXT",
        help="each line is a key, this text, and the body of the message",
    )
    _sending(parser)


def _sending(parser: argparse.ArgumentParser) -> None:
    """Options for the sending of messages."""
    parser.add_argument("--file", metavar="PATH", help="send the whole file as one message")
    _longest(parser, "refuse longer messages")
    parser.add_argument(
        "--rate", type=positive(float), metavar="N", help="at most N messages a second"
    )
    parser.add_argument(
        "--transaction",
        type=positive(int),
        metavar="N",
        help="store every N messages as one, and those that are left at the end: all of them or"
        " none; they go to one broker",
    )
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="do not keep the order of the messages of a partition where a send is tried again, or"
        " where the broker is a Java broker, to which this is faster",
    )


def _consume(commands: Commands, common: argparse.ArgumentParser, status: str) -> None:
    parser = commands.add_parser(
        "consume",
        parents=[common],
        help="receive messages as a member of a group, or of one partition",
        description="Write the bodies of a topic's messages to standard output, each with a line"
        " end after it. With --group the command is a member of that group, whose positions are"
        " kept in ZooKeeper, with --broker in ~/.meta_offsets. With --partition it reads that"
        " partition, from its oldest message unless --from says otherwise, and keeps no position.",
        epilog=status,
    )
    parser.add_argument("topic")
    _reading(parser)
    _longest(parser, "pass over longer messages")
    _output(parser)


def _reading(parser: argparse.ArgumentParser) -> None:
    """Options for the begin and end of reading."""
    reader = parser.add_mutually_exclusive_group(required=True)
    reader.add_argument("--group")
    reader.add_argument("--partition", help="<brokerId>-<number>, or a number with a single broker")
    parser.add_argument(
        "--from",
        dest="start",
        type=start,
        default=STORED,
        metavar="WHERE",
        help=f"where to begin: {START_TEXT}. stored: at the group's position, and a new group with"
        " the oldest message. A time is the first message stored then or later; an offset needs"
        " --partition (default: %(default)s)",
    )
    parser.add_argument("--max", type=positive(int), metavar="N", help="end after N messages")
    parser.add_argument(
        "--idle",
        type=positive(float),
        metavar="SECONDS",
        help="end when no message has arrived for this time, although the brokers reply",
    )


def _output(parser: argparse.ArgumentParser) -> None:
    """Options for the output of a message."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object for each message")
    output.add_argument(
        "--raw", action="store_true", help="the exact bytes of the bodies, nothing between them"
    )
    output.add_argument(
        "--format",
        type=format_of,
        metavar="TEXT",
        help=rf"this for each message, with its {', '.join(FIELDS)} for their names in braces, and"
        r" \n, \t, \r, \0, \\ and \xHH: '{offset} {body}\n'",
    )


def _longest(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--max-body-bytes",
        type=positive(int),
        metavar="BYTES",
        help=f"{what} (default: 2097152, which all consumers take unless told otherwise)",
    )
