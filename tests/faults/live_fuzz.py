"""
Bad clients against a running broker, while a good one puts and gets and must not notice.

Every attack comes from a seed; a failure names it. The suite runs this for some seconds
(``test_live_fuzz``), ``make fuzz`` for long.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable

from tests.faults.peer import Peer, get, put

TOPIC = "fuzz"
"""What the attackers write to and read from; their damaged frames do not reach another topic."""

WILD_TOPIC = "wild"
"""Topics that begin like this are accepted, so that names reach the file system."""

WILD_ENDINGS = ("", "-1", "/..", "/../../x", "\x00", "x" * 300, "主题", "\ufffd", "*", "{x}")

GOOD_TOPIC = "undisturbed"

ATTACKERS = 6

GOOD_SECONDS = 5.0
"""A good client that waits longer for a reply has been disturbed."""

TOKENS = (
    *(b"put get offset version stats quit sync transaction result value PUT".split()),
    *(b"fuzz nosuch * a/b ../up - 0 1 -1 2 7 15 2147483647 2147483648 -2147483648".split()),
    *(b"9223372036854775807 9223372036854775808 99999999999999999999 1.5 1e3 +1 0x10".split()),
    *(b"TX:s:1 XID:1:0a:0b:u null BEGIN END PREPARE COMMIT_ONE_PHASE RECOVER config".split()),
    b"",
    b"\xff\xfe",
    b"\xe4\xb8\xbb",
    b"\x00",
    b"x" * 300,
)

Attack = Callable[[int, random.Random], None]


def frames(rng: random.Random) -> bytes:
    """A few good frames of all kinds."""
    body = rng.randbytes(rng.choice((0, 1, 100, 1000)))
    return b"".join(
        rng.choice(
            (
                put(TOPIC, rng.choice((-1, 0, 1)), body, 1),
                put(WILD_TOPIC + rng.choice(WILD_ENDINGS), 0, body, 1),
                get(TOPIC, 0, rng.choice((0, 1, 25, 1 << 40)), rng.choice((1, 4096, 1 << 20)), 2),
                b"offset fuzz g 0 0 3\r\n",
                b"version 4\r\n",
                b"stats %s 5\r\n" % rng.choice((b"", b"topics", b"offsets", b"realtime", b"x")),
                b"put fuzz 0 5 0 1234 6\r\nhello",
                b"transaction TX:s:1 s BEGIN 7\r\n",
                b"sync fuzz 0 5 0 9999 -1 8\r\nhello",
            )
        )
        for _ in range(rng.randrange(1, 20))
    )


def linger(peer: Peer, rng: random.Random, longest: float = 0.1) -> None:
    """Read for a moment whatever comes, then leave one way or the other."""
    peer.socket.settimeout(rng.uniform(0.001, longest))
    try:
        while peer.socket.recv(65536):
            pass
    except OSError:
        pass
    if rng.random() < 0.5:
        peer.vanish()


def garbage(port: int, rng: random.Random) -> None:
    """Random bytes, with a line end now and then."""
    with Peer(port) as peer:
        data = rng.randbytes(rng.choice((1, 10, 1000, 100_000)))
        peer.send(data.replace(b"\x00", b"\r\n"))
        linger(peer, rng)


def random_lines(port: int, rng: random.Random) -> None:
    """Lines of tokens that mean something, in an order that does not."""
    with Peer(port) as peer:
        for _ in range(rng.randrange(1, 10)):
            peer.send(b" ".join(rng.choices(TOKENS, k=rng.randrange(1, 9))) + b"\r\n")
        linger(peer, rng)


def damaged(port: int, rng: random.Random) -> None:
    """Good frames in which bytes were changed, lost or doubled."""
    data = bytearray(frames(rng))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        what = rng.randrange(3)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at : at + rng.randrange(1, 10)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 10)]
        if not data:
            return
    with Peer(port) as peer:
        peer.send(bytes(data))
        linger(peer, rng)


def half_a_frame(port: int, rng: random.Random) -> None:
    """Good frames that end in the middle of one; then the client is gone."""
    data = frames(rng)
    with Peer(port) as peer:
        peer.send(data[: rng.randrange(len(data))])
        linger(peer, rng, 0.02)


def huge_length(port: int, rng: random.Random) -> None:
    """The announcement of a body that is too long for the broker, or for any."""
    length = rng.choice((1 << 20, 1 << 26, (1 << 31) - 1, 1 << 31, 1 << 63, 10**30))
    with Peer(port) as peer:
        peer.send(b"put fuzz 0 %d 0 1\r\n" % length + bytes(rng.choice((0, 10, 300_000))))
        linger(peer, rng)


def endless_line(port: int, rng: random.Random) -> None:
    """A line that does not end."""
    with Peer(port) as peer:
        for _ in range(rng.randrange(1, 8)):
            peer.send(rng.choice((b"a", b"put ", b"get fuzz ", b"\r")) * 20_000)
        linger(peer, rng)


def slow(port: int, rng: random.Random) -> None:
    """A good frame, byte by byte, and not always to its end."""
    data = put(TOPIC, 0, b"slow", 1) + b"version 2\r\n"
    with Peer(port) as peer:
        for at in range(rng.randrange(10, len(data))):
            peer.send(data[at : at + 1])
            time.sleep(0.002)
        linger(peer, rng)


def does_not_read(port: int, rng: random.Random) -> None:
    """Many requests with large replies, of which none is read."""
    with Peer(port, 0.3) as peer:
        request = rng.choice(
            (get(TOPIC, 0, 0, 1 << 20, 1), b"stats topics 1\r\n", b"version 1\r\n")
        )
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            peer.send(request * rng.choice((10, 1000, 20_000)))
        except TimeoutError:
            pass  # the broker has stopped to read, as it should
        time.sleep(rng.uniform(0.0, 0.3))
        peer.vanish()


def flood(port: int, rng: random.Random) -> None:
    """Thousands of good requests in one go, and a client that leaves before it has all replies."""
    with Peer(port, 0.5) as peer:
        try:
            peer.send(frames(rng) * rng.choice((10, 100)))
        except TimeoutError:
            pass
        linger(peer, rng, 0.5)


def half_close(port: int, rng: random.Random) -> None:
    """Good frames, then the end of the input; replies are still read."""
    with Peer(port) as peer:
        peer.send(frames(rng))
        peer.socket.shutdown(socket.SHUT_WR)
        linger(peer, rng)


def many_connections(port: int, rng: random.Random) -> None:
    """Connections that come and go without a word."""
    peers = [Peer(port) for _ in range(rng.randrange(1, 30))]
    for peer in peers:
        if rng.random() < 0.5:
            peer.vanish()
        else:
            peer.close()


ATTACKS: tuple[Attack, ...] = (
    garbage,
    random_lines,
    damaged,
    half_a_frame,
    huge_length,
    endless_line,
    slow,
    does_not_read,
    flood,
    half_close,
    many_connections,
)


class Attacker(threading.Thread):
    """
    One attack after the other until it is told to stop.

    :ivar attacks: how many.
    :ivar failures: connections that could not be made.
    """

    def __init__(self, port: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f"attacker {seed}")
        self.attacks = 0
        self.failures: list[OSError] = []
        self._port = port
        self._random = random.Random(seed)
        self._stopping = stop

    def run(self) -> None:
        """The broker may end any attack by closing the connection, but must accept the next one."""
        while not self._stopping.is_set():
            attack = self._random.choice(ATTACKS)
            try:
                attack(self._port, self._random)
            except ConnectionRefusedError as error:
                self.failures.append(error)
                return
            except OSError:
                pass
            self.attacks += 1


class GoodClient:
    """
    Puts messages and gets each back, over one connection that must never break.

    :ivar stored: where the messages lie.
    :ivar slowest: seconds, the longest a reply took.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.stored: list[tuple[int, bytes]] = []
        self.slowest = 0.0
        self._peer = Peer(port, GOOD_SECONDS)
        self._random = random.Random(seed)

    def work(self) -> None:
        """Put a message, get it back, get an old one back."""
        body = b"%d " % len(self.stored) + self._random.randbytes(self._random.choice((10, 2000)))
        number = len(self.stored) % 10_000
        reply = self._ask(put(GOOD_TOPIC, 0, body, number))
        if (reply[0], reply[1]) != (200, number):
            raise AssertionError(f"put: {reply!r}")
        self.stored.append((int(reply[2].split(b" ")[2]), body))
        for offset, expected in (self.stored[-1], self._random.choice(self.stored)):
            status, _, data = self._ask(get(GOOD_TOPIC, 0, offset, 20 + len(expected), number))
            if status != 0 or data[20:] != expected:
                raise AssertionError(f"get at {offset}: status {status}, {data[:60]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()

    def _ask(self, request: bytes) -> tuple[int, int, bytes]:
        start = time.monotonic()
        reply = self._peer.ask(request)
        self.slowest = max(self.slowest, time.monotonic() - start)
        return reply


class FuzzRun:
    """
    Attackers and a good client against a broker that has the topics ``TOPIC`` and ``GOOD_TOPIC``.

    :ivar attacks: how many there were.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.attacks = 0
        self.good = GoodClient(port, seed)
        self._stop = threading.Event()
        self._attackers = [Attacker(port, seed + n, self._stop) for n in range(ATTACKERS)]

    def run(self, seconds: float) -> None:
        """
        Attack for so long.

        :raises AssertionError: the good client was answered wrongly, or the broker accepts no
            connection.
        :raises OSError: the good client lost its connection, or waited too long.
        """
        deadline = time.monotonic() + seconds
        for attacker in self._attackers:
            attacker.start()
        try:
            while time.monotonic() < deadline:
                self.good.work()
                time.sleep(0.005)
        finally:
            self._stop.set()
            for attacker in self._attackers:
                attacker.join(30)
            self.good.close()
        self.attacks = sum(attacker.attacks for attacker in self._attackers)
        refused = [error for attacker in self._attackers for error in attacker.failures]
        if refused:
            raise AssertionError(f"the broker accepts no connections: {refused[0]}")


TOPICS = {
    TOPIC: {"numPartitions": 2, "unflushThreshold": 1000},
    WILD_TOPIC + "*": {},
    GOOD_TOPIC: {"numPartitions": 1, "unflushThreshold": 0},
}
"""Sections for the broker under attack."""

RESIDENT_LIMIT_KIB = 400 * 1024
"""
A broker that keeps what bad clients send or do not read grows past this in seconds.

Ours answers for 6 attackers with at most 4 MiB unanswered each, beside the 50 MiB of the
interpreter and what malloc keeps of finished replies.
"""


def resident_kib(pid: int) -> int:
    """The resident memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def open_connections(port: int) -> int:
    """``curr_connections`` of ``stats``, the asking one included."""
    with Peer(port) as peer:
        lines = peer.ask(b"stats  1\r\n").body.decode("ascii").split("\r\n")
    return next(int(line.split(" ")[1]) for line in lines if line.startswith("curr_connections"))


def wait_until_alone(port: int, seconds: float = 10.0) -> int:
    """Wait until every other connection is gone; how many are left if they do not go."""
    deadline = time.monotonic() + seconds
    while (count := open_connections(port)) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    return count - 1
