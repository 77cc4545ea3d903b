"""
``make run``: a broker to try things with, and a ZooKeeper beside it, until Ctrl-C.

Everything is kept in ``metaq-data``: the two configurations, the messages, ZooKeeper's files. A
ZooKeeper that serves on the port already is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from metamorphosis.config import serverini
from metamorphosis.errors import ConfigError
from tests.integration import zookeeper

DIRECTORY = os.path.abspath("metaq-data")
ZOOKEEPER_PORT = 2181
START_SECONDS = 30.0

EXAMPLE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "contrib")
CHANGES = {
    "hostName=": "hostName=localhost",
    "dataPath=": "dataPath={data}",
    # How long clients have to leave at the end: little, because this broker is for trying things.
    "zk.zkSyncTimeMs=5000": "zk.zkSyncTimeMs=500",
}
"""Lines of the example configuration, and what stands in their place."""


def main() -> int:
    """Start both, wait for Ctrl-C or the end of the broker, stop both; the exit status."""
    os.makedirs(DIRECTORY, exist_ok=True)
    path = write_configuration()
    signal.signal(signal.SIGTERM, interrupt)
    server = zookeeper.ZooKeeperServer(
        os.path.join(DIRECTORY, "zookeeper"), tick_time=2000, port=ZOOKEEPER_PORT
    )
    try:
        return start_zookeeper(server) or run_broker(path)
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()


def interrupt(number: int, frame: object) -> None:
    """SIGTERM does what Ctrl-C does."""
    raise KeyboardInterrupt


def write_configuration() -> str:
    """Write ``server.ini`` unless there is one; return its path."""
    path = os.path.join(DIRECTORY, "server.ini")
    if not os.path.exists(path):
        with open(path, "w", encoding="utf-8") as file:
            data = os.path.join(DIRECTORY, "messages")
            file.write(server_ini(data))
    return path


def server_ini(data: str) -> str:
    """The example configuration, for a broker with its messages in ``data``."""
    with open(os.path.join(EXAMPLE, "server.ini"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    changes = {line: change.format(data=data) for line, change in CHANGES.items()}
    return "".join(f"{changes.get(line, line)}\n" for line in lines)


def start_zookeeper(server: zookeeper.ZooKeeperServer) -> int:
    """Start it unless one serves there; an exit status when neither is possible."""
    if b"Mode:" in server.four_letter_word(b"srvr"):
        print(f"Using the ZooKeeper that runs on port {server.port}.", flush=True)
        return 0
    if reason := zookeeper.missing():
        print(f"make run needs a ZooKeeper: {reason}", file=sys.stderr)
        return 1
    if connects(server.port):
        print(f"port {server.port} is taken, and not by a ZooKeeper", file=sys.stderr)
        return 1
    server.start()
    return 0


def connects(port: int) -> bool:
    """Whether anything listens there."""
    try:
        with socket.create_connection(("localhost", port), 1):
            return True
    except OSError:
        return False


def run_broker(path: str) -> int:
    """Run the broker until it ends or Ctrl-C comes; its exit status."""
    try:
        port = serverini.load(path).server_port
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if connects(port):
        print(f"port {port} is taken: does another broker run?", file=sys.stderr)
        return 1
    twistd = [os.path.join(os.path.dirname(sys.executable), "twistd"), "-n", "--pidfile="]
    process = subprocess.Popen(
        [*twistd, "metaq", "-f", path], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: process.poll() is not None or answers(port))
        if process.poll() is None:
            print(ready(port), flush=True)
        return process.wait()
    finally:
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)  # a second one, after another Ctrl-C, does not wait
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()


READY = """
The broker serves.
  Broker     localhost:{port}, topic test
  ZooKeeper  localhost:{zookeeper_port}, root /meta
  Data       {directory}
  Look       telnet localhost {port}, then: stats
  Stop       Ctrl-C
"""


def ready(port: int) -> str:
    """What to do next."""
    return READY.format(port=port, zookeeper_port=ZOOKEEPER_PORT, directory=DIRECTORY)


def answers(port: int) -> bool:
    """Whether the broker answers ``version``."""
    try:
        with socket.create_connection(("localhost", port), 1) as connection:
            connection.sendall(b"version 1\r\n")
            return connection.recv(100).startswith(b"result 200 ")
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds, or after a while."""
    deadline = time.monotonic() + START_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
