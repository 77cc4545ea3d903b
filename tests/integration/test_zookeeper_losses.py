"""A real process of our ZooKeeper that is killed, loses files, meets a lock and shrinks."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.marker import FILE_NAME as MARKER
from metamorphosis.zookeeper.storage import FILE_NAME
from tests.support.embedded import EmbeddedZooKeeper
from tests.support.rawzookeeper import (
    CREATE,
    DELETE,
    GET_DATA,
    SET_DATA,
    Closed,
    RawClient,
    create,
    fields,
    set_data,
    versioned,
    watched,
)

KILLS = 12


class LossTests(SynchronousTestCase):
    """One server, and clients that encode their own bytes."""

    def setUp(self) -> None:
        self.server = EmbeddedZooKeeper(self.mktemp())
        self.server.start()
        self.addCleanup(self.server.stop)
        self.path = os.path.join(self.server.data, FILE_NAME)

    def client(self) -> RawClient:
        """One with a session."""
        client = RawClient(self.server.port)
        client.connect()
        self.addCleanup(client.socket.close)
        return client

    def request(self, client: RawClient, opcode: int, body: bytes) -> tuple[object, ...]:
        """The fields of the answer."""
        client.send(opcode, body)
        return fields(opcode, client.receive_reply())

    def test_kills_under_load(self) -> None:
        """After each kill the server starts again, with every acknowledged change."""
        chance = random.Random(11)
        client = self.client()
        self.request(client, CREATE, create("/a", b"0"))
        number = acknowledged = 0
        for _ in range(KILLS):
            end = time.monotonic() + chance.uniform(0.0, 0.3)
            while time.monotonic() < end:
                number += 1
                self.request(client, SET_DATA, set_data("/a", b"%d" % number))
                acknowledged = number
            for _ in range(50):  # the kill falls into these
                number += 1
                client.send(SET_DATA, set_data("/a", b"%d" % number))
            time.sleep(chance.uniform(0.0, 0.01))
            self.server.kill()
            try:
                while True:
                    client.receive_reply()
                    acknowledged += 1
            except Closed:
                pass
            self.server.start()
            client = self.client()
            data, _ = self.request(client, GET_DATA, watched("/a"))
            self.assertIsInstance(data, bytes)
            self.assertGreaterEqual(int(data), acknowledged)  # type: ignore[call-overload]
            number = int(data)  # type: ignore[call-overload]

    def refused(self) -> str:
        """The output of a start that ends with status 1."""
        ended = subprocess.run(
            self.server.command(),
            cwd=self.server.directory,
            env=self.server.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(ended.returncode, 1, ended.stdout)
        self.assertNotIn("Traceback", ended.stdout)
        return ended.stdout

    def test_empty_database_beside_a_full_log(self) -> None:
        """The start is refused with status 1 and one line; with the option the server begins empty,
        once, and clients with it."""
        client = self.client()
        self.request(client, CREATE, create("/a", b"1"))
        self.server.kill()
        os.truncate(self.path, 0)
        before = os.path.getsize(f"{self.path}-wal")
        (line,) = [each for each in self.refused().splitlines() if "less than" in each]
        self.assertIn("--accept-loss", line)
        self.assertEqual(os.path.getsize(f"{self.path}-wal"), before)
        self.server.options = ["--accept-loss"]
        self.server.start()
        self.assertEqual(list(self.server.tree("/")), ["/"])
        self.server.stop()
        self.server.options = []
        self.server.start()
        self.assertTrue(os.path.exists(os.path.join(self.server.data, MARKER)))

    def test_lock_of_another_process(self) -> None:
        """A lock of a second and a half delays a change and disconnects no client."""
        client, other = self.client(), self.client()
        self.request(client, CREATE, create("/a", b"1"))
        database = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(database.close)
        database.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        client.send(SET_DATA, set_data("/a", b"2"))
        time.sleep(1.5)
        database.execute("ROLLBACK")
        client.receive_reply()
        self.assertGreater(time.monotonic() - began, 1.4)
        self.assertLess(time.monotonic() - began, 15.0)
        data, _ = self.request(other, GET_DATA, watched("/a"))
        self.assertEqual(data, b"2")
        with open(os.path.join(self.server.directory, "log"), encoding="utf-8") as file:
            self.assertIn("Another process had a lock on", file.read())

    def test_file_shrinks(self) -> None:
        """The file shrinks after many large nodes were deleted."""
        client = self.client()
        for turn in (CREATE, DELETE):
            for number in range(1500):
                path = f"/{number}"
                if turn == CREATE:
                    client.send(CREATE, create(path, bytes(10_000)))
                else:
                    client.send(DELETE, versioned(path))
            for _ in range(1500):
                client.receive_reply()
        largest = os.path.getsize(self.path)
        self.assertGreater(largest, 8 << 20)
        deadline = time.monotonic() + 30
        while os.path.getsize(self.path) > 2 << 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertLessEqual(os.path.getsize(self.path), 2 << 20)
