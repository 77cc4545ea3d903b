"""
Every row of the wire conformance table (section 10 of the specification, ``conformance.txt`` beside
this module) against our broker without a network. ``compat.test_conformance`` runs the same table
over sockets against the original as well.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import conformancetable
from tests.support.serving import Client
from tests.support.transactional import TransactionalBroker

TOPICS = {
    "test": {"num_partitions": 2},
    "wild*": {},
    "nopub": {"accept_publish": False, "accept_subscribe": False},
    "slow": {"unflush_threshold": 1000, "unflush_interval": 10000},
}


def faults(directory: str) -> dict[str, str]:
    """The fault of each row, if any; the rows share one broker."""
    broker = TransactionalBroker(directory, topics=TOPICS)
    named: dict[str, Client] = {}
    found = {}
    for row in conformancetable.rows():
        client = named.get(row.connection) or broker.client()
        if row.connection != "-":
            named[row.connection] = client
        found[row.name] = outcome(row, client)
    return found


def outcome(row: conformancetable.Row, client: Client) -> str:
    """Empty if the row holds."""
    pattern, answered = conformancetable.expected(row, 8123, "1.4.6.2")
    reply = client.send(row.send)
    if not lengths_right(reply):
        return f"{reply!r} announces another length than it has"
    if answered != bool(reply) or (answered and not pattern.match(reply)):
        return f"{reply!r} in place of {row.receive!r}"
    if client.closed == row.stays_open:
        return f"closed is {client.closed}"
    return ""


def lengths_right(reply: bytes) -> bool:
    """Whether each head has the length of its body."""
    while reply:
        head, reply = reply.split(b"\r\n", 1)
        length = int(re.split(rb" ", head)[1 if head.startswith(b"value") else 2])
        if length > len(reply):
            return False
        reply = reply[length:]
    return True


class ConversationRows(SynchronousTestCase):
    """One method for each row."""

    found: dict[str, str] = {}

    def check(self, name: str) -> None:
        """The first test runs the whole table, once."""
        if not self.found:
            type(self).found = faults(self.mktemp())
        self.assertEqual(self.found[name], "")


def _add_tests() -> None:
    for row in conformancetable.rows():

        def test(self: ConversationRows, name: str = row.name) -> None:
            self.check(name)

        test.__doc__ = f"Row {row.name}: {row.send[:60]!r}."
        number = f"{int(row.name):02d}" if row.name.isdigit() else row.name
        setattr(ConversationRows, f"test_row_{number}", test)


_add_tests()
