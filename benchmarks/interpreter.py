"""
How the interpreter was built that runs the benchmark and our servers.

One that was built without profile-guided optimisation takes up to a third more time for the same
bytecode. Debian's was built with it, most that are built by hand were not.
"""

from __future__ import annotations

import sys
import sysconfig

PROFILED = "--enable-optimizations"
DISTRIBUTED = "/usr"
"""The prefix of a distribution's own interpreter. They are all optimised, and Debian's keeps the
arguments of its build to itself."""


def build() -> str:
    """In a few words."""
    if PROFILED in _arguments():
        return "optimised"
    if sys.base_prefix == DISTRIBUTED:
        return "the distribution's"
    return f"built without {PROFILED}"


def warning() -> str | None:
    """What to say above every report; None: nothing."""
    if PROFILED in _arguments() or sys.base_prefix == DISTRIBUTED:
        return None
    return (
        f"WARNING: this interpreter was built without {PROFILED}: our figures are lower than those"
        " of a user with Debian's"
    )


def _arguments() -> str:
    """Those of ``configure``; empty on systems that have none."""
    return str(sysconfig.get_config_var("CONFIG_ARGS") or "")
