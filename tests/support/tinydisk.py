"""A small disk of its own, to be filled."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

from twisted.trial.unittest import SkipTest


class TinyDisk:
    """A file system of 1 MiB in memory; needs root."""

    def __init__(self, path: str, options: str = "size=1m") -> None:
        self.path = path
        os.mkdir(path)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise SkipTest("the command mount is missing") from None
        if done.returncode:
            raise SkipTest(f"no tmpfs can be mounted here: {done.stderr.strip()}")

    def remount(self, options: str) -> None:
        """Change its size, or whether it can be written."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def unmount(self) -> None:
        """Unmount the file system."""
        subprocess.run(["umount", "-l", self.path], check=True)

    def fill(self) -> None:
        """Fill the file system."""
        fd = os.open(os.path.join(self.path, "rest"), os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while os.write(fd, bytes(4096)) == 4096:
                pass
        os.close(fd)
