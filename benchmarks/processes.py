"""
Server processes: each on a core of its own, started in a fresh directory, ended by its process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1
NICE = -19  # with the right to it: other work on the machine disturbs less


class BenchmarkError(Exception):
    """The benchmark cannot go on; the text says what is missing or what failed."""


def pinned(argv: Sequence[str], core: int) -> list[str]:
    """
    The command line that runs ``argv`` on one core, at a raised priority where that is allowed.

    To be started in a session of its own: where the kernel groups processes by session, which is
    common, a nice value counts within the session only, and that of the session as a whole stands
    in ``/proc/self/autogroup``.
    """
    if shutil.which("taskset") is None:
        raise BenchmarkError("taskset (Debian: util-linux) is needed to give each process a core")
    on_core = ["taskset", "-c", str(core), *argv]
    if os.geteuid() != 0:
        return on_core
    group = "/proc/self/autogroup"
    raise_session = f'[ ! -w {group} ] || echo {NICE} >{group}; exec "$@"'
    return ["sh", "-c", raise_session, "sh", "nice", "-n", str(NICE), *on_core]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """One running server. Its output goes to ``output`` in its directory."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        core: int = SERVER_CORE,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.output = directory / "output"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                pinned(argv, core),
                cwd=directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """
        The server's own process id: what stands before it on the command line replaces itself.
        """
        return self._process.pid

    def check_alive(self) -> None:
        """Raise ``BenchmarkError`` with the end of the output if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise BenchmarkError(f"{self.name} ended with status {status}: {self._said()}")

    def _said(self) -> str:
        return self.output.read_text(errors="replace")[-2000:] or "it printed nothing"

    def wait_for_answer(self, port: int, request: bytes, expected: bytes, seconds: float) -> None:
        """
        Ask until the answer contains ``expected``: a port that accepts is not yet a server that
        serves.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            with contextlib.suppress(OSError):
                if expected in ask(port, request, timeout=0.5):
                    return
            time.sleep(0.1)
        self.stop()
        late = f"{self.name} did not answer on port {port} within {seconds:g} s"
        raise BenchmarkError(f"{late}: {self._said()}")

    def stop(self) -> None:
        """SIGTERM, and after 15 s SIGKILL."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ask(port: int, request: bytes, timeout: float = 5.0) -> bytes:
    """Send one request on a connection of its own and return the first piece of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken so far, with all its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024
