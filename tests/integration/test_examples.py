"""
The programs of ``examples/``, unchanged except for the address of ZooKeeper and the topic: each
works as its page in ``docs/guide`` says.
"""

from __future__ import annotations

import atexit
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support import mariadb
from tests.support.broker import CHECKOUT, BrokerProcess, Keys, environment
from tests.support.embedded import EmbeddedZooKeeper

EXAMPLES = os.path.join(CHECKOUT, "examples")
GUIDE = os.path.join(CHECKOUT, "docs", "guide")
SECONDS = 60.0


def names() -> set[str]:
    """The names of the programs, without suffix."""
    return {name.removesuffix(".py") for name in os.listdir(EXAMPLES) if name.endswith(".py")}


@cache
def cluster() -> tuple[BrokerProcess, EmbeddedZooKeeper]:
    """One broker and one ZooKeeper for all tests, until the process ends; each test has a topic."""
    zookeeper = EmbeddedZooKeeper(tempfile.mkdtemp())
    zookeeper.start()
    topics: dict[str, Keys] = {f"example-test_{name}": {} for name in names()}
    broker = BrokerProcess(tempfile.mkdtemp(), topics, {"numPartitions": 2}, zookeeper)
    broker.start()
    broker.wait_for_log("registered in ZooKeeper")
    atexit.register(shutil.rmtree, zookeeper.directory, True)
    atexit.register(shutil.rmtree, broker.directory, True)
    atexit.register(zookeeper.kill)
    atexit.register(broker.kill)
    return broker, zookeeper


class ExampleTests(SynchronousTestCase):
    """A test for each program."""

    def setUp(self) -> None:
        """A directory for the program, and its topic."""
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.topic = f"example-{self.id().rpartition('.')[2]}"

    def start(
        self, name: str, *command: str, replaced: tuple[str, str] = ("", ""), **environ: str
    ) -> subprocess.Popen[str]:
        """Run a program, or another command; it ends with the test."""
        with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
            text = file.read()
        text = text.replace("localhost:2181", cluster()[1].connect_string)
        text = text.replace('"test"', f'"{self.topic}"')
        if replaced[0]:
            self.assertEqual(text.count(replaced[0]), 1)
            text = text.replace(*replaced)
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        process = subprocess.Popen(
            [sys.executable, *(command or [path])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env={**environment(), "HOME": self.directory, **environ},
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """End the process."""
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def finished(self, process: subprocess.Popen[str], status: int = 0) -> list[str]:
        """The output lines of a program that ended with status 0."""
        output, _ = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, status, output)
        return output.splitlines()

    def stopped(self, process: subprocess.Popen[str], status: int = 0) -> list[str]:
        """The rest of the output after SIGTERM."""
        process.send_signal(signal.SIGTERM)
        return self.finished(process, status)

    def line(self, process: subprocess.Popen[str]) -> str:
        """Its next line."""
        assert process.stdout is not None
        return process.stdout.readline().rstrip("\n")

    def put(self, *bodies: bytes, partition: int = 0) -> None:
        """Store messages; they are stored when the call returns."""
        with socket.create_connection(("127.0.0.1", cluster()[0].port)) as connection:
            for opaque, body in enumerate(bodies):
                head = f"put {self.topic} {partition} {len(body)} 0 {opaque}\r\n"
                connection.sendall(head.encode() + body)
            answers = connection.makefile("rb")
            for _ in bodies:
                status, length = answers.readline().split()[1:3]
                self.assertEqual((status, bool(answers.read(int(length)))), (b"200", True))

    def bodies(self, count: int) -> set[str]:
        """The messages of the topic, when it has that number."""
        found: set[str] = set()
        deadline = time.monotonic() + SECONDS
        while len(found) < count and time.monotonic() < deadline:
            for partition in (0, 1):
                data = self.get(partition)
                while data:
                    length = int.from_bytes(data[:4], "big")
                    found.add(data[20 : 20 + length].decode())
                    data = data[20 + length :]
        return found

    def get(self, partition: int) -> bytes:
        """The log of a partition."""
        with socket.create_connection(("127.0.0.1", cluster()[0].port)) as connection:
            connection.sendall(f"get {self.topic} reader {partition} 0 1000000 1\r\n".encode())
            answers = connection.makefile("rb")
            kind, *rest = answers.readline().split()
            length = int(rest[0] if kind == b"value" else rest[1])
            data = answers.read(length)
            return data if kind == b"value" else b""

    def test_listener(self) -> None:
        """Messages one after the other; SIGTERM ends the program in order."""
        self.put(b"hello")
        process = self.start("listener.py")
        self.assertEqual(self.line(process), "got hello from 0-0")
        self.put(b"again", partition=1)
        self.assertEqual(self.line(process), "got again from 0-1")
        self.assertEqual(self.stopped(process), ["stopped"])

    def test_batch(self) -> None:
        """All messages are in the database, however they were grouped."""
        self.put(*(b"%d" % number for number in range(20)))
        process = self.start("batch.py")
        while self.line(process) not in ("20 orders", ""):
            pass
        self.stopped(process)
        again = self.start("batch.py")
        self.put(b"20")
        self.assertEqual(self.line(again), "21 orders")

    def test_polling(self) -> None:
        """All messages, in lists; then the program ends."""
        self.put(b"1", b"2", b"3")
        *lists, last = self.finished(self.start("polling.py"))
        self.assertEqual(sum(int(line.partition(" ")[0]) for line in lists), 3)
        self.assertEqual((lists[-1][-3:], last), (": 3", "no more messages"))

    def test_manual_ack(self) -> None:
        """Ten at a time; a failing message is delivered again, and finally rejected."""
        self.put(*(b"%d" % number for number in range(10)), b"bad", *(b"x" for _ in range(10)))
        process = self.start("manual_ack.py")
        self.assertEqual(self.line(process), "acknowledged 9")
        lines = [self.line(process)]
        while lines[-1] not in ("acknowledged x", ""):
            lines.append(self.line(process))
        self.assertEqual(lines.count("rolled back bad"), 3)
        self.assertIn("failed 3 times and was rejected", "\n".join(lines))  # in the log
        process.send_signal(signal.SIGINT)
        self.assertNotIn("Traceback", "\n".join(self.finished(process)))

    def test_mysql_offsets(self) -> None:
        """The positions are in the table of the page."""
        reason = mariadb.missing()
        if reason:
            raise SkipTest(reason)
        server = mariadb.shared()
        database = server.new_database()
        with open(os.path.join(GUIDE, "offsets.md"), encoding="utf-8") as file:
            (statement,) = re.findall(
                r"```sql\n(CREATE TABLE metaq_offsets.*?)```", file.read(), re.DOTALL
            )
        server.execute(statement, database)
        with open(os.path.join(self.directory, ".my.cnf"), "w", encoding="utf-8") as file:
            file.write(f"[client]\nsocket={server.socket}\nuser=root\n")
        self.put(b"hello")
        process = self.start("mysql_offsets.py", replaced=('"metaq"', f'"{database}"'))
        self.assertEqual(self.line(process), "hello")
        self.stopped(process)
        rows = server.execute("SELECT * FROM metaq_offsets", database)
        self.assertIn(25, {value for row in rows for value in row})

    def test_web_aiohttp(self) -> None:
        """A request is a message."""
        self.order("web_aiohttp.py")

    def test_web_fastapi(self) -> None:
        """A request is a message."""
        self.order("web_fastapi.py")

    def order(self, name: str) -> None:
        """One order by HTTP."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = self.start(name, PORT=str(port))
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
                connection.request("POST", "/orders", b"an order")
                break
            except ConnectionRefusedError:
                self.assertIsNone(process.poll())
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.assertRegex(answer.read().decode(), r'^\{"id": ?\d+\}$')
        connection.close()
        self.assertEqual(self.bodies(1), {"an order"})

    def test_retries(self) -> None:
        """Two messages are stored; the third never can be."""
        first, second, third = self.finished(self.start("retries.py"))
        for line in (first, second):
            self.assertRegex(line, r"^stored at \d+ of 0-[01]$")
        self.assertEqual(third, "never: MessageTooLarge")

    def test_order_by_key(self) -> None:
        """The program itself checks the order."""
        ann, bob = self.finished(self.start("order_by_key.py"))
        self.assertRegex(ann, "^ann in partition 0-[01]$")
        self.assertRegex(bob, "^bob in partition 0-[01]$")

    def test_one_way(self) -> None:
        """All messages arrive, although no reply confirms them."""
        self.finished(self.start("one_way.py"))
        self.assertEqual(len(self.bodies(1000)), 1000)

    def test_shutdown(self) -> None:
        """Processed messages are acknowledged, so that none is repeated."""
        self.put(b"one")
        process = self.start("shutdown.py")
        self.assertEqual(self.line(process), "copied one")
        self.assertEqual(self.stopped(process), ["stopped"])
        self.put(b"two")
        again = self.start("shutdown.py")
        self.assertEqual(self.line(again), "copied two")
        self.assertEqual(self.bodies(4), {"one", "two", "copy of one", "copy of two"})

    def test_logs(self) -> None:
        """The client's lines, with their level."""
        lines = self.finished(self.start("logs.py"))
        self.assertRegex("\n".join(lines), r"INFO metamorphosis\.client[\w.]*: Broker .* connected")

    def test_twisted_service(self) -> None:
        """It runs as a service and stops in order."""
        self.put(b"hello")
        code = "from twisted.scripts.twistd import run; run()"
        options = ["-n", "--pidfile=", "-y", "twisted_service.py"]
        process = self.start("twisted_service.py", "-c", code, *options)
        while not self.line(process).endswith("got hello"):
            self.assertIsNone(process.poll())
        self.stopped(process, -signal.SIGTERM)  # twistd ends by the signal, after everything else

    def test_test_orders(self) -> None:
        """The program needs no broker."""
        lines = self.finished(self.start("test_orders.py", "-m", "unittest", "test_orders"))
        self.assertEqual(lines[-1], "OK")

    def test_from_kafka(self) -> None:
        """Sent messages are received."""
        lines = self.finished(self.start("from_kafka.py"))
        bodies = [line.rpartition(" b")[2] for line in lines[3:]]
        self.assertEqual(bodies, ["'value 0'", "'value 1'", "'value 2'"])


class PageTests(SynchronousTestCase):
    """The pages of the guide."""

    def test_every_program_is_on_a_page(self) -> None:
        """The page has the same text as the tested program."""
        shown = set()
        for page in os.listdir(GUIDE):
            with open(os.path.join(GUIDE, page), encoding="utf-8") as file:
                text = file.read()
            for name, program in re.findall(
                r"`examples/(\w+\.py)`[^`]*?\n\n```python\n(.*?)```", text, re.DOTALL
            ):
                with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
                    self.assertEqual(program, file.read(), f"{page}: {name}")
                shown.add(name)
        self.assertEqual({name.removesuffix(".py") for name in shown}, names())

    def test_every_program_has_a_test(self) -> None:
        """Each program has a test of its name."""
        for name in names():
            self.assertTrue(hasattr(ExampleTests, f"test_{name}"), name)
