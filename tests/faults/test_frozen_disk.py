"""A data path on a file system that is frozen, as for a snapshot, while others are in use."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from zlib import crc32

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.broker import BrokerProcess

SOON = 2.0
"""Seconds within which others are answered: far above what a loaded machine takes."""


def run(*command: str) -> None:
    """Run a command that needs root and certain tools."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise SkipTest(f"the command {command[0]} is missing") from None
    if done.returncode:
        raise SkipTest(f"{' '.join(command)}: {done.stderr.strip()}")


class Peer:
    """A simple client."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)

    def send(self, data: bytes) -> None:
        """A request."""
        self.socket.sendall(data)

    def put(self, topic: str, body: bytes, partition: int = 0) -> None:
        """A put."""
        head = topic.encode(), partition, len(body), crc32(body) & 0x7FFFFFFF
        self.send(b"put %b %d %d 0 %d 1\r\n%b" % (*head, body))

    def reply(self, seconds: float) -> bytes:
        """The bytes that arrive within this time."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1 << 16)
        except TimeoutError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class FrozenDiskTests(SynchronousTestCase):
    """Needs root, loop devices and ``fsfreeze``."""

    timeout = 120

    def setUp(self) -> None:
        """A broker with topic ``cold`` on a file system of its own and ``warm`` on another."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        image, self.mount = os.path.join(directory, "image"), os.path.join(directory, "mount")
        os.mkdir(self.mount)
        run("truncate", "-s", "64M", image)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, self.mount)
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount])
        self.broker = BrokerProcess(os.path.join(directory, "broker"))
        self.frozen = False
        self.addCleanup(self.broker.kill)
        self.addCleanup(self.thaw)

    def start(self, threshold: int) -> None:
        """Start it with this ``unflushThreshold``."""
        cold = os.path.join(self.mount, "data")
        self.broker.topics = {
            "cold": {"dataPath": cold, "unflushThreshold": threshold, "numPartitions": 2},
            "warm": {"unflushThreshold": threshold},
        }
        self.broker.start()

    def freeze(self) -> None:
        """Freeze it: every write to it hangs."""
        run("fsfreeze", "-f", self.mount)
        self.frozen = True

    def thaw(self) -> None:
        """Let the writes continue."""
        if self.frozen:
            self.frozen = False
            subprocess.run(["fsfreeze", "-u", self.mount], check=True)

    def peer(self) -> Peer:
        """A connection."""
        peer = Peer(self.broker.port)
        self.addCleanup(peer.close)
        return peer

    def served(self) -> None:
        """The clients of the other disk are served."""
        peer = self.peer()
        peer.send(b"version 1\r\n")
        self.assertIn(b"1.4.6.2", peer.reply(SOON))
        peer.put("warm", b"hello")
        self.assertIn(b"result 200", peer.reply(SOON))
        peer.send(b"get warm g 0 0 100 1\r\n")
        self.assertIn(b"hello", peer.reply(SOON))
        peer.send(b"get cold g 0 0 100 1\r\n")
        self.assertIn(b"first", peer.reply(SOON))

    def freeze_and_thaw(self, threshold: int) -> None:
        """A short freeze under load: its puts wait, none is lost or refused."""
        self.start(threshold)
        waiting = self.peer()
        for topic in ("cold", "warm"):
            waiting.put(topic, b"first")
            self.assertIn(b"result 200", waiting.reply(10))
        time.sleep(0.3)  # until it is flushed, and the freeze finds nothing to do
        load = self.peer()
        stop = threading.Event()
        stored: list[bytes] = []

        def put_on() -> None:
            while not stop.is_set():
                load.put("cold", b"%06d" % len(stored))
                if b"result 200" in load.reply(30):
                    stored.append(b"%06d" % len(stored))

        thread = threading.Thread(target=put_on)
        thread.start()
        self.freeze()
        time.sleep(0.5)
        for _ in range(10):
            self.served()
        waiting.put("cold", b"second")
        self.assertEqual(waiting.reply(0.5), b"")
        self.thaw()
        self.assertIn(b"result 200", waiting.reply(10))
        stop.set()
        thread.join()
        time.sleep(0.5)
        reader = self.peer()
        reader.send(b"get cold g 0 0 1000000 1\r\n")
        log = b""
        while b"second" not in log or any(body not in log for body in stored):
            piece = reader.reply(5)
            self.assertTrue(piece)
            log += piece

    def test_default_mode(self) -> None:
        """With background flushes."""
        self.freeze_and_thaw(1000)

    def test_group_commit(self) -> None:
        """With a flush before each reply."""
        self.freeze_and_thaw(0)

    def test_new_partition(self) -> None:
        """The first put of a partition on a frozen path waits alone, and those after it with it;
        they are stored in the order of their connection."""
        self.start(1000)
        peer, other = self.peer(), self.peer()
        for topic in ("cold", "warm"):
            peer.put(topic, b"first")
            self.assertIn(b"result 200", peer.reply(10))
        time.sleep(0.3)
        self.freeze()
        peer.put("cold", b"new", 1)
        peer.put("cold", b"second", 1)
        peer.put("warm", b"behind")
        other.put("cold", b"third", 1)
        self.assertEqual(b"", peer.reply(0.5))
        self.served()
        self.thaw()
        replies = b""
        while replies.count(b"result 200") < 3:
            piece = peer.reply(10)
            self.assertTrue(piece)
            replies += piece
        self.assertIn(b"result 200", other.reply(10))
        self.assertRegex(replies, rb"(?s)^result 200 .* 1 0result 200 .* 1 \d+result 200 .* 0 ")
        time.sleep(0.3)
        other.send(b"get cold g 1 0 1000 1\r\n")
        log = other.reply(10)
        self.assertRegex(log, b"(?s)new.*second")
        self.assertIn(b"third", log)

    def test_one_device(self) -> None:
        """With writes in threads a broker whose only disk is frozen still serves requests that do
        not write."""
        self.broker.data = os.path.join(self.mount, "data")
        self.broker.system["dataPath"] = self.broker.data
        self.broker.settings = {"store": {"writes-in-threads": "true"}}
        self.start(1000)
        peer = self.peer()
        peer.put("cold", b"first")
        self.assertIn(b"result 200", peer.reply(10))
        time.sleep(0.3)
        self.freeze()
        peer.put("cold", b"second")
        self.assertEqual(b"", peer.reply(0.3))
        reader = self.peer()
        for request, reply in (
            (b"version 1\r\n", b"1.4.6.2"),
            (b"stats  1\r\n", b"curr_connections"),
            (b"get cold g 0 0 100 1\r\n", b"first"),
        ):
            reader.send(request)
            self.assertIn(reply, reader.reply(SOON))
        self.thaw()
        self.assertIn(b"result 200", peer.reply(10))

    def test_long_freeze(self) -> None:
        """Puts are refused after a time limit, which is logged, and accepted again afterwards."""
        self.start(1000)
        peer = self.peer()
        peer.put("cold", b"first")
        self.assertIn(b"result 200", peer.reply(10))
        time.sleep(0.3)
        self.freeze()
        peer.put("cold", b"never")
        self.assertIn(b"result 500", peer.reply(20))
        peer.put("cold", b"never")
        self.assertIn(b"does not answer", peer.reply(SOON))
        self.thaw()
        deadline = time.monotonic() + 10
        reply = b""
        while b"result 200" not in reply and time.monotonic() < deadline:
            peer.put("cold", b"after")
            reply = peer.reply(10)
        self.assertIn(b" 0 25", reply)
        with open(self.broker.log, encoding="utf-8") as file:
            text = file.read()
        self.assertIn(f"{self.mount}/data does not answer", text)
        self.assertIn(f"{self.mount}/data answers again", text)
