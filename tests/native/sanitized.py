"""
The part in C under sanitizers.

``python -m tests.native.sanitized codec SECONDS`` feeds the codec alone with random requests, under
libFuzzer where there is clang, else with a loop of our own. ``... module`` runs the unit tests that
go through the module, built with the sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(str(path) for path in (ROOT / "metamorphosis" / "native").glob("*.c"))
WITHOUT_PYTHON = ("codec.c", "checksum.c")  # the sources that know nothing of Python
WORK = ROOT / ".cache" / "sanitized"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
MODULE_TESTS = (
    "tests.unit.native",
    "tests.native.test_turnfaults",
    "tests.native.test_linefaults",
    "tests.unit.broker.test_hotpath",
    "tests.unit.broker.test_twins",
    "tests.unit.broker.test_connection",
    "tests.unit.broker.test_lanes",
    "tests.unit.broker.test_places",
    "tests.unit.broker.test_chunks",
    "tests.unit.broker.test_collecting",
    "tests.unit.broker.test_turntwins",
    "tests.unit.broker.test_rough",
    "tests.unit.broker.test_synclanes",
    "tests.unit.broker.test_lingering",
    "tests.unit.replication.pairmaster.test_frames",
    "tests.unit.replication.pairmaster.test_lanes",
    "tests.unit.replication.pairmaster.test_lines",
    "tests.unit.replication.pairmaster.test_rough",
    "tests.unit.transactions.test_scan",
)


class Missing(Exception):
    """What is needed is not on this machine; the text says what."""


def compiler(*names: str) -> str:
    """
    The first of the compilers that is there.

    :raises Missing: none is.
    """
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise Missing(f"no {' or '.join(names)} on this machine")
    return found


def build(command: list[str]) -> None:
    """
    Compile.

    :raises Missing: the compiler has no sanitizers.
    :raises RuntimeError: the code does not compile.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        if "cannot find" in done.stderr and "san" in done.stderr:
            raise Missing("the compiler has no sanitizers")
        raise RuntimeError(done.stderr)


def codec_command(seconds: int, seed: int) -> list[str]:
    """Build the fuzzer of the codec; the command that runs it."""
    program = str(WORK / "codec_fuzz")
    source = str(ROOT / "tests" / "native" / "codec_fuzz.c")
    sources = [source, *(path for path in SOURCES if path.endswith(WITHOUT_PYTHON))]
    if shutil.which("clang"):
        flags = [*SANITIZERS, "-fsanitize=fuzzer", "-DLIBFUZZER"]
        build(["clang", *flags, *WARNINGS, *sources, "-o", program])
        return [program, f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096"]
    build([compiler("gcc", "cc"), *SANITIZERS, *WARNINGS, *sources, "-o", program])
    return [program, str(seconds), str(seed)]


def module_command() -> tuple[list[str], dict[str, str]]:
    """Build the module; the command that runs its tests, and the environment for it."""
    module = str(WORK / "_compiled.abi3.so")
    headers = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(headers, "Python.h")):
        raise Missing("no headers of this Python")
    gcc = compiler("gcc")
    flags = ["-fPIC", "-shared", "-pthread", "-DPy_LIMITED_API=0x030B0000", f"-I{headers}"]
    double = ["-DMETAQ_DOUBLE", str(ROOT / "tests" / "native" / "double.c")]
    build([gcc, *SANITIZERS, *WARNINGS, *flags, *double, *SOURCES, "-o", module])
    library = subprocess.run(
        [gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter keeps much until its end
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees each object
        "TWIN_FRAMES": os.environ.get("TWIN_FRAMES", "20000"),
        "TURN_FRAMES": os.environ.get("TURN_FRAMES", "2000"),
    }
    return [sys.executable, "-m", "tests.native.preloaded", module, *MODULE_TESTS], environment


def main() -> int:
    """See the module."""
    try:
        if sys.argv[1:2] == ["codec"]:
            command = codec_command(int(sys.argv[2]), int(time.time()))
            environment = dict(os.environ)
        else:
            command, environment = module_command()
    except Missing as missing:
        print(f"not run: {missing}")
        return 0
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
