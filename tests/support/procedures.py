"""
The procedures of ``docs/promotion.md`` as an operator types them: each command is run by ``bash``
in the directory of its machine, with nothing replaced but addresses, paths of other machines, and
numbers that an earlier command has printed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tests.support.broker import CHECKOUT, SYSTEM, TWISTD, ZOOKEEPER, Keys, environment, ini
from tests.support.zookeeper import ZooKeeperServer, free_port

PAGE = os.path.join(CHECKOUT, "docs", "promotion.md")
SECONDS = 30.0

_COMMAND = re.compile(r"^([a-z])\$ (.*)$", re.MULTILINE)
_PORT = re.compile(r"\b([abc]):8123\b")


class Command(NamedTuple):
    """A line of the page: the machine, and what is typed there."""

    machine: str
    line: str


def procedure(heading: str) -> list[Command]:
    """The commands below a heading of the page."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [Command(*match) for match in _COMMAND.findall(section)]
    assert found, heading
    return found


def all_commands() -> list[Command]:
    """Those of the whole page."""
    with open(PAGE, encoding="utf-8") as file:
        return [Command(*match) for match in _COMMAND.findall(file.read())]


class Done(NamedTuple):
    """The result of a command."""

    command: str
    status: int
    output: str


class Machine:
    """
    A directory with ``server.ini`` and the property files, and a port.

    :param zookeeper_keys: keys of ``[zookeeper]`` besides the usual ones.
    """

    def __init__(
        self,
        directory: str,
        topics: Mapping[str, Keys],
        zookeeper: ZooKeeperServer,
        zookeeper_keys: Keys = MappingProxyType({}),
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.port = free_port()
        os.makedirs(self.directory, exist_ok=True)
        self.data = os.path.join(self.directory, "data")
        own = {"serverPort": self.port, "dataPath": self.data}
        connect = {"zk.zkConnect": zookeeper.connect_string, "zk.zkEnable": "true"}
        sections: dict[str, Keys] = {
            "system": {**SYSTEM, **own},
            "zookeeper": {
                **ZOOKEEPER,
                **connect,
                "zk.zkSessionTimeoutMs": 1000,
                **zookeeper_keys,
            },
        }
        sections.update((f"topic={name}", keys) for name, keys in topics.items())
        self._write("server.ini", ini(sections))
        self._write("async_slave.properties", "slaveId=0\nslaveMaxDelayInMills=50\n")

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)

    def kill(self) -> None:
        """SIGKILL for the broker that runs there, as after a power cut."""
        pid = self.pid("twistd.pid")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
            os.unlink(os.path.join(self.directory, "twistd.pid"))

    def pid(self, name: str) -> int | None:
        """The process in a file, None if there is no file."""
        try:
            with open(os.path.join(self.directory, name), encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return None


class Operator:
    """
    Types commands.

    :param machines: by the letters of the page.
    :param replaced: further texts of the page, and what stands for them here.
    :ivar done: what was typed so far, as on the page, and how it ended.
    """

    def __init__(self, directory: str, machines: Mapping[str, Machine]) -> None:
        self.machines = machines
        self.replaced: dict[str, str] = {}
        self.done: list[Done] = []
        self._programs = os.path.abspath(os.path.join(directory, "bin"))
        os.makedirs(self._programs)
        self._program("metaq", ["-m", "metamorphosis.cli"])
        self._program("twistd", ["-c", TWISTD])

    def _program(self, name: str, arguments: list[str]) -> None:
        path = os.path.join(self._programs, name)
        command = shlex.join([sys.executable, *arguments])
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {command} "$@"\n')
        os.chmod(path, 0o755)

    def type(self, command: Command) -> Done:
        """Type one; a broker that was started serves, one that was ended is gone."""
        machine = self.machines[command.machine]
        line = command.line
        for text, meaning in self.replaced.items():
            line = line.replace(text, meaning)
        line = _PORT.sub(lambda match: f"127.0.0.1:{self.machines[match[1]].port}", line)
        ending = re.match(r"kill \$\(cat (\S+)\)", line)
        pid = machine.pid(ending[1]) if ending else None
        environment_here = environment()
        environment_here["PATH"] = f"{self._programs}:{os.environ['PATH']}"
        environment_here["HOME"] = machine.directory
        with open(os.path.join(machine.directory, "typed"), "a+b") as output:
            begin = output.tell()
            status = subprocess.run(
                ["bash", "-c", line],
                cwd=machine.directory,
                env=environment_here,
                stdin=subprocess.DEVNULL,
                stdout=output if ">" not in line else None,
                stderr=output,
                timeout=SECONDS,
                check=False,
            ).returncode
            output.seek(begin)
            text = output.read().decode("utf-8", "replace")
        done = Done(command.line, status, text)
        self.done.append(done)
        if pid is not None:
            wait_for_end(pid)
        if line.startswith("twistd"):
            self._wait_until_it_serves(machine, done)
        return done

    def _wait_until_it_serves(self, machine: Machine, done: Done) -> None:
        if done.status:
            raise AssertionError(f"{done.command}: status {done.status}: {done.output}")
        listening = f"127.0.0.1:{machine.port}"
        deadline = time.monotonic() + SECONDS
        while subprocess.run(
            ["bash", "-c", f"exec 3<>/dev/tcp/{listening.replace(':', '/')}"],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode:
            if time.monotonic() > deadline:
                raise AssertionError(f"{done.command}: nothing listens at {listening}")
            time.sleep(0.05)

    def end(self) -> None:
        """End every process that was started."""
        for machine in self.machines.values():
            for name in ("twistd.pid", "java.pid", "rescue/twistd.pid"):
                pid = machine.pid(name)
                if pid is not None:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue


def wait_for_end(pid: int) -> None:
    """Block until there is no such process."""
    deadline = time.monotonic() + SECONDS
    while os.path.exists(f"/proc/{pid}"):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"process {pid} does not end")
        time.sleep(0.02)
