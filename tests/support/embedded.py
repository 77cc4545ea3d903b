"""
Our embedded ZooKeeper as a process of its own, ``twistd -n metaq-zookeeper``, in the place of
Debian's: the same surface as ``zookeeper.ZooKeeperServer``.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing

from metamorphosis.zookeeper.storage import FILE_NAME
from tests.support.broker import TWISTD, environment
from tests.support.zookeeper import ZooKeeperServer


class EmbeddedZooKeeper(ZooKeeperServer):
    """
    One process of ours. ``start`` again after ``stop`` or ``kill`` finds the same port and data.

    :param tick_time: ms; session timeouts are clamped into 2..20 ticks.
    :ivar options: further words of the command line.
    """

    options: Sequence[str] = ()

    def command(self) -> list[str]:
        """``twistd`` as its script would run it."""
        twistd = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "metaq-zookeeper"]
        where = ["--data", self.data, "--port", str(self.port)]
        return [*twistd, *where, "--tick", str(self.tick_time), *self.options]

    def environment(self) -> dict[str, str]:
        """The checkout is importable whatever directory the process runs in."""
        return environment()

    @property
    def data(self) -> str:
        """The directory with the database."""
        return os.path.join(self.directory, "data")

    def password(self, session_id: int) -> bytes:
        """The password of a session, which is random: the database has it."""
        path = os.path.join(self.data, FILE_NAME)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT password FROM session WHERE id = ?", [session_id])
            row = found.fetchone()
        return bytes(row[0]) if row else bytes(16)
