"""``metaq tx`` without a broker: command line, output, errors."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli import tx as command
from metamorphosis.cli.adminsocket import find_socket
from metamorphosis.cli.options import parse
from metamorphosis.errors import ConfigError, MetaQError
from metamorphosis.web.unixsocket import FILE_NAME, reachable, socket_path
from tests.support.broker import SYSTEM, ZOOKEEPER
from tests.support.broker import ini as sections

XA = "XID:1:aa:bb:app"
FOUND: dict[str, Any] = {
    "key": XA,
    "kind": "xa",
    "state": "heuristically committed",
    "age_seconds": None,
    "recovered": False,
    "messages": 0,
    "bytes": 0,
    "partitions": [],
    "timeout_seconds": None,
    "redo_file": None,
}


class TxTestCase(SynchronousTestCase):
    """Runs the command in this process."""

    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())
        os.mkdir(self.data)
        self.asked: list[tuple[str, str]] = []
        self.answer: object = FOUND

    def run_tx(self, line: str) -> tuple[int, str, str]:
        """Status, output, errors."""
        output, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        status = command.tx(parse(["tx", *line.split(), "--data", self.data]))
        return status, output.getvalue(), errors.getvalue()

    def with_answer(self, answer: object) -> None:
        """Run with a broker that gives this reply to every request."""

        def ask(path: str, method: str, route: str, timeout: float) -> object:
            self.asked.append((method, route))
            return answer

        self.patch(command, "ask", ask)


class LineTests(TxTestCase):
    """The command line."""

    def test_senseless(self) -> None:
        """Each of these is refused with a reason."""
        for line, reason in (
            ("tx", "ACTION"),
            ("tx list", "--data -f/--config"),
            ("tx list --data d -f f", "not allowed with"),
            ("tx commit --data d", "KEY"),
            ("tx list --data d --state lost", "lost"),
            ("tx list --data d --limit 0", "'0' is not a number"),
            ("tx list --data d --timeout nan", "'nan' is not a number above 0"),
            ("tx list --data d --timeout 0", "'0' is not a number above 0"),
        ):
            errors = io.StringIO()
            self.patch(sys, "stderr", errors)
            error = self.assertRaises(SystemExit, parse, line.split())
            self.assertEqual(2, error.code)
            self.assertIn(reason, errors.getvalue())

    def test_where(self) -> None:
        """A data path, the directory of ``--local``, a ``server.ini``."""
        path = socket_path(self.data)
        self.assertEqual(path, find_socket(self.data, None))
        inside = os.path.join(self.data, "meta")
        ini = os.path.join(self.data, "server.ini")
        keys = {**SYSTEM, "serverPort": 8123, "dataPath": inside}
        text = sections({"system": keys, "zookeeper": ZOOKEEPER, "topic=test": {}})
        with open(ini, "w", encoding="utf-8") as file:
            file.write(text)
        self.assertEqual(socket_path(inside), find_socket(self.data, None))
        self.assertEqual(socket_path(inside), find_socket(None, ini))
        self.assertRaises(ConfigError, find_socket, None, f"{ini}.not")
        self.assertRaises(MetaQError, find_socket, "/nowhere", None)


class OutputTests(TxTestCase):
    """The output for people and for programs."""

    def test_list(self) -> None:
        """A table with a hyphen for missing values; ``>`` where the age is a lower bound."""
        old = {
            **FOUND,
            "state": "prepared",
            "age_seconds": 90061.5,
            "recovered": True,
            "messages": 3,
            "partitions": ["a-0", "b-1"],
        }
        self.with_answer({"transactions": [old, FOUND], "left_off": 5})
        status, text, said = self.run_tx("list --state prepared --limit 2")
        self.assertEqual([("GET", "/transactions?limit=2&state=prepared")], self.asked)
        _, first, second = [line.split() for line in text.splitlines()]
        self.assertEqual([XA, "prepared", ">1d01h", "3", "0", "-", "a-0,b-1"], first)
        self.assertEqual([XA, "heuristically-committed", "-", "0", "0", "-", "-"], second)
        self.assertEqual(0, status)
        self.assertIn("5 more", said)
        lines = self.run_tx("list --json")[1].splitlines()
        self.assertEqual([old, FOUND], [json.loads(line) for line in lines])

    def test_durations(self) -> None:
        """Two units at most."""
        for seconds, text in ((0, "0s"), (59.9, "59s"), (61, "1m01s"), (7500, "2h05m")):
            self.assertEqual(text, command.duration(seconds))

    def test_decisions(self) -> None:
        """The key is quoted, whatever its characters."""
        self.with_answer(FOUND)
        for name in ("commit", "rollback", "complete"):
            _, text, _ = self.run_tx(f"{name} {XA}")
            self.assertEqual(f"{XA} was heuristically committed\n", text)
        self.assertEqual(FOUND, json.loads(self.run_tx(f"commit {XA} --json")[1]))
        self.run_tx("show a/../b?c")
        self.assertEqual(("GET", "/transactions/a%2F..%2Fb%3Fc"), self.asked[-1])
        self.assertIn("redo file", self.run_tx(f"show {XA}")[1])
        self.with_answer({"key": XA})
        self.assertEqual(f"{XA} is forgotten\n", self.run_tx(f"forget {XA}")[1])


class FaultTests(TxTestCase):
    """Errors."""

    def test_not_running(self) -> None:
        """No socket, or one without a listening process."""
        for _ in range(2):
            status, text, said = self.run_tx("list")
            self.assertEqual((3, ""), (status, text))
            self.assertEqual(f"metaq: no broker runs on {self.data}\n", said)
            with reachable(socket_path(self.data)) as path, socket.socket(socket.AF_UNIX) as end:
                if not os.path.exists(socket_path(self.data)):
                    end.bind(path)

    def serve(self, reply: bytes) -> None:
        """One connection of a broker that sends this and closes."""
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        with reachable(os.path.join(self.data, FILE_NAME)) as path:
            server.bind(path)
        server.listen()

        def answer() -> None:
            end, _ = server.accept()
            end.recv(65536)
            end.sendall(reply)
            end.close()

        thread = threading.Thread(target=answer)
        thread.start()
        self.addCleanup(thread.join)

    def test_refused(self) -> None:
        """The broker's own text."""
        body = b'{"error": "Transaction X is not prepared"}'
        self.serve(b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        status, text, said = self.run_tx(f"commit {XA}")
        self.assertEqual((1, ""), (status, text))
        self.assertEqual("metaq: Transaction X is not prepared\n", said)

    def test_goes_away(self) -> None:
        """The broker ends before its reply."""
        self.serve(b"")
        status, _, said = self.run_tx(f"commit {XA}")
        self.assertEqual((1, 1), (status, said.count("\n")))
        self.assertIn("its log says why", said)

    def test_something_else_answers(self) -> None:
        """The reply is not HTTP, or not JSON."""
        self.serve(b"SSH-2.0-nobody\r\n")
        status, _, said = self.run_tx("list")
        self.assertEqual((1, 1), (status, said.count("\n")))
