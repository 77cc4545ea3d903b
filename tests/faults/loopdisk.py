"""
A file system of its own on an image file, whose machine can lose its power.

``cut_power`` shuts the file system down as it is: what its files have in the page cache never
reaches the device, nor does what the file system has not committed. From then on every call fails.
``mount`` lets it recover from its own journal, as after the power has come back.

Needs root, Linux, loop devices and ``mkfs.ext4``.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess

from twisted.trial.unittest import SkipTest

SHUTDOWN = 0x8004587D
"""``FS_IOC_SHUTDOWN``"""

DROP_EVERYTHING = 2
"""``FS_SHUTDOWN_FLAGS_NOLOGFLUSH``: the journal of the file system is not flushed either."""

OPTIONS = "loop,noatime,commit=300,noauto_da_alloc"
"""Nothing reaches the device before its time: no commits every five seconds, no early blocks."""


def run(*command: str) -> None:
    """
    A command that needs root and the machine's help.

    :raises SkipTest: it is not there, or not allowed; the text says which.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise SkipTest(f"the command {command[0]} is missing") from None
    if done.returncode:
        raise SkipTest(f"{' '.join(command)}: {done.stderr.strip()}")


class LoopDisk:
    """
    :param directory: for the image and the place where it is mounted.
    :param size: of the image, as ``truncate`` takes it; what is not used takes no room.
    :ivar path: where the file system is mounted.
    :raises SkipTest: such a disk cannot be had here.
    """

    def __init__(self, directory: str, size: str) -> None:
        self.path = os.path.join(os.path.abspath(directory), "disk")
        self._image = f"{self.path}.image"
        os.makedirs(self.path)
        run("truncate", "-s", size, self._image)
        run("mkfs.ext4", "-q", "-F", self._image)
        self.mount()

    def mount(self) -> None:
        """Make the files available."""
        run("mount", "-o", OPTIONS, self._image, self.path)

    def cut_power(self) -> None:
        """Lose what is not on the device."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", DROP_EVERYTHING))
        except OSError as error:
            raise SkipTest(f"{self.path} cannot be shut down: {error}") from error
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Nobody may use the files any more; harmless when it is not mounted."""
        if os.path.ismount(self.path):
            subprocess.run(["umount", self.path], check=True)

    def remove(self) -> None:
        """Whatever still uses it, it goes."""
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", self.path], check=False)
        os.unlink(self._image)
