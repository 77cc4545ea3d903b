"""The two coordination services that are compared: Debian's ZooKeeper, and ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.brokers import ROOT, ZOOKEEPER_JARS, Server
from benchmarks.processes import BenchmarkError, ServerProcess, free_port

# Nothing about durability: by default each write is on disk before its answer (forceSync=yes).
ZOO_CFG = """\
tickTime=2000
dataDir={directory}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
"""


def start_debian(directory: Path) -> Server:
    """
    Debian's, with the flags of its own script. Pinned to one core, the virtual machine sees one
    processor and sizes its threads accordingly.
    """
    for jar in ZOOKEEPER_JARS.split(":"):
        if not os.path.exists(jar):
            raise BenchmarkError(f"{jar} is missing: install the Debian package zookeeper")
    directory.mkdir(parents=True)
    port = free_port()
    (directory / "zoo.cfg").write_text(ZOO_CFG.format(directory=directory, port=port))
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    argv = ["java", "-Xmx1000m", "-server", "-cp", ZOOKEEPER_JARS, main, str(directory / "zoo.cfg")]
    return _started("debian", argv, directory, port)


def start_ours(directory: Path) -> Server:
    """``twistd -n metaq-zookeeper`` of the Python that runs the benchmark."""
    directory.mkdir(parents=True)
    port = free_port()
    twistd = str(Path(sys.executable).with_name("twistd"))
    where = ["--data", str(directory / "data"), "--port", str(port)]
    argv = [twistd, "-n", "--pidfile=", "metaq-zookeeper", *where]
    return _started("ours", argv, directory, port)


def _started(name: str, argv: list[str], directory: Path, port: int) -> Server:
    path = {"PYTHONPATH": str(ROOT)}
    process = ServerProcess(f"{name} ZooKeeper", argv, directory, environment=path)
    process.wait_for_answer(port, b"srvr", b"Mode:", 30)
    return Server(name, process, port, directory / "data")


STARTERS: dict[str, Callable[[Path], Server]] = {"debian": start_debian, "ours": start_ours}
