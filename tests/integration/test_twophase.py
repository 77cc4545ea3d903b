"""
Messages and rows in one transaction: a real MariaDB, our broker, and an application that is killed
at every step of the protocol. After each step both have the transaction, or neither has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.client.blocking import MessageSessionFactory
from metamorphosis.client.transactions.coordinator import Step
from metamorphosis.client.transactions.decisionlog import DecisionLog
from tests.support import mariadb, twophaselife
from tests.support.broker import BrokerProcess, environment

KILLED = -signal.SIGKILL


class TwoPhaseTests(SynchronousTestCase):
    """One broker, one database, one decision file."""

    skip = mariadb.missing()
    timeout = 180

    def setUp(self) -> None:
        """All of them are empty."""
        self.broker = BrokerProcess(
            self.mktemp(), topics={"test": {"numPartitions": 1}}, system={"unflushThreshold": 0}
        )
        self.addCleanup(self.broker.kill)
        self.broker.start()
        self.server = mariadb.shared()
        self.database = self.server.new_database()
        self.server.execute(
            "CREATE TABLE work (value INT PRIMARY KEY) ENGINE=InnoDB", self.database
        )
        self.path = os.path.abspath(self.mktemp())

    @property
    def url(self) -> str:
        """``host:port`` of the broker."""
        return f"127.0.0.1:{self.broker.port}"

    def life(self, value: int | str, step: Step | None = None, count: int = 1) -> int:
        """The exit status of one run of the application."""
        arguments = [self.url, str(self.server.port), self.database, self.path, str(value)]
        arguments += [] if step is None else [step.name, str(count)]
        command = [sys.executable, "-m", twophaselife.__name__, *arguments]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        self.output = done.stdout + done.stderr
        return done.returncode

    def rows(self) -> list[int]:
        """The rows of the database."""
        return [value for (value,) in self.server.execute("SELECT * FROM work", self.database)]

    def messages(self) -> list[int]:
        """The messages that consumers see."""
        with (
            MessageSessionFactory(broker=self.url) as factory,
            factory.create_topic_browser("test") as browser,
        ):
            return [int(each.data) for each in browser]

    def prepared(self) -> list[object]:
        """The prepared transactions of broker and database."""
        with MessageSessionFactory(broker=self.url) as factory:
            qualifier = twophaselife.QUALIFIER
            producer = factory.create_xa_producer("test", unique_qualifier=qualifier)
            return [*producer.resource().recover(), *self.server.execute("XA RECOVER")]

    def assertBoth(self, *values: int) -> None:
        """Both have exactly these, and no transaction is prepared."""
        self.assertEqual([], self.prepared())
        self.assertEqual(list(values), self.rows())
        self.assertEqual(list(values), self.messages())

    def test_commit(self) -> None:
        """Two transactions without faults."""
        for value in (1, 2):
            self.assertEqual(0, self.life(value), self.output)
        self.assertBoth(1, 2)

    def test_killed_at_every_step(self) -> None:
        """Before the decision neither has it, from then on both; the next run resolves it, and does
        its own work."""
        decided = False
        expected = []
        for number, step in enumerate(each for each in Step if each is not Step.RESOLVED):
            value = 10 * number
            self.assertEqual(KILLED, self.life(value, step), f"{step}: {self.output}")
            decided = decided or step is Step.DECIDED
            self.assertEqual(0, self.life(value + 1), f"{step}: {self.output}")
            expected += [value] * decided + [value + 1]
            self.assertBoth(*expected)

    def test_killed_while_resolving(self) -> None:
        """The second run dies after the first, or second, branch; the third one ends the work."""
        for number, (step, count) in enumerate(
            (step, count) for step in (Step.DATABASE_PREPARED, Step.DECIDED) for count in (1, 2)
        ):
            value = 10 * number
            self.assertEqual(KILLED, self.life(value, step), self.output)
            self.assertEqual(KILLED, self.life("-", Step.RESOLVED, count), self.output)
            self.assertEqual(0, self.life("-"), self.output)
            self.assertIn("nothing left", self.output)
        self.assertBoth(20, 30)

    def test_broker_killed_after_the_decision(self) -> None:
        """A decision waits until the broker is back; no branch is rolled back meanwhile."""
        self.assertEqual(KILLED, self.life(1, Step.DECIDED), self.output)
        self.broker.kill()
        self.assertNotEqual(0, self.life("-"))
        self.broker.start()
        self.assertEqual(0, self.life("-"), self.output)
        self.assertBoth(1)

    def test_database_stopped_after_the_decision(self) -> None:
        """The same with the database: the rows come when it is back."""
        self.assertEqual(KILLED, self.life(1, Step.DECIDED), self.output)
        self.server.stop()
        try:
            self.assertEqual(0, self.life("-"))
            self.assertIn("not connected", self.output)
        finally:
            self.server.start()
        self.assertEqual(0, self.life("-"), self.output)
        self.assertBoth(1)

    def test_two_at_a_time(self) -> None:
        """A second coordinator on the same file is refused: it would resolve the transactions of
        the first."""
        self.assertEqual(0, self.life(1), self.output)
        log = DecisionLog(self.path, twophaselife.QUALIFIER)
        self.addCleanup(log.close)
        self.assertEqual(1, self.life(2))
        self.assertIn("another coordinator uses the file", self.output)
        self.assertBoth(1)
