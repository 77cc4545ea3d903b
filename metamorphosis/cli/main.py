"""
``metaq``: reads the command line, connects, runs one command, ends with a status.

After Ctrl-C a command finishes its pending work, stores positions and ends. A second Ctrl-C ends it
at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

from metamorphosis.cli.brokers import brokers
from metamorphosis.cli.compare import compare
from metamorphosis.cli.console import Console, Interrupted, OutputClosed, UsageError
from metamorphosis.cli.consume import consume
from metamorphosis.cli.lag import lag
from metamorphosis.cli.offsets import offsets
from metamorphosis.cli.options import parse
from metamorphosis.cli.produce import produce
from metamorphosis.cli.promote import promote, read_configuration
from metamorphosis.cli.slavestatus import slave_status
from metamorphosis.cli.stats import stats
from metamorphosis.cli.topics import topics
from metamorphosis.cli.tx import tx
from metamorphosis.client.aio import ClientConfig, MessageSessionFactory
from metamorphosis.client.runtimes.aio import AsyncioRuntime
from metamorphosis.client.topics.roots import check_root
from metamorphosis.errors import ConfigError, InvalidArgument, MetaQError
from metamorphosis.terminal import escape_output, given

if TYPE_CHECKING:
    from metamorphosis.client.factory import SessionFactory

    Command = Callable[[SessionFactory, Console, Namespace], Coroutine[object, None, None]]
    Alone = Callable[[Console, Namespace], Coroutine[object, None, None]]

COMMANDS: dict[str, Command] = {
    "produce": produce,
    "consume": consume,
    "offsets": offsets,
    "lag": lag,
    "topics": topics,
    "brokers": brokers,
    "stats": stats,
    "slave-status": slave_status,
    "promote": promote,
}
ALONE: dict[str, Alone] = {"compare": compare}
"""Commands that need no session."""

IN_ORDER = ("produce", "consume")
"""Commands that finish pending work when they are interrupted."""

REFUSED_MS = 800
"""Time in which a refused connection, or a name that does not resolve, is tried again: long enough
for a server that its supervisor restarts, short enough for a user at a terminal."""

DELIVERY_MS = 30000
"""Time limit of a message: longer than the restart of a broker, and a user waits."""

DONE, FAILED, SENSELESS, INTERRUPTED, OUTPUT_CLOSED = 0, 1, 2, 130, 141


def main() -> None:
    """The console script."""
    escape_output()
    options = parse([given(each) for each in sys.argv[1:]])
    if options.command == "tx":
        sys.exit(tx(options))
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.ERROR, format="metaq: %(message)s"
    )
    if not options.verbose:
        logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    try:
        status = asyncio.run(_run(options))
    except KeyboardInterrupt:  # before the command had begun
        status = INTERRUPTED
    if sys.stderr is not None:
        sys.stderr.flush()
    # A worker may wait for the terminal's next line, which would block a normal exit.
    os._exit(status)


async def _run(options: Namespace) -> int:
    if options.command in ALONE:
        console = Console(AsyncioRuntime())
        task = asyncio.ensure_future(ALONE[options.command](console, options))
        console.on_stop(task.cancel)
        _end_by_signal(console)
        return await end_of(task, console)
    try:
        if options.command == "promote":
            read_configuration(options)
        session = _session(options)
    except (ConfigError, InvalidArgument) as error:
        print(f"metaq: {' '.join(str(error).split())}", file=sys.stderr)
        return SENSELESS
    console = Console(session.runtime)
    _end_by_signal(console)
    return await execute(session, console, options)


def _session(options: Namespace) -> MessageSessionFactory:
    milliseconds = int(options.timeout * 1000)
    return MessageSessionFactory(
        zookeeper=options.zookeeper,
        broker=options.broker,
        zookeeper_root=options.root,
        connect_timeout_ms=milliseconds,
        zookeeper_connection_timeout_ms=milliseconds,
        delivery_timeout_ms=DELIVERY_MS,
        refused_timeout_ms=min(milliseconds, REFUSED_MS),
        publish_connect_timeout_ms=milliseconds,
        max_body_bytes=getattr(options, "max_body_bytes", None) or ClientConfig.max_body_bytes,
    )


def _end_by_signal(console: Console) -> None:
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if console.stopped.is_set:
            os._exit(INTERRUPTED)
        console.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended)


async def execute(session: SessionFactory, console: Console, options: Namespace) -> int:
    """Run the command, close the session; returns the exit status."""
    orderly = False

    def stopped() -> None:
        if not orderly:
            session.close()  # every wait fails now

    async def run() -> None:
        nonlocal orderly
        await session.start()
        await check_root(session.registry, session.config)
        orderly = options.command in IN_ORDER
        await COMMANDS[options.command](session, console, options)

    console.on_stop(stopped)
    try:
        return await end_of(run(), console)
    finally:
        await session.close()


async def end_of(command: Awaitable[None], console: Console) -> int:
    """Await a command; returns its exit status."""
    try:
        await command
        return DONE
    except OutputClosed:
        return OUTPUT_CLOSED
    except asyncio.CancelledError:
        console.complain("interrupted")
        return INTERRUPTED
    except (MetaQError, OSError) as error:
        if console.stopped.is_set:
            console.complain(error if isinstance(error, Interrupted) else "interrupted")
            return INTERRUPTED
        console.complain(str(error).removesuffix("; still trying"))
        return SENSELESS if isinstance(error, UsageError | InvalidArgument) else FAILED
