"""
Generates the asyncio face from the Twisted one: the two differ only in their futures.

``make faces`` runs it; ``tests/unit/client/test_faces.py``
fails if a file differs from the output of this script.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "metamorphosis" / "client"

ME = "tools/asyncio_faces.py"

Replacements = list[tuple[str, str]]

FUTURES: Replacements = [
    ("from twisted.internet.defer import Deferred\n\n", ""),
    ("Deferred[", "Future["),
]
FACTORY: Replacements = [
    ("The client for Twisted: calls that take time return a Deferred.",
     "The client for asyncio: calls that take time return an ``asyncio.Future``."),
    ('    factory = MessageSessionFactory(zookeeper="localhost:2181")\n'
     "    async with factory:                               "
     "# in a coroutine: Deferred.fromCoroutine(...)\n",
     '    async with MessageSessionFactory(zookeeper="localhost:2181") as factory:\n'),
    ("\nfrom typing import", "\nfrom asyncio import AbstractEventLoop, Future\nfrom typing import"),
    ("from metamorphosis.client.runtimes.tx import ShutdownTrigger, TwistedRuntime\n"
     "from metamorphosis.client.runtimes.txconsumers",
     "from metamorphosis.client.runtimes.aio import AsyncioRuntime\n"
     "from metamorphosis.client.runtimes.aioconsumers"),
    ("runtimes.txproducers", "runtimes.aioproducers"),
    ("runtimes.txtransactions", "runtimes.aiotransactions"),
    ("    A stop of the reactor closes it, and waits for the end.\n\n", ""),
    ("    :param reactor: None: the global reactor, which is installed if necessary.\n",
     "    :param loop: None: the running one.\n"),
    ("    :raises InvalidConfig: a setting is wrong.\n",
     "    :raises InvalidConfig: a setting is wrong.\n"
     "    :raises RuntimeError: no loop is running or given.\n"),
    ("import TYPE_CHECKING, Any, Unpack\n", "import TYPE_CHECKING, Unpack\n"),
    ("reactor: Any = None,", "loop: AbstractEventLoop | None = None,"),
    ("        runtime = TwistedRuntime(reactor)\n"
     "        super().__init__(runtime, chosen)\n"
     "        self.add_child(ShutdownTrigger(runtime.reactor, self.close))\n",
     "        super().__init__(AsyncioRuntime(loop), chosen)\n"),
]  # fmt: skip
TRANSACTIONS: Replacements = [
    ("on Twisted; see ``client.tx``", "on asyncio; see ``client.aio``"),
    ("\nfrom collections.abc", "\nfrom asyncio import Future\nfrom collections.abc"),
]

PRODUCERS: Replacements = [
    ("Gives a Deferred, which", "Gives an ``asyncio.Future``, which"),
    ("on Twisted; see ``client.tx``", "on asyncio; see ``client.aio``"),
    ("\nfrom collections.abc import",
     "\nfrom asyncio import Future\nfrom collections.abc import"),
    ("runtimes.txtransactions", "runtimes.aiotransactions"),
]  # fmt: skip
CONSUMERS: Replacements = [
    ("on Twisted; see ``client.tx``", "on asyncio; see ``client.aio``"),
    ("\nfrom collections.abc import",
     "\nfrom asyncio import Future\nfrom collections.abc import"),
    ("runtimes.txproducers", "runtimes.aioproducers"),
]  # fmt: skip

FACES: dict[str, tuple[str, Replacements]] = {
    "aio.py": ("tx.py", FACTORY),
    "runtimes/aioproducers.py": ("runtimes/txproducers.py", PRODUCERS),
    "runtimes/aioconsumers.py": ("runtimes/txconsumers.py", CONSUMERS),
    "runtimes/aiotransactions.py": ("runtimes/txtransactions.py", TRANSACTIONS),
}


def made(name: str) -> str:
    """
    What the file of that name in ``metamorphosis/client`` must hold, before it is formatted.

    :raises ValueError: a text to replace is not there, or stands there more than once.
    """
    source, replacements = FACES[name]
    text = (CLIENT / source).read_text("utf-8")
    for old, new in replacements:
        if text.count(old) != 1:
            raise ValueError(f"{source} has {text.count(old)} times, not once: {old!r}")
        text = text.replace(old, new)
    for old, new in FUTURES:
        if old not in text:
            raise ValueError(f"{source} has not: {old!r}")
        text = text.replace(old, new)
    return f"# Made from {Path(source).name} by {ME}: change that, run 'make faces'.\n{text}"


def main() -> None:
    """Write all of them, formatted."""
    for name in FACES:
        (CLIENT / name).write_text(made(name), "utf-8")
    paths = [str(CLIENT / name) for name in FACES]
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", *paths], check=True)


if __name__ == "__main__":
    main()
