"""
The table of command types and the functions that answer them.

Each module of ``responders`` offers a ``Table``. A role (a slave that refuses puts, a master that
asks its slave first) replaces entries of it; the rest of the broker does not depend on the role.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from metamorphosis.broker.replies import Reply
from metamorphosis.broker.session import Session
from metamorphosis.errors import BrokerError
from metamorphosis.seldom import Seldom
from metamorphosis.wire import commands as wire
from metamorphosis.wire.encoding import result

Respond = Callable[[Any, Session], None]
"""
Takes a command of its table's type and the session that it came from, and queues the reply, if
there is one, in ``Session.replies``; a ``BrokerError`` that it raises becomes the reply. It touches
no transport and waits for nothing.
"""

Table = Mapping[type, Respond]


class Dispatch:
    """
    Answers commands. Thread: reactor.

    :param tables: each type of command stands in one of them.
    :raises ValueError: a type stands in two.
    """

    _log = Logger()

    def __init__(self, *tables: Table) -> None:
        self._respond: dict[type, Respond] = {}
        self._failures = Seldom(time.monotonic)
        for table in tables:
            twice = self._respond.keys() & table.keys()
            if twice:
                raise ValueError(f"{twice} are answered twice")
            self._respond.update(table)

    def replace(self, table: Table) -> None:
        """
        A role answers these commands from now on.

        :raises ValueError: one of them has no responder yet.
        """
        unknown = table.keys() - self._respond.keys()
        if unknown:
            raise ValueError(f"{unknown} are not answered here")
        self._respond.update(table)

    def answers(self, command: type) -> Respond:
        """The present responder of a command type, for a role that passes most commands on to
        it."""
        return self._respond[command]

    def respond(self, command: wire.Command, session: Session) -> None:
        """
        Queue the reply to ``command``, if it has one.

        A ``BrokerError`` becomes its status; any other exception is logged and becomes 500.
        """
        try:
            self._respond[type(command)](command, session)
        except BrokerError as error:
            session.replies.add(refusal(error, opaque_of(command)))
        except Exception as error:
            if self._failures.may_log():
                self._log.failure(
                    "Answering {command!r} failed (such lines left out: {left_out})",
                    command=command,
                    left_out=self._failures.left_out,
                )
            session.replies.add(result(500, opaque_of(command), str(error)))


def opaque_of(command: wire.Command) -> int:
    """The number by which the peer finds the reply to ``command``; 0 if it has none."""
    opaque: int = getattr(command, "opaque", 0)
    return opaque


def refusal(error: BrokerError, opaque: int) -> bytes:
    """The reply that tells a peer of ``error``."""
    return result(error.status, opaque, str(error))


def opaque_in(reply: Reply) -> int:
    """The opaque of a prepared ``result``: the last word of its first line."""
    assert isinstance(reply, bytes)
    return int(reply[: reply.index(b"\r")].rpartition(b" ")[2])
