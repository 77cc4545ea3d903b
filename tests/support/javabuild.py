"""
The class path of the original Java software and of our drivers, built by Maven when it is missing
or out of date.

``python -m tests.support.javabuild`` builds ahead of the tests; the first build
downloads, later ones work offline.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import os
import shutil
import subprocess
import sys

from tests.support.broker import CHECKOUT

MODULE = os.path.join(CHECKOUT, "compat", "java")
TARGET = os.path.join(MODULE, "target")
BUILT = os.path.join(TARGET, "built")
BUILD_SECONDS = 300.0  # Maven's own downloads retry; a machine without network fails in seconds


def classpath() -> str:
    """
    What ``java -cp`` takes; our ``log4j.properties`` comes first, or the libraries' own would win.
    """
    return os.pathsep.join([os.path.join(TARGET, "classes"), os.path.join(TARGET, "lib", "*")])


@functools.cache
def missing() -> str | None:
    """
    The reason why no Java peer can run here, for a test's ``skip``, or ``None``. Builds when
    needed.
    """
    for program, package in (("java", "default-jdk-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            return f"no {program}: Debian package {package}"
    os.makedirs(TARGET, exist_ok=True)
    with open(os.path.join(TARGET, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two trial processes may come here at once
        return None if _up_to_date() else _build()


def _sources() -> list[str]:
    sources = glob.glob(os.path.join(MODULE, "src", "**", "*.*"), recursive=True)
    return [os.path.join(MODULE, "pom.xml"), *sources]


def _up_to_date() -> bool:
    try:
        built = os.path.getmtime(BUILT)
    except FileNotFoundError:
        return False
    return all(os.path.getmtime(source) <= built for source in _sources())


def _build() -> str | None:
    """
    Run Maven, offline first when a build was made before; the reason of a failure, or ``None``.
    """
    attempts = [["-o"], []] if os.path.exists(BUILT) else [[]]
    for options in attempts:
        try:
            done = subprocess.run(
                ["mvn", "-q", "-B", *options, "compile"],
                cwd=MODULE,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"Maven needed more than {BUILD_SECONDS:.0f} s"
        if done.returncode == 0:
            with open(BUILT, "w", encoding="ascii"):
                return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
    return f"Maven failed in {MODULE}: {lines[0] if lines else done.returncode}"


if __name__ == "__main__":
    sys.exit(missing())
