"""What the daemon asks of a role, and when; with a role of the test."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel

from metamorphosis.broker.session import Session
from metamorphosis.cluster.registration import RegistrationStatus
from metamorphosis.config.model import BrokerConfig, Settings
from metamorphosis.errors import Forbidden
from metamorphosis.replication.role import SLAVE, Attached, Registers
from metamorphosis.wire.commands import PutCommand
from tests.unit.daemon.test_service import BrokerServiceCase, Client
from tests.unit.transactions.test_replay import JOURNALS, PREPARED, append, commit

MASTER = "/meta/brokers/ids/0/master"


class Notes:
    """A role that refuses puts and writes down what is asked of it."""

    name = "asynchronous slave 3"
    has_transactions = False

    def __init__(self, registers: Registers, slave_id: int | None = None) -> None:
        self.registers = registers
        self.slave_id = slave_id
        self.calls: list[str] = []
        self.parts: Attached

    def attach(self, parts: Attached) -> None:
        """Once, before anything is served."""
        self.calls.append("attach")
        self.parts = parts
        parts.responders.dispatch.replace({PutCommand: self.refuse})

    def refuse(self, command: PutCommand, session: Session) -> None:
        """A put."""
        raise Forbidden(SLAVE)

    def start(self) -> None:
        """The port is open."""
        self.calls.append(f"start {self.parts.presence.registration.status.name}")

    def stop(self) -> Deferred[None]:
        """Before the registration ends."""
        self.calls.append(f"stop {self.parts.presence.registration.status.name}")
        return succeed(None)

    def reconfigure(self, config: BrokerConfig, settings: Settings) -> None:
        """A reload."""
        self.calls.append(f"topics {' '.join(config.topics)}")


class RoleTests(BrokerServiceCase):
    """A broker in a role."""

    def test_order(self) -> None:
        """It is attached, started last, told of a reload that was applied, and stopped first."""
        role = Notes(Registers.AT_START, slave_id=3)
        service = self.start(role)
        self.write({"test": {}, "other": {}})
        role.parts.reload()
        self.stop_now(service)
        expected = ["attach", "start REGISTERED", "topics other test", "stop STOPPED"]
        self.assertEqual(expected, role.calls)

    def test_parts(self) -> None:
        """A role gets the parts of its broker as one frozen value."""
        role = Notes(Registers.AT_START)
        service = self.start(role)
        Client(service).ask(b"version 7\r\n", self.reactor)
        parts = role.parts
        self.assertEqual(self.port, parts.broker.port)
        self.assertEqual(0, len(parts.stores))
        self.assertEqual(1, parts.responders.figures.take().connections)
        self.assertIs(self.registry, parts.presence.registry)
        self.assertRaises(FrozenInstanceError, setattr, parts, "stores", parts.stores)
        parts.presence.registration.withdraw()
        self.assertEqual(set(), self.nodes())
        parts.presence.registration.resume()
        self.assertIn(MASTER, self.nodes())

    def test_a_fault_in_a_reload(self) -> None:
        """Is nothing that a role hears of."""
        role = Notes(Registers.AT_START)
        self.start(role)
        self.write({"test": {"nonsense": 1}})
        role.parts.reload()
        self.assertNotIn("topics", " ".join(role.calls))

    def test_answers(self) -> None:
        """It answers what it has taken over; transactions have no reply but that."""
        service = self.start(Notes(Registers.AT_START))
        client = Client(service)
        for request, reply in (
            (b"put test 0 5 0 -1 7\r\nhello", f"result 403 40 7\r\n{SLAVE}"),
            (b"put test 0 5 0 -1 TX:s:1 7\r\nhello", f"result 403 40 7\r\n{SLAVE}"),
            (
                b"transaction TX:s:1 s BEGIN 8\r\n",
                "result 500 28 8\r\nUnsupported beginTransaction",
            ),
        ):
            self.assertEqual(reply.encode(), client.ask(request, self.reactor))

    def test_first_line(self) -> None:
        """Says which role it is."""
        self.start(Notes(Registers.AT_START))
        (line,) = (text for text in self.logged(LogLevel.info) if " serves at " in text)
        self.assertTrue(line.startswith("Broker 0, asynchronous slave 3, serves at meta://"), line)

    def test_nodes_of_a_slave(self) -> None:
        """To the byte (3.2)."""
        self.start(Notes(Registers.AT_START, slave_id=3))
        brokers = "/meta/brokers/"
        found = {path.removeprefix(brokers): self.tree.nodes[path].data for path in self.nodes()}
        described = b'{"numParts":2,"broker":"0-s3"}'
        self.assertEqual(
            {
                "ids/0/slave3": f"meta://localhost:{self.port}".encode(),
                "topics/test/0-s3": b"2",
                "topics-pub/test/0-s3": described,
                "topics-sub/test/0-s3": described,
            },
            found,
        )

    def test_never_registered(self) -> None:
        """ZooKeeper is not even connected to, whatever server.ini and a reload say."""
        role = Notes(Registers.NEVER)
        service = self.start(role)
        self.write({"other": {}})
        service.reload()
        self.assertEqual(([], 0), (self.registry.calls, self.registry.session_id()))
        self.assertIn("ZooKeeper not used", self.logged(LogLevel.info)[-2])

    def test_registered_when_told(self) -> None:
        """The session is there, and nothing else, before the role resumes the registration."""
        role = Notes(Registers.WHEN_TOLD)
        self.start(role)
        registration = role.parts.presence.registration
        self.assertEqual(set(), self.nodes())
        self.assertTrue(self.registry.session_id())
        self.assertIs(registration.status, RegistrationStatus.WITHDRAWN)
        registration.resume()
        self.assertIn(MASTER, self.nodes())
        self.assertIs(registration.status, RegistrationStatus.REGISTERED)

    def test_journal_is_not_made(self) -> None:
        """The broker of a slave may be a Java one tomorrow, which forgets partitions beside it."""
        self.start(Notes(Registers.AT_START))
        self.assertFalse(os.path.exists(os.path.join(self.data, "transactions")))

    def test_unfinished_journal(self) -> None:
        """Refuses the start with a line that says what to do, and stays as it is."""
        journal = Path(self.data, "transactions")
        journal.mkdir(parents=True)
        for content, text in (
            ((JOURNALS / "xa-prepared").read_bytes(), f"1 transaction prepared ({PREPARED})"),
            (
                append("TX:s:1") + commit("TX:s:1"),
                "1 transaction committed and not completely stored (TX:s:1)",
            ),
        ):
            (journal / "redo.1").write_bytes(content)
            self.messages.clear()
            service = self.make_service(Notes(Registers.AT_START))
            service.startService()
            self.run_reactor()
            self.reactor.whenRunningHooks.clear()
            (line,) = self.logged(LogLevel.critical)
            self.assertIn(f"the transaction journal in {journal} holds {text}", line)
            self.assertIn("Start this broker once as a plain one", line)
            self.stop_now(service)
            self.assertEqual(content, (journal / "redo.1").read_bytes())
        self.assertEqual([1, 1], self.statuses)

    def test_finished_journal(self) -> None:
        """A transaction that was never prepared is not an obstacle. The journal is moved aside: its
        blocks may not be those of the log when a plain broker starts here again."""
        journal = Path(self.data, "transactions")
        journal.mkdir(parents=True)
        content = append("TX:s:1") + append("TX:s:1")
        (journal / "redo.1").write_bytes(content)
        service = self.start(Notes(Registers.AT_START))
        service.reload()
        self.stop_now(service)
        self.assertFalse(journal.exists())
        (aside,) = Path(f"{self.data}.aside").iterdir()
        self.assertTrue(aside.name.startswith("transactions."), aside)
        self.assertEqual(content, (aside / "redo.1").read_bytes())
        (line,) = self.logged(LogLevel.warn)
        self.assertIn(f"is finished and was moved to {aside}", line)

    def test_empty_journal(self) -> None:
        """That of an orderly stop stays where it is."""
        journal = Path(self.data, "transactions")
        journal.mkdir(parents=True)
        (journal / "redo.3").touch()
        self.stop_now(self.start(Notes(Registers.AT_START)))
        self.assertTrue((journal / "redo.3").exists())
