"""
Makes the connections to one server.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from metamorphosis.zookeeper.commits import Commits
from metamorphosis.zookeeper.connection import ZooKeeperConnection
from metamorphosis.zookeeper.members import Members
from metamorphosis.zookeeper.server import Server


class ZooKeeperFactory(ServerFactory):
    """
    Makes the connections to one ``Server``. Thread: reactor.

    :param clock: ``callLater`` and ``seconds``.
    :param members: the table of connections in which they register.
    :param answer_word: makes the answer to a four-letter word, None for other bytes.
    """

    noisy = False

    def __init__(
        self,
        server: Server,
        commits: Commits,
        clock: IReactorTime,
        members: Members,
        answer_word: Callable[[bytes], bytes | None],
    ) -> None:
        self.server = server
        self.commits = commits
        self.members = members
        self._clock = clock
        self._answer_word = answer_word

    def buildProtocol(self, addr: IAddress | None) -> ZooKeeperConnection:
        """A connection to the server."""
        return ZooKeeperConnection(
            self.server, self.commits, self._clock, self.members, self._answer_word
        )
