"""
The servers that are compared: the original Java broker, ours, and the yardstick ``metaref``; and
their ZooKeeper.

Both brokers read the same ``server.ini`` apart from broker id, ports and paths.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, BenchmarkError, ServerProcess, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
JAVA_LIBRARIES = (ROOT / "compat/java/target/lib", HERE / "bin/lib")
ZOOKEEPER_JARS = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar"

# The topics of a benchmark. "bench" keeps the default of 1000 unflushed messages, "commit" is
# flushed before each reply, "wide" has 200 partitions, "reads" is filled once and kept.
SERVER_INI = """\
[system]
brokerId={broker_id}
hostName=127.0.0.1
numPartitions=1
serverPort={port}
dashboardHttpPort={dashboard_port}
dataPath={directory}/data
dataLogPath={directory}/log
unflushThreshold=1000
unflushInterval=10000
maxSegmentSize={segment_size}
maxTransferSize=1048576
deletePolicy=delete,{retention}s
deleteWhen=* * * * * ?
flushTxLogAtCommit={flush_mode}
stat=true

[zookeeper]
zk.zkConnect=127.0.0.1:{zookeeper_port}
zk.zkSessionTimeoutMs=30000
zk.zkConnectionTimeoutMs=30000
zk.zkSyncTimeMs=5000

[topic=bench]

[topic=commit]
unflushThreshold=0

[topic=wide]
numPartitions={wide_partitions}

[topic=reads]
deletePolicy=delete,168
"""

# Only warnings: the original's own file logs at INFO, so this is in its favour.
LOG4J = """\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%p] [%t] %d{MM-dd HH:mm:ss,SSS} [%c{1}] - %m%n
"""

ZOO_CFG = """\
tickTime=2000
dataDir={directory}/data
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
forceSync=no
"""


@dataclass(frozen=True)
class Layout:
    """
    What differs between runs.

    :ivar segment_size: bytes.
    :ivar wide_partitions: of topic ``wide``.
    :ivar topics: further ones with one partition each: ``many0``, ``many1``, and so on.
    :ivar retention: after how many seconds a segment that is no longer written is deleted.
    :ivar flush_mode: ``flushTxLogAtCommit``.
    :ivar start_limit: seconds within which a broker has to answer.
    """

    segment_size: int = 256 << 20
    wide_partitions: int = 200
    topics: int = 0
    retention: int = 1
    flush_mode: int = 1
    start_limit: float = 60.0


class Server:
    """
    A server that the load generator can talk to: process, port and where its segment files are.
    """

    def __init__(self, name: str, process: ServerProcess, port: int, data: Path) -> None:
        self.name = name
        self.process = process
        self.port = port
        self.data = data

    @property
    def pid(self) -> int:
        """Process id, for CPU time and memory."""
        return self.process.pid

    def segments(self, topic: str) -> list[Path]:
        """
        The segment files of partition 0 of ``topic`` (the yardstick has one file a partition).
        """
        directory = self.data / f"{topic}-0"
        return sorted(directory.glob("*.meta")) if directory.is_dir() else []

    def stop(self) -> None:
        """End the process and throw its data away."""
        self.process.stop()
        shutil.rmtree(self.process.directory, ignore_errors=True)


def start_zookeeper(directory: Path) -> tuple[ServerProcess, int]:
    """
    Debian's ZooKeeper on the generator's core, where it idles. Returns the process and its port.
    """
    for jar in ZOOKEEPER_JARS.split(":"):
        if not os.path.exists(jar):
            raise BenchmarkError(f"{jar} is missing: install the Debian package zookeeper")
    directory.mkdir(parents=True)
    port = free_port()
    (directory / "zoo.cfg").write_text(ZOO_CFG.format(directory=directory, port=port))
    java = ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    argv = [*java, "-cp", ZOOKEEPER_JARS, main, str(directory / "zoo.cfg")]
    process = ServerProcess("ZooKeeper", argv, directory, LOAD_CORE)
    process.wait_for_answer(port, b"srvr", b"Mode:", 20)
    return process, port


def java_libraries() -> Path:
    """
    The directory with the jars of the original broker and client: those of ``compat/java`` if they
    are there, else a copy of our own that Maven fetches once.
    """
    for directory in JAVA_LIBRARIES:
        if all(any(directory.glob(f"metamorphosis-{part}-*.jar")) for part in ("server", "client")):
            return directory
    if shutil.which("mvn") is None:
        raise BenchmarkError("mvn (Debian: maven) is needed once to fetch the original broker")
    target = JAVA_LIBRARIES[-1]
    pom = str(HERE / "pom.xml")
    goal = "dependency:copy-dependencies"
    subprocess.run(["mvn", "-q", "-B", "-f", pom, goal, f"-DoutputDirectory={target}"], check=True)
    return target


def _prepare(directory: Path, broker_id: int, zookeeper_port: int, layout: Layout) -> int:
    (directory / "log").mkdir(parents=True, exist_ok=True)  # dataLogPath has to exist
    port = free_port()
    text = SERVER_INI.format(
        broker_id=broker_id,
        port=port,
        dashboard_port=free_port(),
        directory=directory,
        segment_size=layout.segment_size,
        wide_partitions=layout.wide_partitions,
        retention=layout.retention,
        flush_mode=layout.flush_mode,
        zookeeper_port=zookeeper_port,
    )
    text += "".join(f"\n[topic=many{number}]\n" for number in range(layout.topics))
    (directory / "server.ini").write_text(text)
    return port


def start_java(directory: Path, zookeeper_port: int, layout: Layout) -> Server:
    """The original broker with the virtual machine's flags of its own start script."""
    port = _prepare(directory, 1, zookeeper_port, layout)
    log4j = directory / "log4j.properties"
    log4j.write_text(LOG4J)
    flags = ["-Xmx512m", "-Xms512m", "-server", f"-Dlog4j.configuration=file:{log4j}"]
    main = ["com.taobao.metamorphosis.server.MetamorphosisStartup", "-f", "./server.ini"]
    argv = ["java", *flags, "-cp", f"{java_libraries()}/*", *main]
    home = {"HOME": str(directory)}
    process = ServerProcess("the Java broker", argv, directory, environment=home)
    process.wait_for_answer(port, b"version 1\r\n", b"result 200", layout.start_limit)
    return Server("java", process, port, directory / "data")


def start_ours(
    directory: Path,
    zookeeper_port: int,
    layout: Layout,
    twistd_options: tuple[str, ...] = (),
    probe: Path | None = None,
) -> Server:
    """
    ``twistd -n metaq`` of the Python that runs the benchmark.

    :param probe: where ``timerprobe`` writes; it then runs ``twistd``.
    """
    port = _prepare(directory, 2, zookeeper_port, layout)
    program = [str(Path(sys.executable).with_name("twistd"))]
    if probe is not None:
        program = [sys.executable, "-m", "benchmarks.timerprobe", str(probe)]
    options = ["-n", "--pidfile=", *twistd_options]
    argv = [*program, *options, "metaq", "-f", str(directory / "server.ini")]
    process = ServerProcess("our broker", argv, directory, environment={"PYTHONPATH": str(ROOT)})
    process.wait_for_answer(port, b"version 1\r\n", b"result 200", layout.start_limit)
    return Server("ours", process, port, directory / "data")


def start_metaref(directory: Path) -> Server:
    """The yardstick."""
    data = directory / "data"
    data.mkdir(parents=True)
    port = free_port()
    process = ServerProcess("metaref", [str(HERE / "bin/metaref"), str(port), str(data)], directory)
    process.wait_for_answer(port, b"version 1\r\n", b"result 200", 10)
    return Server("metaref", process, port, data)


def build() -> None:
    """Compile the load generator and the yardstick if their sources are newer."""
    if shutil.which("make") is None or shutil.which("cc") is None:
        raise BenchmarkError("make and a C compiler with zlib's header (zlib1g-dev) are needed")
    subprocess.run(["make", "-s", "-C", str(HERE)], check=True)
