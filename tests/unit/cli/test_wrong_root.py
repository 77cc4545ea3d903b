"""A root without nodes: every command names the roots with nodes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli.main import COMMANDS
from metamorphosis.cluster.paths import Paths
from tests.unit.cli.fakes import Run

LINES = {
    "produce": "produce t",
    "consume": "consume t --group g",
    "offsets": "offsets",
    "lag": "lag --group g",
    "topics": "topics",
    "brokers": "brokers",
    "stats": "stats",
}


class RootTests(SynchronousTestCase):
    """``--root /metaa``."""

    def run_metaq(self, line: str, *paths: str, root: str = "/metaa") -> Run:
        """A run with these nodes in ZooKeeper beside ``/meta``."""
        run = Run(line)
        object.__setattr__(run.session.config, "zookeeper_root", root)
        run.session.paths = Paths(root)
        registry = run.session.registry
        assert registry is not None
        for path in paths:
            run.runtime.result(registry.create(path, None, False))
        return run.start()

    def test_every_command(self) -> None:
        """One line, status 1, and no node is made in ZooKeeper."""
        of_one_broker = {"slave-status", "promote"}  # the root stands in server.ini, or nowhere
        self.assertEqual(LINES.keys(), COMMANDS.keys() - of_one_broker)
        for line in LINES.values():
            run = self.run_metaq(line)
            self.assertEqual((run.status, run.text), (1, ""), line)
            self.assertEqual(1, run.said.count("\n"), line)
            self.assertIn("root /metaa of ZooKeeper z:1; roots there are: /meta", run.said)
            self.assertNotIn("/metaa", run.runtime.tree.nodes)

    def test_several(self) -> None:
        """Nested roots, and the root of the tree, are found; trees of other programs are not
        read."""
        run = self.run_metaq(
            "topics", "/a/b/brokers/topics-pub", "/brokers/topics-pub/t", "/kafka/brokers/ids"
        )
        self.assertIn("roots there are: /, /meta, /a/b\n", run.said)

    def test_none(self) -> None:
        """The error suggests another ZooKeeper."""
        run = Run("topics")
        object.__setattr__(run.session.config, "zookeeper_root", "/metaa")
        run.session.paths = Paths("/metaa")
        assert run.session.registry is not None
        for path in ("ids", "topics-pub", "topics-sub"):
            run.runtime.result(run.session.registry.delete(f"/meta/brokers/{path}"))
        run.start()
        self.assertEqual(1, run.status)
        self.assertIn("nor below any other root of it", run.said)
