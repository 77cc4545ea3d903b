"""
A current Kafka, as its users would run it on one machine, and the Python clients of its users in an
environment of their own. Both are fetched once, below ``benchmarks/bin``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.brokers import HERE
from benchmarks.processes import BenchmarkError, ServerProcess, free_port

LIBRARIES = HERE / "bin/kafka"
ENVIRONMENT = HERE / "bin/kafka-clients"
PACKAGES = ("aiokafka==0.14.0", "confluent-kafka==2.16.1")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={directory}/data
num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


def libraries() -> Path:
    """The directory with Kafka's jars."""
    if not any(LIBRARIES.glob("kafka_*.jar")):
        if shutil.which("mvn") is None:
            raise BenchmarkError("mvn (Debian: maven) is needed once to fetch Kafka")
        pom = str(HERE / "clients/kafka-pom.xml")
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={LIBRARIES}"]
        subprocess.run(["mvn", "-q", "-B", "-f", pom, *goal], check=True)
    return LIBRARIES


def python() -> Path:
    """The interpreter with aiokafka and confluent-kafka."""
    interpreter = ENVIRONMENT / "bin/python"
    if not interpreter.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return interpreter


def start(directory: Path) -> tuple[ServerProcess, int]:
    """One broker that is its own controller; the process and its port."""
    directory.mkdir(parents=True)
    port, controller_port = free_port(), free_port()
    properties = directory / "server.properties"
    properties.write_text(
        PROPERTIES.format(port=port, controller_port=controller_port, directory=directory)
    )
    java = ["java", "-Xms1g", "-Xmx1g", "-server", "-cp", f"{libraries()}{os.sep}*"]
    tool = [*java, "kafka.tools.StorageTool"]
    identity = subprocess.run(
        [*tool, "random-uuid"], check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    made = [*tool, "format", "-t", identity, "-c", str(properties)]
    subprocess.run(made, check=True, capture_output=True)
    process = ServerProcess("Kafka", [*java, "kafka.Kafka", str(properties)], directory)
    # ApiVersions, version 0, correlation 1: the answer repeats the correlation.
    request = bytes.fromhex("0000000a0012000000000001ffff")
    process.wait_for_answer(port, request, bytes.fromhex("00000001"), 60)
    return process, port
