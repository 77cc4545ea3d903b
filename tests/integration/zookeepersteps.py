"""
Random steps of several ZooKeeper clients: what the differential test does to two servers at once.

A step is plain data and holds nothing that a server said, so that the same steps suit every server.
The same seed makes the same steps.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support import rawzookeeper as raw
from tests.support.rawzookeeper import Acl

CLIENTS = 4
ROOT = "/d"
BROKEN_PATHS = ("", "/", "d", "/d/", "/d//a", "/d/./a", "/d/../d", "/d/\0", "/d/\ue000", "//")
USERS = ("ann:1", "bob:2")
VALUES: tuple[bytes | None, ...] = (None, b"", b"x", b"value", b"\0" * 50)


def digest(user: str) -> str:
    """The id of ``name:password`` in an access control list of scheme digest."""
    name = user.partition(":")[0]
    return f"{name}:{base64.b64encode(hashlib.sha1(user.encode()).digest()).decode()}"


LISTS: tuple[tuple[Acl, ...], ...] = (
    raw.OPEN,
    ((raw.READ, "world", "anyone"),),
    ((raw.ALL, "auth", ""),),
    ((raw.ALL, "digest", digest(USERS[0])), (raw.READ, "world", "anyone")),
    ((raw.ALL & ~raw.ADMIN, "digest", digest(USERS[1])), (raw.READ | 16, "world", "anyone")),
    ((raw.ALL, "digest", digest(USERS[1])),),
    ((raw.ALL, "ip", "127.0.0.1"),),
    ((raw.ALL, "ip", "10.0.0.0/8"), (raw.READ, "ip", "127.0.0.0/8")),
    ((raw.ALL, "ip", "not-an-address"),),
    ((raw.ALL, "digest", "no-colon"),),
    ((raw.ALL, "world", "nobody"),),
    ((raw.ALL, "nonsense", "x"),),
    (),
)
"""Good ones first; those at the end are refused."""

MISSING_DELETE: tuple[Acl, ...] = ((raw.ALL & ~raw.DELETE_CHILD, "world", "anyone"),)


@dataclass(frozen=True)
class Requests:
    """Requests of one client, in one write."""

    client: int
    requests: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Authenticate:
    """An identity for the client's connection."""

    client: int
    user: str


@dataclass(frozen=True)
class SetWatches:
    """Watches set again, as after a reconnect, for what changed in the last ``age`` zxids."""

    client: int
    age: int
    nodes: tuple[str, ...]
    absent: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class NewSession:
    """The client closes its session and begins another."""

    client: int


@dataclass(frozen=True)
class Reconnect:
    """The client comes back on another connection, by the session it has."""

    client: int
    first_closes: bool  # its old connection, before it opens the new one


@dataclass(frozen=True)
class WrongPassword:
    """Somebody tries the client's session with a wrong password; then the client reconnects."""

    client: int


@dataclass(frozen=True)
class Expire:
    """A further session creates ephemeral nodes and falls silent; wait until it is gone."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class Restart:
    """Both servers are killed and started; every session comes back."""


Step = (
    Requests | Authenticate | SetWatches | NewSession | Reconnect | WrongPassword | Expire | Restart
)


class Generator:
    """
    Steps without end.

    :param slow: whether steps that take a second, or more, are among them; else the test adds them.
    """

    def __init__(self, seed: int, slow: bool = False) -> None:
        self.random = random.Random(seed)
        self.slow = slow

    def step(self) -> Step:
        """The next one."""
        kind, client = self.random.random(), self.random.randrange(CLIENTS)
        if kind < 0.70:
            return Requests(client, (self.request(),))
        if kind < 0.90:
            return Requests(client, tuple(self.burst()))
        if kind < 0.94:
            return self.set_watches(client)
        if kind < 0.96:
            return Reconnect(client, self.chance(0.5))
        if kind < 0.97:
            return Authenticate(client, self.random.choice(USERS))
        if kind < 0.985:
            return NewSession(client)
        if kind < 0.995 or not self.slow:
            return WrongPassword(client)
        return Restart() if self.chance(0.2) else self.expire()

    def expire(self) -> Expire:
        """A session that will be silent."""
        return Expire(tuple(self.path() for _ in range(4)))

    def set_watches(self, client: int) -> SetWatches:
        """Up to three watches of each kind."""
        lists = [tuple(self.path() for _ in range(self.random.randrange(4))) for _ in range(3)]
        return SetWatches(client, self.random.choice((0, 3, 30, 1000)), *lists)

    def burst(self) -> list[tuple[int, bytes]]:
        """Several requests without a change of an access control list among them."""
        wanted = self.random.randrange(2, 8)
        requests: list[tuple[int, bytes]] = []
        while len(requests) < wanted:
            opcode, body = self.request()
            if opcode != raw.SET_ACL:
                requests.append((opcode, body))
        return requests

    def request(self) -> tuple[int, bytes]:
        """One request."""
        (make,) = self.random.choices(
            [self.create, self.delete, self.set_data, self.read, self.set_acl, self.multi]
            + [self.other],
            (26, 16, 15, 32, 3, 6, 2),
        )
        return make()

    def create(self) -> tuple[int, bytes]:
        """Any mode, most of them with an open list."""
        path, value = self.path(), self.random.choice(VALUES)
        flags = self.random.choice((0, 0, 0, 1, 2, 3)) if self.chance(0.99) else 77
        acl = raw.OPEN if self.chance(0.92) else self.random.choice((*LISTS, MISSING_DELETE))
        body = raw.create(path, value, acl, flags)
        return (raw.CREATE if self.chance(0.7) else raw.CREATE2), body

    def delete(self) -> tuple[int, bytes]:
        """Any version; most often of a node without children."""
        return raw.DELETE, raw.versioned(self.path((1, 2, 2, 3, 3, 3)), self.version())

    def set_data(self) -> tuple[int, bytes]:
        """Any version."""
        value = self.random.choice(VALUES)
        return raw.SET_DATA, raw.set_data(self.path(), value, self.version())

    def read(self) -> tuple[int, bytes]:
        """Everything that changes nothing; half of it with a watch."""
        path = self.path()
        opcode = self.random.choice(
            (raw.EXISTS, raw.GET_DATA, raw.GET_CHILDREN, raw.GET_CHILDREN2, raw.GET_ACL)
        )
        if opcode == raw.GET_ACL:
            return opcode, raw.text(path)
        return opcode, raw.watched(path, self.chance(0.5))

    def set_acl(self) -> tuple[int, bytes]:
        """Never of the root: no client could continue."""
        path = self.path()
        while path in ("", "/", ROOT):
            path = self.path()
        return raw.SET_ACL, raw.set_acl(path, self.random.choice(LISTS), self.version())

    def multi(self) -> tuple[int, bytes]:
        """Up to five operations, or a node that is made, changed, and perhaps deleted."""
        if self.chance(0.4):
            return raw.MULTI, raw.multi(self.life_of_a_node())
        makers: Sequence[Callable[[], tuple[int, bytes]]] = (
            self.create,
            self.delete,
            self.set_data,
            self.check,
        )
        number = self.random.randrange(6)
        return raw.MULTI, raw.multi([self.random.choice(makers)() for _ in range(number)])

    def life_of_a_node(self) -> list[tuple[int, bytes]]:
        """It fails when the node is there already, or at a version that is wrong."""
        path = self.path((2, 3))
        last = self.random.choice((raw.DELETE, raw.CHECK))
        return [
            (raw.CREATE, raw.create(path, b"1", flags=self.random.choice((0, 1)))),
            (raw.SET_DATA, raw.set_data(path, b"22", self.random.choice((0, 0, -1, 1)))),
            (raw.CHECK, raw.versioned(path, 1)),
            (last, raw.versioned(path, self.random.choice((1, 1, -1, 0)))),
        ]

    def check(self) -> tuple[int, bytes]:
        """A part of multi only."""
        return raw.CHECK, raw.versioned(self.path(), self.version())

    def other(self) -> tuple[int, bytes]:
        """What is rare."""
        return raw.SYNC, raw.text(self.path())

    def path(self, depths: Sequence[int] = (0, 1, 1, 1, 2, 2, 2, 3)) -> str:
        """A short one, so that many requests meet at the same node; rarely one that is no path."""
        if self.chance(0.03):
            return self.random.choice(BROKEN_PATHS)
        depth = self.random.choice(depths)
        path = ROOT + "".join(f"/{self.random.choice('abc')}" for _ in range(depth))
        return path + f"{self.random.randrange(6):010d}" if self.chance(0.1) else path

    def version(self) -> int:
        """Most often any version will do."""
        return -1 if self.chance(0.7) else self.random.choice((0, 1, 2, 5, -2))

    def chance(self, probability: float) -> bool:
        """Yes, with that probability."""
        return self.random.random() < probability
