"""The marker: what was acknowledged, over kills and torn writes."""

from __future__ import annotations

import os
import struct
import zlib

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.marker import SLOT_BYTES, Acknowledged, Marker, MarkerDamaged


class MarkerTests(SynchronousTestCase):
    """One file."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.marker = Marker(self.directory)
        self.addCleanup(self.marker.close)

    def found(self) -> Acknowledged | None:
        """What the next process reads."""
        return Marker(self.directory).read()

    def begin(self) -> None:
        """A new file."""
        self.marker.begin(Acknowledged(1 << 62, 7), new=True)

    def test_no_file(self) -> None:
        """The acknowledged zxid is unknown."""
        self.assertIsNone(self.found())

    def test_new(self) -> None:
        """It says what it was made with, and leaves no other file."""
        self.begin()
        self.assertEqual(self.found(), Acknowledged(1 << 62, 7))
        self.assertEqual(os.listdir(self.directory), [os.path.basename(self.marker.path)])

    def test_writes(self) -> None:
        """The newest counts, up or down, flushed or not; the file does not grow."""
        self.begin()
        size = os.path.getsize(self.marker.path)
        for zxid in (8, 9, (1 << 63) - 1, 3, 4):
            self.marker.write(zxid)
            self.assertEqual(self.found(), Acknowledged(1 << 62, zxid))
        self.marker.sync()
        self.assertEqual(self.found(), Acknowledged(1 << 62, 4))
        self.assertEqual(os.path.getsize(self.marker.path), size)

    def test_slot_of_another_kind(self) -> None:
        """A slot of another version is none, whatever its checksum says."""
        self.begin()
        slot = struct.pack(">8sQQQ", b"MQZKack2", 9, 1 << 62, 9)
        slot += struct.pack(">I", zlib.crc32(slot))
        with open(self.marker.path, "r+b") as file:
            file.write(slot)
        self.assertEqual(self.found(), Acknowledged(1 << 62, 7))
        with open(self.marker.path, "r+b") as file:
            file.seek(SLOT_BYTES)
            file.write(slot)
        self.assertRaises(MarkerDamaged, self.found)

    def test_close(self) -> None:
        """The file is open no longer; a second close has no effect."""
        self.begin()
        opened = {os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")}
        self.assertIn(self.marker.path, opened)
        for _ in range(2):
            self.marker.close()
            opened = {os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")}
            self.assertFalse({self.marker.path, self.directory} & opened)

    def test_goes_on_after_a_restart(self) -> None:
        """Another process writes on after the newest slot."""
        self.begin()
        for zxid in (8, 9, 10):
            self.marker.write(zxid)
        for zxid in (11, 12):
            again = Marker(self.directory)
            known = again.read()
            assert known is not None
            again.begin(known, new=False)
            again.write(zxid)
            again.close()
            self.assertEqual(self.found(), Acknowledged(1 << 62, zxid))

    def test_flushes(self) -> None:
        """A new file is on the disk before it has its name, and its name before anything is
        acknowledged; later writes are flushed by ``sync``, once."""
        steps: list[str] = []
        replace = os.replace

        def renamed(source: str, target: str) -> None:
            steps.append("rename")
            replace(source, target)

        self.patch(os, "fsync", lambda descriptor: steps.append("fsync"))
        self.patch(os, "fdatasync", lambda descriptor: steps.append("fdatasync"))
        self.patch(os, "replace", renamed)
        self.begin()
        self.assertEqual(steps, ["fsync", "rename", "fsync"])
        self.marker.sync()
        self.marker.write(8)
        self.marker.write(9)
        self.assertEqual(steps[3:], [])
        self.marker.sync()
        self.marker.sync()
        self.assertEqual(steps[3:], ["fdatasync"])

    def test_short_write(self) -> None:
        """It must not be acknowledged."""
        self.begin()
        self.patch(os, "pwrite", lambda descriptor, data, position: len(data) - 1)
        self.assertRaises(OSError, self.marker.write, 8)

    def test_torn_write(self) -> None:
        """A slot that is half written leaves the one before, at every length."""
        self.begin()
        self.marker.write(8)
        with open(self.marker.path, "rb") as file:
            before = file.read()
        self.marker.write(9)
        with open(self.marker.path, "rb") as file:
            after = file.read()
        changed = [at for at in range(len(after)) if after[at] != before[at]]
        self.assertEqual(len({at // SLOT_BYTES for at in changed}), 1)
        for end in range(changed[0], changed[-1] + 1):
            with open(self.marker.path, "wb") as file:
                file.write(after[:end] + before[end:])
            self.assertEqual(self.found(), Acknowledged(1 << 62, 8))

    def test_damaged(self) -> None:
        """No slot is whole: one flipped bit in each."""
        self.begin()
        self.marker.write(8)
        with open(self.marker.path, "r+b") as file:
            for at in (20, SLOT_BYTES + 20):
                file.seek(at)
                file.write(b"\xaa")
        self.assertRaises(MarkerDamaged, self.found)

    def test_closed(self) -> None:
        """Nothing is written to a file that is closed."""
        self.begin()
        self.marker.close()
        self.assertRaises(OSError, self.marker.write, 8)
