"""
The part of the project that is written in C, and whether this process uses it.

It is optional: everything that it does is done in Python as well, slower, and that is what it is
tested against. The broker takes ordinary puts with it, also those of transactions, and the client
reads fetched records. ``codec.c`` (requests and records) and ``checksum.c`` (CRC-32 by what the
processor offers) know nothing of Python; ``module.c`` is what Python sees of them, with ``run.c``
(puts of one transaction that follow each other).

``METAQ_NATIVE=0`` in the environment leaves it out.

:data compiled: the module; None: it was not built, or is left out.
:data way: a few words for the log.
"""

from __future__ import annotations

import os
from types import ModuleType

VARIABLE = "METAQ_NATIVE"


def _load() -> tuple[ModuleType | None, str]:
    """The module, None if it is not used; and a few words for the log."""
    if os.environ.get(VARIABLE) == "0":
        return None, f"pure Python: {VARIABLE}=0"
    try:
        from metamorphosis.native import _compiled
    except ImportError as error:
        return None, f"pure Python: {_reason(error)}"
    return _compiled, f"native, checksums by {_compiled.checksum_ways()[0]}"


def _reason(error: ImportError) -> str:
    """Why there is no module: the usual reason is that it was not built."""
    files = os.listdir(os.path.dirname(__file__))
    is_built = any(name.startswith("_compiled.") and name != "_compiled.pyi" for name in files)
    return str(error) if is_built else "module not built"


compiled, way = _load()
