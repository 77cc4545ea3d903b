"""``metaq tx`` against ``twistd metaq``, both as processes: O50 to O52 of the specification."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.web.unixsocket import FILE_NAME, LONGEST, socket_path
from tests.support.broker import BrokerProcess, environment

METAQ = [sys.executable, "-m", "metamorphosis.cli", "tx"]
SECONDS = 30.0
XA, XA2, OPEN = "XID:1:aa:bb:app", "XID:2:aa:bb:app", "XID:3:aa:bb:app"


class Peer:
    """A blocking client of the broker."""

    def __init__(self, port: int) -> None:
        self._end = socket.create_connection(("127.0.0.1", port), SECONDS)
        self._file = self._end.makefile("rb")

    def ask(self, data: bytes) -> bytes:
        """The body of the reply."""
        self._end.sendall(data)
        head = self._file.readline()
        words = head.split(b" ")  # result <status> <length> <opaque>, value <length> <opaque>
        return self._file.read(int(words[-2])) if head else b""

    def step(self, key: str, kind: str) -> str:
        """One step of a transaction."""
        return self.ask(f"transaction {key} s {kind} 1\r\n".encode()).decode()

    def prepared(self, key: str, body: bytes) -> None:
        """A transaction that waits for its outcome."""
        self.step(key, "BEGIN")
        self.ask(b"put test 0 %d 0 -1 %b 1\r\n%b" % (len(body), key.encode(), body))
        assert self.step(key, "PREPARE") == "0"

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._end.close()


class AdministrationTests(SynchronousTestCase):
    """A broker for each test."""

    def setUp(self) -> None:
        self.broker = BrokerProcess(self.mktemp(), system={"unflushThreshold": 0})
        self.addCleanup(self.broker.kill)

    def start(self) -> Peer:
        """Start the broker; a client of it."""
        self.broker.start()
        peer = Peer(self.broker.port)
        self.addCleanup(peer.close)
        return peer

    def tx(self, *words: str, where: tuple[str, ...] | None = None) -> tuple[int, str, str]:
        """Status, output and errors of a run of ``metaq tx``."""
        place = ("--data", self.broker.data) if where is None else where
        done = subprocess.run(
            [*METAQ, *words, *place],
            env=environment(),
            capture_output=True,
            timeout=SECONDS,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def test_every_command(self) -> None:
        """For people and for programs, from the list to the end of each transaction."""
        peer = self.start()
        peer.prepared(XA, b"one")
        peer.prepared(XA2, b"two")
        peer.step(OPEN, "BEGIN")
        status, text, said = self.tx("list")
        self.assertEqual((0, ""), (status, said))
        head, *rows = text.splitlines()
        self.assertEqual("KEY STATE AGE MESSAGES BYTES REDO PARTITIONS".split(), head.split())
        self.assertEqual([XA, XA2, OPEN], [row.split()[0] for row in rows])
        self.assertEqual(["1", "1", "test-0"], [rows[0].split()[i] for i in (3, 5, 6)])
        config = ("-f", self.broker.server_ini)
        _, text, _ = self.tx("list", "--state", "prepared", "--json", where=config)
        self.assertEqual([XA, XA2], [json.loads(line)["key"] for line in text.splitlines()])
        _, text, said = self.tx("list", "--limit", "1", "--json")
        self.assertEqual(1, len(text.splitlines()))
        self.assertIn("2 more", said)
        self.assertEqual("prepared", json.loads(self.tx("show", XA, "--json")[1])["state"])
        self.assertIn("test-0", self.tx("show", XA)[1])
        journal = json.loads(self.tx("show", "--json")[1])
        self.assertEqual((2, 1), (journal["prepared"], journal["open"]))
        self.assertIn("REDO", self.tx("show")[1])
        self.assertIn("still needed", self.tx("checkpoint")[1])
        self.assertEqual((0, f"{XA} was heuristically committed\n", ""), self.tx("commit", XA))
        self.assertEqual(
            "heuristically rolled back", json.loads(self.tx("rollback", XA2, "--json")[1])["state"]
        )
        self.assertIn(b"one", peer.ask(b"get test g 0 0 1000 1\r\n"))
        self.assertIn("code=7", peer.step(XA, "COMMIT_TWO_PHASE"))
        self.assertIn("code=6", peer.step(XA2, "COMMIT_TWO_PHASE"))
        self.assertEqual((0, f"{XA} is forgotten\n", ""), self.tx("forget", XA))
        peer.prepared(XA, b"three")
        self.assertEqual(0, self.tx("complete", XA)[0])
        self.assertIn("code=8", peer.step(XA, "ROLLBACK"))
        self.assertIn("redo.2 was begun", self.tx("checkpoint")[1])
        self.assertTrue(json.loads(self.tx("checkpoint", "--json")[1])["begun"] in (True, False))

    def test_refused(self) -> None:
        """Status and one line for each refusal."""
        peer = self.start()
        peer.step(OPEN, "BEGIN")
        for words, status, reason in (
            (("commit", OPEN), 1, "not prepared"),
            (("commit", XA), 1, XA),
            (("show", "nonsense"), 1, "nonsense"),
            (("show", "../journal"), 1, "../journal"),
            (("forget", XA), 1, XA),
        ):
            got, text, said = self.tx(*words)
            self.assertEqual((words, status, ""), (words, got, text))
            self.assertIn(reason, said)
            self.assertEqual(1, said.count("\n"))
        self.assertEqual(2, self.tx("list", where=())[0])
        self.assertEqual(2, self.tx("list", where=("-f", "/nowhere/server.ini"))[0])
        self.assertEqual(1, self.tx("list", where=("--data", "/nowhere"))[0])

    def test_down_and_hanging(self) -> None:
        """Status 3 when no broker runs, 1 when it does not answer."""
        os.makedirs(self.broker.data)
        status, _, said = self.tx("list")
        self.assertEqual((3, 1), (status, said.count("\n")))
        self.assertIn("no broker runs on", said)
        self.start()
        os.kill(self.broker.pid, signal.SIGSTOP)
        try:
            status, _, said = self.tx("list", "--timeout", "0.5")
        finally:
            os.kill(self.broker.pid, signal.SIGCONT)
        self.assertEqual(1, status)
        self.assertIn("not answered within 0.5 s", said)

    def test_o50_socket(self) -> None:
        """Its mode; a stale socket is replaced; an orderly stop removes it."""
        self.start()
        path = socket_path(self.broker.data)
        self.assertEqual(0o600, stat.S_IMODE(os.stat(path).st_mode))
        self.broker.kill()
        self.assertTrue(os.path.exists(path))
        self.assertEqual(3, self.tx("list")[0])
        self.start()
        self.assertEqual(0, self.tx("list")[0])
        self.broker.stop()
        self.assertFalse(os.path.exists(path))

    def test_long_data_path(self) -> None:
        """The command works although the path of the socket is longer than the system allows."""
        data = os.path.join(os.path.abspath(self.mktemp()), *["d" * 60] * 3)
        self.assertGreater(len(socket_path(data)), LONGEST)
        os.makedirs(data)
        self.broker.system["dataPath"] = self.broker.data = data
        self.start().prepared(XA, b"one")
        self.assertEqual(0, self.tx("commit", XA)[0])
        self.broker.stop()
        self.assertNotIn(FILE_NAME, os.listdir(data))

    def test_attacks(self) -> None:
        """Malformed, huge and slow requests: the broker keeps serving."""
        peer = self.start()
        ends = []
        for data in (b"\x00\xff" * 1000, b"GET " + b"x" * 100000, b"GET / HT", b""):
            end = socket.socket(socket.AF_UNIX)
            self.addCleanup(end.close)
            end.settimeout(SECONDS)
            here = os.getcwd()
            os.chdir(self.broker.data)
            try:
                end.connect(FILE_NAME)
            finally:
                os.chdir(here)
            try:
                end.sendall(data)
            except OSError:
                pass  # it was closed before
            ends.append(end)
        peer.prepared(XA, b"one")
        self.assertEqual("", peer.step(XA, "COMMIT_TWO_PHASE"))
        self.assertEqual(0, self.tx("list")[0])

    def test_o51_other_user(self) -> None:
        """The broker refuses another user, even where the file mode lets him in."""
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        self.start()
        path = socket_path(self.broker.data)
        os.chmod(path, 0o666)
        code = (
            "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(65534);"
            " end = socket.socket(socket.AF_UNIX); end.connect(sys.argv[2]);"
            " end.sendall(b'GET /api/v1/journal HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n');"
            " print(len(end.recv(100)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.broker.data, FILE_NAME],
            capture_output=True,
            timeout=SECONDS,
            text=True,
            check=False,
        )
        self.assertTrue(done.stdout in ("0\n", ""), done.stdout)
        self.broker.wait_for_log("user 65534 is not that of the broker")
        self.assertIn("65534", Path(self.broker.log).read_text(encoding="utf-8"))
