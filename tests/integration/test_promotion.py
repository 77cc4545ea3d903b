"""
The procedures of ``docs/promotion.md``, typed literally, on brokers of ours. The replacement of a
Java member is in ``compat.test_promotion``, where the original is the member.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.peer import Peer, Reply, get, put
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.procedures import Command, Done, Machine, Operator, all_commands, procedure

TOPICS = {"orders": {"numPartitions": 1}}
SECONDS = 20.0


class ProcedureCase(SynchronousTestCase):
    """Machines ``a`` and ``b``, an operator, and a ZooKeeper."""

    timeout = 120

    def setUp(self) -> None:
        self.zookeeper = EmbeddedZooKeeper(self.mktemp(), tick_time=100)
        self.zookeeper.start()
        self.addCleanup(self.zookeeper.kill)
        self.machines = {
            name: Machine(self.mktemp(), TOPICS, self.zookeeper) for name in ("a", "b")
        }
        self.operator = Operator(self.mktemp(), self.machines)
        self.addCleanup(self.operator.end)

    def follow(self) -> None:
        """``a`` is the master and ``b`` its asynchronous slave, with equal logs."""
        self.type("a", "twistd metaq -f server.ini")
        self.type("b", "twistd metaq -f server.ini --slave async_slave.properties")
        self.put("a", b"one", b"two")
        self.level()

    def type(self, machine: str, line: str, status: int = 0) -> Done:
        """Run a command, which must end with this status."""
        done = self.operator.type(Command(machine, line))
        self.assertEqual(status, done.status, done)
        return done

    def type_all(
        self,
        commands: list[Command],
        failing: tuple[str, ...] = (),
        before: Mapping[str, Callable[[], object]] = MappingProxyType({}),
    ) -> None:
        """
        Some commands of the page.

        :param failing: beginnings of those that end with status 1, as the page says.
        :param before: what happens before a command, by its beginning.
        """
        for command in commands:
            for beginning, happening in before.items():
                if command.line.startswith(beginning):
                    happening()
            wrong = any(command.line.startswith(each) for each in failing)
            self.type(*command, status=1 if wrong else 0)

    def put(self, machine: str, *bodies: bytes) -> None:
        """Messages; each is acknowledged."""
        with Peer(self.machines[machine].port) as peer:
            for body in bodies:
                reply = peer.ask(put("orders", 0, body, 1))
                self.assertEqual(200, reply.status, reply)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def end_of(self, machine: str) -> Reply | None:
        """Where the log of the partition ends; None while the broker does not say."""
        try:
            with Peer(self.machines[machine].port) as peer:
                return peer.ask(b"offset orders g 0 %d 7\r\n" % ((1 << 63) - 1))
        except OSError:
            return None

    def level(self) -> None:
        """Wait until both logs are equal."""

        def same() -> bool:
            ends = self.end_of("a"), self.end_of("b")
            return ends[0] is not None and ends[0].status == 200 and ends[0] == ends[1]

        self.until(same, "not level")

    def forgotten(self) -> None:
        """Wait until the session of a killed master has ended."""
        client = self.zookeeper.client()
        try:
            node = "/meta/brokers/ids/0/master"
            self.until(lambda: client.exists(node) is None, "still registered")
        finally:
            client.stop()
            client.close()

    def registered(self) -> None:
        """Wait until a master is registered."""
        client = self.zookeeper.client()
        try:
            node = "/meta/brokers/topics-pub/orders/0-m"
            self.until(lambda: client.exists(node) is not None, "not registered")
        finally:
            client.stop()
            client.close()

    def bodies(self, machine: str) -> list[bytes]:
        """All messages of a broker."""
        with Peer(self.machines[machine].port) as peer:
            data = peer.ask(get("orders", 0, 0, 1 << 20, 1)).body
        found = []
        while data:
            end = 20 + int.from_bytes(data[:4], "big")
            found.append(data[20:end])
            data = data[end:]
        return found

    def last(self, beginning: str) -> Done:
        """The last command that begins so."""
        return [done for done in self.operator.done if done.command.startswith(beginning)][-1]

    def commit(self, position: str) -> None:
        """A group's position in the partition."""
        client = self.zookeeper.client()
        try:
            path = "/meta/consumers/group/offsets/orders/0-0"
            client.ensure_path(path)
            client.set(path, position.encode())
        finally:
            client.stop()
            client.close()

    def position(self) -> str:
        """The stored position."""
        client = self.zookeeper.client()
        try:
            return str(client.get("/meta/consumers/group/offsets/orders/0-0")[0].decode())
        finally:
            client.stop()
            client.close()


DEAD = procedure("The master is dead for good")
BACK = procedure("The master comes back with a longer log")
PAIR = procedure("An asynchronous slave becomes the slave of a pair")
REPLACED = procedure("A Java member is replaced under load")


class DeadMasterTests(ProcedureCase):
    """``a`` is lost."""

    alone = DEAD[: -2 if DEAD[-1].line.endswith("samsa_master.properties") else None]

    def test_master_dead_for_good(self) -> None:
        """The slave becomes the master; missing messages are named, and the positions of consumers
        are corrected, also one with a negative id."""
        self.follow()
        self.type("b", "kill $(cat twistd.pid)")
        self.put("a", b"three")  # which the slave does not get
        refused = self.type("b", "metaq promote -f server.ini", status=1)
        self.assertIn("is registered as broker 0", refused.output)
        self.machines["a"].kill()
        self.type("b", "twistd metaq -f server.ini --slave async_slave.properties")
        self.forgotten()
        with open(self.machines["b"].data + "/orders-0/00000000000000000000.meta", "rb") as file:
            first = int.from_bytes(file.read(20)[8:16], "big", signed=True)
        self.commit(f"{first}-4000")
        self.operator.replaced["/mnt/a/data"] = self.machines["a"].data
        self.type_all(self.alone, failing=("metaq slave-status",))
        status = self.last("metaq slave-status").output
        self.assertIn("Replicate status:no", status)
        checked = self.last("metaq promote -f server.ini --check --old").output
        self.assertIn("orders-0: 25 bytes of the old master from offset 46 on are missing", checked)
        promoted = self.last("metaq promote -f server.ini").output
        self.assertIn(f"{first}-4000 becomes {first}-23", promoted)
        self.assertIn("twistd metaq -f ", promoted)
        self.assertEqual(f"{first}-23", self.position())
        self.assertIn("orders", self.last("metaq topics").output)
        self.put("b", b"four")
        self.assertEqual([b"one", b"two", b"four"], self.bodies("b"))

    def test_slave_of_a_pair(self) -> None:
        """The slave continues as the master of a new pair."""
        machine = Machine(self.mktemp(), TOPICS, self.zookeeper)
        self.machines["c"] = machine
        self.pair()
        self.put("a", b"one")
        self.machines["a"].kill()
        self.forgotten()
        self.type("b", "kill $(cat twistd.pid)")
        self.type("b", "metaq promote -f server.ini")
        self.type("c", "touch gregor_slave.properties")
        self.type("c", "twistd metaq -f server.ini --gregor gregor_slave.properties")
        self.type_all(DEAD[-2:])
        self.registered()
        self.put("b", b"two")
        self.assertEqual([b"one", b"two"], self.bodies("c"))

    def pair(self) -> None:
        """``a`` is the master of a pair, and ``b`` its slave."""
        self.type("b", "touch gregor_slave.properties")
        self.type("b", "twistd metaq -f server.ini --gregor gregor_slave.properties")
        self.type("a", 'echo "slave=b:8123" > samsa_master.properties')
        self.type("a", "twistd metaq -f server.ini --samsa samsa_master.properties")
        self.registered()


class ReturnTests(ProcedureCase):
    """``a`` returns."""

    def test_master_back_with_a_longer_log(self) -> None:
        """Messages that only the old master has are put again, and it becomes a slave."""
        self.follow()
        self.type("b", "kill $(cat twistd.pid)")
        self.put("a", b"three", b"four")
        self.machines["a"].kill()
        self.forgotten()
        self.type("b", "metaq promote -f server.ini")
        self.type("b", "twistd metaq -f server.ini")
        self.registered()
        self.put("b", b"five")
        compared = self.type(*BACK[0], status=1)
        found = re.search(r"differ from offset (\d+)", compared.output)
        assert found is not None, compared
        self.assertEqual("46", found[1])
        self.operator.replaced["--to 250"] = f"--to {found[1]}"
        self.leave_out_default()
        self.type_all(BACK[1:], before={"metaq slave-status": self.level})
        self.assertEqual(
            [b"one", b"two", b"five", b"three", b"four"], self.bodies("b"), self.operator.done
        )
        self.assertEqual(self.bodies("b"), self.bodies("a"))
        self.assertTrue(os.path.isdir(f"{self.machines['a'].directory}/data.before-promotion"))

    def leave_out_default(self) -> None:
        """Remove the default of a key from ``server.ini``: it need not be there."""
        path = os.path.join(self.machines["a"].directory, "server.ini")
        with open(path, encoding="ascii") as file:
            lines = file.readlines()
        kept = [line for line in lines if not line.startswith("zk.zkEnable")]
        self.assertLess(len(kept), len(lines))
        with open(path, "w", encoding="ascii") as file:
            file.writelines(kept)


class PairTests(ProcedureCase):
    """An asynchronous slave and its master become a pair."""

    def test_asynchronous_slave_becomes_the_slave_of_a_pair(self) -> None:
        """Messages that arrive meanwhile are sent at the joining."""
        self.follow()
        happenings = {
            "echo": lambda: self.put("a", b"three"),
            "metaq slave-status --broker a": self.registered,
        }
        self.type_all(PAIR, before=happenings)
        self.put("a", b"four")
        self.assertEqual([b"one", b"two", b"three", b"four"], self.bodies("b"))
        self.assertIn("synchronous master", self.last("metaq slave-status").output)
        self.assertIn("equal", self.last("metaq compare").output)


class PageTests(SynchronousTestCase):
    """The page itself."""

    def test_every_command_is_typed(self) -> None:
        """Each command stands in a section that a test types."""
        self.assertEqual(len(all_commands()), len(DEAD) + len(BACK) + len(PAIR) + len(REPLACED))
