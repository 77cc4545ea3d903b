"""
A plugin for pytest: kazoo's own tests find our embedded ZooKeeper where their harness would start
an ensemble of the original.

``kazoosuite`` runs it in an environment of its own, so only kazoo and the standard library may be
imported here. ``METAQ_ZOOKEEPER`` is the server's command line as JSON, ``METAQ_ZOOKEEPER_PORT``
its port.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import time

from kazoo.testing import harness

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class Server:
    """What the tests call a server; it keeps its data while it is stopped."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.client_port = int(os.environ["METAQ_ZOOKEEPER_PORT"])
        self.address = self.secure_address = f"{self.host}:{self.client_port}"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def run(self) -> None:
        """Start it; return when it serves."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(json.loads(os.environ["METAQ_ZOOKEEPER"]))
        deadline = time.monotonic() + START_SECONDS
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the embedded ZooKeeper does not start")
            time.sleep(0.02)

    def _serves(self) -> bool:
        try:
            with socket.create_connection((self.host, self.client_port), 1) as connection:
                connection.sendall(b"srvr")
                return b"Mode:" in connection.recv(65536)
        except OSError:
            return False

    def stop(self) -> None:
        """End it in order."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(STOP_SECONDS)


class Cluster(list[Server]):
    """One server in the place of an ensemble."""

    def start(self) -> None:
        """Every server."""
        for server in self:
            server.run()

    def stop(self) -> None:
        """Every server."""
        for server in self:
            server.stop()

    def terminate(self) -> None:
        """Between modules of tests the server simply runs on."""

    def reset(self) -> None:
        """Each test has a chroot of its own."""

    def get_logs(self) -> list[str]:
        """What the harness prints after a failure."""
        return []


_cluster = Cluster([Server()])
harness.get_global_cluster = lambda: _cluster
