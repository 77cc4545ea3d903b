"""
A real MariaDB for tests: Debian's, one process, on a socket and a free loopback port, all its files
in a directory of the test. It serves ``root`` without a password.

A test says::

    class MyTests(TestCase):
        skip = mariadb.missing()            # None, or the reason for the skip

        def setUp(self):
            self.server = mariadb.shared()  # or MariaDBServer(directory).start() for one's own

Every method blocks for a bounded time.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any

import pymysql

from tests.support.zookeeper import free_port

START_SECONDS = 30.0

_databases = itertools.count(1)


def _program(name: str) -> str | None:
    """Debian keeps the server outside a user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def missing() -> str | None:
    """The reason why no MariaDB can be started here, for a test's ``skip``, or ``None``."""
    for name in ("mariadbd", "mariadb-install-db"):
        if _program(name) is None:
            return f"no {name}: Debian package mariadb-server"
    return None


class MariaDBServer:
    """
    One server process. ``start`` again after ``stop`` or ``kill`` finds the same port and data.

    :param directory: made if missing; sockets have short paths, so the socket lies elsewhere.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._sockets = tempfile.mkdtemp(prefix="mariadb-")
        atexit.register(shutil.rmtree, self._sockets, ignore_errors=True)

    @property
    def socket(self) -> str:
        """Path of the Unix socket."""
        return os.path.join(self._sockets, "s")

    def arguments(self, database: str | None = None) -> dict[str, Any]:
        """What ``pymysql.connect`` takes."""
        return {"host": "127.0.0.1", "port": self.port, "user": "root", "database": database}

    def start(self) -> None:
        """Start the process, in new tables the first time; return when it serves."""
        data = os.path.join(self.directory, "data")
        common = ["--no-defaults", f"--datadir={data}"]
        if os.getuid() == 0:
            common.append("--user=root")
        if not os.path.exists(data):
            os.makedirs(self.directory, exist_ok=True)
            install = [_program("mariadb-install-db") or "", *common, "--skip-test-db"]
            install.append("--auth-root-authentication-method=normal")
            self._log_of(subprocess.run, install, check=True, timeout=START_SECONDS)
        command = [
            _program("mariadbd") or "",
            *common,
            f"--socket={self.socket}",
            f"--pid-file={self.directory}/pid",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
        ]
        self.process = self._log_of(subprocess.Popen, command, start_new_session=True)
        atexit.register(self.kill)
        self._wait_until_serving()

    def _log_of(self, run: Any, command: list[str], **options: Any) -> Any:
        with open(os.path.join(self.directory, "log"), "ab") as log:
            return run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    def _wait_until_serving(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                pymysql.connect(connect_timeout=1, **self.arguments()).close()
                return
            except pymysql.Error as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                        raise RuntimeError(f"MariaDB: {error}; {log.read()[-2000:]}") from error
                time.sleep(0.05)

    def new_database(self) -> str:
        """A database no other test uses; its name."""
        name = f"metaq{next(_databases)}"
        self.execute(f"create database {name}")
        return name

    def execute(self, statement: str, database: str | None = None) -> list[Any]:
        """Run one statement; its rows."""
        connection = pymysql.connect(autocommit=True, **self.arguments(database))
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def stop(self) -> None:
        """SIGTERM and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL and wait; nothing if it does not run."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP, until none of its threads runs: it accepts connections, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        tasks = f"/proc/{self.process.pid}/task"
        deadline = time.monotonic() + START_SECONDS
        while any(_state(f"{tasks}/{each}/stat") not in "TX" for each in os.listdir(tasks)):
            if time.monotonic() > deadline:
                raise RuntimeError("MariaDB does not stop")
            time.sleep(0.005)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(START_SECONDS)
        atexit.unregister(self.kill)


def _state(path: str) -> str:
    """One letter; X for a thread that has ended."""
    try:
        with open(path, encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


_shared: list[MariaDBServer] = []


def shared() -> MariaDBServer:
    """A server for the whole test process, started at the first call and ended with the process."""
    if not _shared:
        directory = tempfile.mkdtemp(prefix="metamorphosis-mariadb-")
        server = MariaDBServer(directory)
        atexit.register(shutil.rmtree, directory, ignore_errors=True)  # runs after the kill
        server.start()
        _shared.append(server)
    return _shared[0]
