"""Bad clients of every kind against a running broker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.live_fuzz import (
    RESIDENT_LIMIT_KIB,
    TOPICS,
    FuzzRun,
    resident_kib,
    wait_until_alone,
)
from tests.support.broker import BrokerProcess

SECONDS = 20.0
SEED = 20260201


class LiveFuzzTests(SynchronousTestCase):
    """A bad client is treated as the protocol requires, and other clients are not affected."""

    timeout = 180

    def test_bad_clients_disturb_nobody(self) -> None:
        """
        Under garbage, half frames, huge lengths, slow, deaf and vanishing clients a good client
        gets every answer in time; afterwards the broker holds neither their connections nor their
        bytes and has logged no unexpected error.
        """
        broker = BrokerProcess(self.mktemp(), topics=TOPICS)
        self.addCleanup(broker.kill)
        broker.start()
        run = FuzzRun(broker.port, SEED)
        run.run(SECONDS)
        self.assertGreater(run.attacks, 50)
        self.assertGreater(len(run.good.stored), 50)
        self.assertEqual(wait_until_alone(broker.port), 0)
        self.assertLess(resident_kib(broker.pid), RESIDENT_LIMIT_KIB)
        with open(broker.log, encoding="utf-8", errors="replace") as file:
            log = file.read()
        self.assertNotIn("Traceback", log)
