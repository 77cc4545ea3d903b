"""``metaq topics``: topics by brokers and ZooKeeper."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cli.fakes import Run


class TopicsTests(SynchronousTestCase):
    """Topic t on two brokers, u on one."""

    def run_metaq(self, arguments: str = "") -> Run:
        """``metaq topics`` with these options, not started."""
        run = Run(f"topics {arguments}")
        first = run.session.master(0, t=2, u=1)
        second = run.session.master(1, t=1)
        first.ranges["t", 0] = (10, 100)
        first.counts["t"] = (3, 90)
        second.ranges["t", 0] = (0, 50)
        second.counts["t"] = (2, 50)
        return run

    def test_table(self) -> None:
        """A line for each topic, then one for each partition, empty ones too."""
        run = self.run_metaq().start()
        self.assertEqual((run.status, run.said), (0, ""))
        words = [line.split() for line in run.text.splitlines()]
        self.assertEqual(
            words,
            [
                ["TOPIC", "PARTITIONS", "MESSAGES", "BYTES"],
                ["empty", "0", "0", "0"],
                ["t", "3", "5", "140"],
                ["u", "1", "0", "0"],
                [],
                ["TOPIC", "PARTITION", "BROKER", "MIN", "MAX"],
                ["t", "0-0", "meta://b:1", "10", "100"],
                ["t", "0-1", "meta://b:1", "0", "0"],
                ["t", "1-0", "meta://b:2", "0", "50"],
                ["u", "0-0", "meta://b:1", "0", "0"],
            ],
        )

    def test_json(self) -> None:
        """One object for each requested topic."""
        run = self.run_metaq("u t --json").start()
        self.assertEqual(run.status, 0)
        first, second = map(json.loads, run.text.splitlines())
        self.assertEqual((first["topic"], first["messages"], first["bytes"]), ("t", 5, 140))
        self.assertEqual(
            first["partitions"][0],
            {"partition": "0-0", "broker": "meta://b:1", "min": 10, "max": 100},
        )
        self.assertEqual(second["topic"], "u")

    def test_no_such_topic(self) -> None:
        """An unknown topic is an error."""
        run = self.run_metaq("t x").start()
        said = "metaq: no such topic: x; topics of root /meta: empty, t, u\n"
        self.assertEqual((run.status, run.said), (1, said))

    def test_nothing_there(self) -> None:
        """A cluster without topics is an error, not an empty output."""
        run = Run("topics").start()
        self.assertEqual((run.status, run.text), (1, ""))
        self.assertIn("no topic is registered below root /meta", run.said)

    def test_broker_away(self) -> None:
        """The others are shown, the broker is named."""
        run = self.run_metaq()
        run.session.brokers["meta://b:2"].away = True
        run.start()
        self.assertEqual(run.status, 1)
        self.assertIn("meta://b:1", run.text)
        rows = [line.split() for line in run.text.splitlines()]
        self.assertIn(["t", "1-0", "meta://b:2", "-", "-"], rows)
        self.assertIn("broker meta://b:2: no connection: Connection refused", run.said)

    def test_broker_that_has_not_registered(self) -> None:
        """Its partitions are known by the topic's nodes, its address is not."""
        run = self.run_metaq("v")
        run.session.node("brokers/topics-sub/v/5-m", '{"numParts":1,"broker":"5-m"}')
        run.session.node("brokers/topics-sub/v/0-s1", '{"numParts":9,"broker":"0-s1"}')
        run.start()
        self.assertEqual(run.status, 0)
        self.assertEqual(run.text.splitlines()[-1].split(), ["v", "5-0", "-", "0", "0"])

    def test_broken_nodes(self) -> None:
        """Broken nodes are named, the others are shown."""
        run = self.run_metaq()
        run.session.node("brokers/topics-sub/v/0-m", "nonsense")
        run.session.node("brokers/ids/9/master", "nonsense")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertIn("nonsense", run.said)
        self.assertIn("/meta/brokers/topics-sub/v/0-m", run.said)
        self.assertIn("meta://b:2", run.text)

    def test_direct(self) -> None:
        """One broker is asked, and shown as broker 0."""
        run = Run("topics", direct=True)
        run.session.brokers["meta://b:1"].ranges["t", 1] = (0, 9)
        run.start()
        self.assertEqual(run.status, 0)
        self.assertEqual(run.text.splitlines()[-1].split(), ["t", "0-1", "meta://b:1", "0", "9"])
