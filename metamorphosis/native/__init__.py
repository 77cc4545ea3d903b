"""
The part of the project that is written in C, and the decision whether this process uses it.

It is optional: Python code does the same, slower, and is the reference in the tests. The broker
takes ordinary puts with it, also those of transactions, a pair's master frames its records with it,
and the client reads fetched records. ``codec.c`` (requests and records) and ``checksum.c`` (CRC-32
with the instructions of the processor) do not use Python; ``module.c`` makes them a module, with
``run.c`` (consecutive puts of one transaction) and ``pairs.c`` (frames of a pair). ``flush.c`` has
threads that flush files for the broker, without Python; ``flusher.c`` makes them a type.

``METAQ_NATIVE=0`` in the environment disables it.

:data compiled: the module; None: it was not built, or is disabled.
:data way: a description for the log.
"""

from __future__ import annotations

import os
from types import ModuleType

VARIABLE = "METAQ_NATIVE"


def _load() -> tuple[ModuleType | None, str]:
    """The module, None if it is not used; and a description for the log."""
    if os.environ.get(VARIABLE) == "0":
        return None, f"pure Python: {VARIABLE}=0"
    try:
        from metamorphosis.native import _compiled
    except ImportError as error:
        return None, f"pure Python: {_reason(error)}"
    return _compiled, f"native, checksums by {_compiled.checksum_ways()[0]}"


def _reason(error: ImportError) -> str:
    """The reason why there is no module; usually it was not built."""
    files = os.listdir(os.path.dirname(__file__))
    is_built = any(name.startswith("_compiled.") and name != "_compiled.pyi" for name in files)
    return str(error) if is_built else "module not built"


compiled, way = _load()
