"""What is done with the files of expired segments."""

from __future__ import annotations

import os
import zipfile

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from metamorphosis.config.policies import parse_policy
from metamorphosis.interfaces import IDeletePolicy
from metamorphosis.store.deletepolicies import (
    ArchivePolicy,
    DiscardPolicy,
    count_expired,
    make_policy,
)
from tests.support.leftovers import descriptors

NAME = "00000000000000000000.meta"


class PolicyTestCase(SynchronousTestCase):
    """A directory with a segment file."""

    def setUp(self) -> None:
        """Write the file."""
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, NAME)
        with open(self.path, "wb") as stream:
            stream.write(b"content" * 1000)

    def names(self) -> list[str]:
        """What the directory contains."""
        return sorted(os.listdir(self.directory))


class DiscardTests(PolicyTestCase):
    """Deleting."""

    def test_interface(self) -> None:
        """It is a delete policy."""
        self.assertTrue(verifyObject(IDeletePolicy, DiscardPolicy(1)))

    def test_dispose(self) -> None:
        """The file goes; that it is gone already is fine."""
        DiscardPolicy(1).dispose(self.path)
        self.assertEqual(self.names(), [])
        DiscardPolicy(1).dispose(self.path)

    def test_error(self) -> None:
        """Any other error is raised."""
        self.assertRaises(OSError, DiscardPolicy(1).dispose, self.directory)


class ArchiveTests(PolicyTestCase):
    """Renaming and compressing."""

    def test_interface(self) -> None:
        """It is a delete policy."""
        self.assertTrue(verifyObject(IDeletePolicy, ArchivePolicy(1, True)))

    def test_rename(self) -> None:
        """Without compression the file gets a suffix."""
        ArchivePolicy(1, False).dispose(self.path)
        self.assertEqual(self.names(), [NAME + ".arc"])

    def test_compress(self) -> None:
        """With compression there is an archive with one entry, named like the file."""
        ArchivePolicy(1, True).dispose(self.path)
        self.assertEqual(self.names(), [NAME + ".zip"])
        with zipfile.ZipFile(self.path + ".zip") as packed:
            self.assertEqual(packed.namelist(), [NAME])
            self.assertEqual(packed.read(NAME), b"content" * 1000)
            self.assertEqual(packed.infolist()[0].compress_type, zipfile.ZIP_DEFLATED)

    def test_durable_before_the_original_goes(self) -> None:
        """The whole archive is flushed, then its name, and only then the original is deleted."""
        flushed: list[tuple[str, int, list[str]]] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            size = 0 if os.path.isdir(path) else os.path.getsize(path)
            flushed.append((path, size, self.names()))
            real(fd)

        self.patch(os, "fsync", fsync)
        ArchivePolicy(1, True).dispose(self.path)
        directory = os.path.realpath(self.directory)
        size = os.path.getsize(self.path + ".zip")
        part = f"{NAME}.zip.part"
        self.assertEqual(
            flushed,
            [
                (os.path.join(directory, part), size, [NAME, part]),
                (directory, 0, [NAME, f"{NAME}.zip"]),
            ],
        )
        self.assertNotIn(directory, descriptors().values())

    def test_older_than_zip_files_can_say(self) -> None:
        """A modification time before 1980 is not an obstacle."""
        os.utime(self.path, (0, 0))
        ArchivePolicy(1, True).dispose(self.path)
        self.assertEqual(self.names(), [NAME + ".zip"])

    def test_failed_compression_keeps_the_original(self) -> None:
        """When the archive cannot get its name, the original stays and nothing is left over."""
        os.makedirs(os.path.join(self.directory, NAME + ".zip", "x"))
        self.assertRaises(OSError, ArchivePolicy(1, True).dispose, self.path)
        self.assertEqual(self.names(), [NAME, NAME + ".zip"])

    def test_failed_rename_keeps_the_original(self) -> None:
        """When the name is taken by a directory, the original stays."""
        os.makedirs(os.path.join(self.directory, NAME + ".arc", "x"))
        self.assertRaises(OSError, ArchivePolicy(1, False).dispose, self.path)
        self.assertIn(NAME, self.names())

    def test_again_after_a_crash(self) -> None:
        """Leftovers of an interrupted attempt are overwritten."""
        for suffix in (".zip", ".zip.part"):
            with open(self.path + suffix, "wb") as stream:
                stream.write(b"half")
        ArchivePolicy(1, True).dispose(self.path)
        self.assertEqual(self.names(), [NAME + ".zip"])
        self.assertTrue(zipfile.is_zipfile(self.path + ".zip"))

    def test_missing_file(self) -> None:
        """A file that is gone already is fine, and no archive is made of it."""
        os.unlink(self.path)
        ArchivePolicy(1, True).dispose(self.path)
        ArchivePolicy(1, False).dispose(self.path)
        self.assertEqual(self.names(), [])


class MakeTests(SynchronousTestCase):
    """From text to policy."""

    def test_make(self) -> None:
        """Name, retention and compression are those of the text."""
        discard = make_policy(parse_policy("delete,10s"))
        self.assertIsInstance(discard, DiscardPolicy)
        self.assertEqual(discard.retention_ms, 10_000)
        for text, compress in (("archive,1m", False), ("archive,1m,true", True)):
            archive = make_policy(parse_policy(text))
            assert isinstance(archive, ArchivePolicy)
            self.assertEqual((archive.retention_ms, archive.compress), (60_000, compress))


class ExpiredTests(SynchronousTestCase):
    """How many segments are old enough."""

    def setUp(self) -> None:
        """Files that were modified at 1000 s, 2000 s and 1500 s."""
        directory = self.mktemp()
        os.makedirs(directory)
        self.paths = [os.path.join(directory, name) for name in "abc"]
        for path, second in zip(self.paths, (1000, 2000, 1500)):
            with open(path, "wb"):
                os.utime(path, (second, second))

    def test_strictly_older(self) -> None:
        """A file of exactly the retention's age stays."""
        self.assertEqual(count_expired(self.paths, 1_000_500, 500), 0)
        self.assertEqual(count_expired(self.paths, 1_000_501, 500), 1)

    def test_without_interruption(self) -> None:
        """Counting stops at the first that is too young, even if a later one is older."""
        self.assertEqual(count_expired(self.paths, 1_900_000, 100_000), 1)
        self.assertEqual(count_expired(self.paths, 2_200_000, 100_000), 3)

    def test_missing_file(self) -> None:
        """A missing file counts as expired."""
        os.unlink(self.paths[0])
        self.assertEqual(count_expired(self.paths, 2_000_000, 500_000), 1)

    def test_negative_retention(self) -> None:
        """With a negative retention a file of the near future is old enough."""
        self.assertEqual(count_expired(self.paths[:1], 999_000, -1001), 1)
        self.assertEqual(count_expired(self.paths[:1], 999_000, -1000), 0)
