"""
A network namespace of the benchmark's own, with nothing but a loopback interface that uses the Reno
congestion control.

Why: on a machine whose default is BBR, values of 1 MiB over loopback cost between 110 and 450 us of
CPU for one and the same server, because the kernel paces each connection with timers. With CUBIC,
Linux's usual default, and with Reno it is 110 us every time; nothing is lost on loopback, so these
two do not differ there, and Reno is allowed in every namespace. A namespace changes that for the
benchmark alone, and keeps servers that listen on every interface away from the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
MARK = "METAQ_BENCHMARK_NETWORK"


def congestion_control() -> str:
    """What TCP uses here by default."""
    return CONGESTION.read_text().strip()


def enter(argv: list[str], module: str = "benchmarks") -> None:
    """
    Start this program again in a namespace of its own; does not return if it can. Without root or
    ``unshare`` it returns, and the benchmark uses the network as it is.

    :param module: what ``python -m`` starts.
    """
    if os.environ.get(MARK) or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    trial = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if trial.returncode != 0:
        return
    os.environ[MARK] = "1"
    command = ["unshare", "--net", sys.executable, "-m", module, *argv]
    os.execvp(command[0], command)


def prepare() -> None:
    """Inside the namespace: bring the loopback interface up and choose the congestion control."""
    if not os.environ.get(MARK):
        return
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    use_congestion_control("reno")


def use_congestion_control(name: str) -> bool:
    """
    Let new connections have it by default. Outside of a namespace nothing is changed.

    :returns: whether they have it.
    """
    if os.environ.get(MARK):
        try:
            CONGESTION.write_text(f"{name}\n")
        except (
            OSError
        ):  # the kernel has none of that name, or allows it to the first namespace only
            return False
    return congestion_control() == name
