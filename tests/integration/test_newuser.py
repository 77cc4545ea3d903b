"""The steps of a new user: a clean clone, ``make run``, send, receive, Ctrl-C, and again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.broker import CHECKOUT
from tests.support.zookeeper import ZooKeeperServer, free_port

INSTALL_SECONDS = 240.0
START_SECONDS = 60.0
STOP_SECONDS = 30.0
NO_INDEX = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ProxyError")
"""What pip says of an index that it cannot reach."""


class NewUserTests(SynchronousTestCase):
    """Only the commands of the README, on the last commit. Free ports are given by ``RUN``, because
    other processes may use this machine."""

    timeout = 400

    def setUp(self) -> None:
        """A clone with everything installed into it."""
        self.clone = os.path.abspath(self.mktemp())
        if not os.path.isdir(os.path.join(CHECKOUT, ".git")):
            raise SkipTest("not a git checkout")
        self.addCleanup(shutil.rmtree, self.clone, True)  # 150 MB
        subprocess.run(["git", "clone", "--quiet", CHECKOUT, self.clone], check=True)
        done = subprocess.run(
            ["make", "environment"],
            cwd=self.clone,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode and any(text in done.stderr for text in NO_INDEX):
            raise SkipTest("pip reaches no package index")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.port, self.zookeeper_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.addCleanup(self.kill)

    def make_run(self, options: str = "") -> str:
        """Run ``make run`` until it prints the next steps; its output."""
        log = os.path.join(self.clone, "output")
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                ["make", "run", f"RUN={options}"],
                cwd=self.clone,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with open(log, encoding="utf-8", errors="replace") as file:
                said = file.read()
            if "The broker serves." in said and "Ctrl-C" in said:
                return said
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.fail(f"make run does not serve:\n{said}")
            time.sleep(0.05)

    def press_ctrl_c(self) -> str:
        """SIGINT for make and its children, as a terminal does; the output."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(STOP_SECONDS)
        self.process = None
        with open(os.path.join(self.clone, "output"), encoding="utf-8") as file:
            return file.read()

    def kill(self) -> None:
        """End all processes, whatever happened."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def telnet(self, lines: bytes) -> bytes:
        """The broker's replies to typed lines, until it closes the connection after ``quit``."""
        with socket.create_connection(("localhost", self.port), 10) as connection:
            connection.sendall(lines + b"quit\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def metaq(self, line: str, given: str = "") -> list[str]:
        """The output lines of a command of ``metaq``; it finds the broker by ZooKeeper."""
        program = os.path.join(self.clone, ".venv", "bin", "metaq")
        where = ["--zookeeper", f"localhost:{self.zookeeper_port}"]
        done = subprocess.run(
            [program, *line.split(), *where],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, (line, done.stdout, done.stderr))
        return done.stdout.splitlines()

    def test_from_clone_to_second_start(self) -> None:
        """Messages sent before Ctrl-C are received after it; offsets and identity stay, too."""
        options = f"--port {self.port} --zookeeper-port {self.zookeeper_port}"
        said = self.make_run(options)
        for text in (f"localhost:{self.port}", f"localhost:{self.zookeeper_port}", "metaq-data"):
            self.assertIn(text, said)
        answer = self.telnet(b"put test 0 5 0 1\r\nhello")
        self.assertRegex(answer, rb"^result 200 \d+ 1\r\n\d+ 0 0")
        self.metaq("produce test", "one\ntwo\n")
        self.assertEqual(self.metaq("consume test --group readers --max 2"), ["hello", "one"])
        registered = self.registration()
        self.assertIn(str(self.port).encode(), registered)
        self.assertNotIn("Traceback", self.press_ctrl_c())
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", self.zookeeper_port)), 0)
        self.make_run()
        received = self.telnet(b"get test others 0 0 1000 2\r\n")
        self.assertTrue(received.startswith(b"value "), received)
        self.assertIn(b"hello", received)
        self.metaq("produce test", "three\n")
        self.assertEqual(self.metaq("consume test --group readers --max 2"), ["two", "three"])
        self.assertEqual(self.registration(), registered)
        self.assertNotIn("Traceback", self.press_ctrl_c())

    def registration(self) -> bytes:
        """The broker's nodes as any client of ZooKeeper sees them."""
        client = ZooKeeperServer(self.clone, port=self.zookeeper_port).client()
        try:
            data: bytes = client.get("/meta/brokers/ids/0/master")[0]
            return data
        finally:
            client.stop()
            client.close()
