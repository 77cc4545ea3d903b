"""The command line of ``metaq tx``."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from metamorphosis.cli.arguments import positive

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

STATUS = """\
exit status: 0 when it was done, 1 when not (one line on standard error says why), 2 for a command
line or a server.ini that makes no sense, 3 when no broker runs there.
"""

HELP = """\
Looks at the transactions of a broker on this machine, and decides the outcome of prepared ones
whose transaction manager does not come back. Only the user of the broker, and root, can do this.
"""

DECISIONS = (
    ("commit", "store its messages; the transaction manager is told so when it comes back"),
    ("rollback", "drop its messages; likewise"),
    ("complete", "drop its messages, and tell the manager that nothing is known"),
)


def add_tx(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tx",
        help="list transactions, and end those that are stuck",
        description=HELP,
        epilog=STATUS,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    common = _common()
    listing = actions.add_parser("list", parents=[common], help="the transactions there are")
    listing.add_argument(
        "--state",
        choices=("open", "prepared", "heuristic"),
        help="only those that are open, prepared, or were decided by hand (default: all)",
    )
    listing.add_argument(
        "--limit",
        type=positive(int, 10**9 - 1),
        default=1000,
        metavar="N",
        help="at most N (default: 1000)",
    )
    show = actions.add_parser("show", parents=[common], help="one of them, or the journal")
    show.add_argument("key", nargs="?", metavar="KEY", help="without: the state of the journal")
    for name, text in DECISIONS:
        _with_key(actions.add_parser(name, parents=[common], help=text))
    _with_key(
        actions.add_parser("forget", parents=[common], help="forget that it was decided by hand")
    )
    text = "begin a new redo file, if no transaction needs the present one"
    actions.add_parser("checkpoint", parents=[common], help=text)


def _with_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="of the transaction, as metaq tx list shows it")


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    where = common.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", metavar="DIR", help="the broker's data path")
    where.add_argument(
        "-f", "--config", metavar="FILE", help="the broker's server.ini, which names it"
    )
    common.add_argument(
        "--timeout",
        type=positive(float, 3600),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for an answer (default: %(default)g)",
    )
    common.add_argument("--json", action="store_true", help="for programs")
    return common
