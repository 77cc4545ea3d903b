"""
Every row of the conformance table, on the original broker and on ours: the table is run once, each
row is a test.
"""

from __future__ import annotations

import functools
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from compat import conformance
from tests.support import peers, zookeeper

PATIENCE_SECONDS = 10.0  # with the original broker; ours shows a message before it answers


@functools.cache
def faults(kind: type[peers.Broker], version: str) -> dict[str, str]:
    """The faults of a fresh broker, by row."""
    with tempfile.TemporaryDirectory(prefix="metamorphosis-conformance-") as directory:
        broker = kind(
            directory,
            zookeeper.shared() if kind is peers.JavaBroker else peers.no_zookeeper(),
            f"/conformance-{kind.kind}",
            conformance.TOPICS,
            system=conformance.SYSTEM,
        )
        if kind is peers.OurBroker:  # as the original, which has no flush soon after each write
            broker.settings["store"] = {"flush-delay-ms": 0}
        broker.start()
        try:
            patience = PATIENCE_SECONDS if kind is peers.JavaBroker else 0.0
            return conformance.run(broker.port, version, patience)
        finally:
            broker.kill()


class OriginalRows(SynchronousTestCase):
    """The original broker behaves as the table says."""

    skip = peers.missing()

    def outcome(self, row: str) -> str:
        """The fault of a row. The published original was built without its version file."""
        return faults(peers.JavaBroker, "0.1")[row]


class OurRows(SynchronousTestCase):
    """Our broker behaves as the table says, without ZooKeeper."""

    def outcome(self, row: str) -> str:
        """The fault of a row."""
        return faults(peers.OurBroker, PROTOCOL_VERSION)[row]


PROTOCOL_VERSION = "1.4.6.2"


def _add_tests(case: type[OriginalRows] | type[OurRows]) -> None:
    """One method for each row."""
    for row in conformance.rows():

        def test(self: OriginalRows | OurRows, name: str = row.name) -> None:
            self.assertEqual(self.outcome(name), "")

        test.__doc__ = f"Row {row.name}: {row.send[:60]!r}."
        number = f"{int(row.name):02d}" if row.name.isdigit() else row.name
        setattr(case, f"test_row_{number}", test)


_add_tests(OriginalRows)
_add_tests(OurRows)
