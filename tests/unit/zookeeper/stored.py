"""A directory with a database, and what a crash leaves of it, for the tests."""

from __future__ import annotations

import os
import shutil

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import OPEN
from metamorphosis.zookeeper.sessions import Sessions
from metamorphosis.zookeeper.storage import FILE_NAME, Storage
from metamorphosis.zookeeper.tree import Tree

TICK = 2000


def keep(storage: Storage, tree: Tree, sessions: Sessions | None = None) -> None:
    """Commit what changed."""
    if not storage.begin():
        raise AssertionError("there is a lock")
    storage.write(
        tree.take_changes(), sessions.take_changes() if sessions is not None else {}, tree.zxid
    )
    storage.commit()


def grow(storage: Storage, tree: Tree, names: str, data: bytes = b"data") -> None:
    """A batch for each letter: a node of that name."""
    for name in names:
        tree.begin(0)
        tree.create(f"/{name}", data, OPEN)
        keep(storage, tree)


def copied(source: str, target: str) -> str:
    """The files of a directory as another process finds them after kill -9."""
    os.makedirs(target)
    for name in os.listdir(source):
        if not name.endswith("-shm"):
            shutil.copyfile(os.path.join(source, name), os.path.join(target, name))
    return target


def contents(directory: str) -> dict[str, bytes]:
    """Every file but the index of the log, which holds nothing of its own, and an empty log."""
    found = {}
    for name in os.listdir(directory):
        if not name.endswith("-shm"):
            with open(os.path.join(directory, name), "rb") as file:
                found[name] = file.read()
            if name.endswith("-wal") and not found[name]:
                del found[name]
    return found


class StorageTestCase(SynchronousTestCase):
    """A directory."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, FILE_NAME)
        self.storages: list[Storage] = []

    def tearDown(self) -> None:
        for storage in self.storages:
            storage.close()

    def open(self, directory: str | None = None, accept_loss: bool = False) -> Storage:
        """The database; closed after the test."""
        self.storages.append(Storage(directory or self.directory, accept_loss))
        return self.storages[-1]

    def restarted(self) -> Storage:
        """The database as another process finds it after kill -9: opened without a close."""
        return self.open(copied(self.directory, os.path.abspath(self.mktemp())))
