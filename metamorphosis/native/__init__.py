"""
The part of the project that is written in C, and the decision whether this process uses it.

It is optional: Python code does the same, slower, and is the reference in the tests. The broker
takes ordinary puts with it, also those of transactions, a pair's master frames its records with it,
and the client reads fetched records and makes the frames and reads the answers of its puts.
``codec.c`` (requests and records) and ``checksum.c`` (CRC-32 with the instructions of the
processor) do not use Python; ``module.c`` makes them a module, with ``scan.c`` (puts for batches of
Python), ``run.c`` (consecutive puts of one transaction), ``pairs.c`` (frames of a pair, with
``frames.c``), ``sends.c`` (frames and answers of the client), ``bodies.c`` (values that the client
receives) and ``messages.c`` (their messages).
``flush.c`` has threads that flush files for the broker, without Python; ``flusher.c`` makes them a
type. The whole turn of the broker is in ``turn.c`` and the files that it includes, which do not use
Python either; ``turnmodule.c`` makes it a type. The fields of a store that the turn needs are those
of C types (``storefields.c``), so that most writes need no Python (``directwrites.c``); so are
those of a pair (``pairfields.c``, ``flights.c``).

``METAQ_NATIVE=0`` in the environment disables it, ``METAQ_NATIVE=scan`` only the whole turn.

:data compiled: the module; None: it was not built, or is disabled.
:data turn: its ``Lanes``, the whole turn of the broker; None likewise.
:data way: a description for the log.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

VARIABLE = "METAQ_NATIVE"


def _load() -> tuple[ModuleType | None, type[Any] | None, str]:
    """The module and its ``Lanes``, None where they are not used; and a few words for the log."""
    wanted = os.environ.get(VARIABLE)
    if wanted == "0":
        return None, None, f"pure Python: {VARIABLE}=0"
    try:
        from metamorphosis.native import _compiled
    except ImportError as error:
        return None, None, f"pure Python: {_reason(error)}"
    # A module that was built before that was written, or not on Linux, has none.
    lanes = None if wanted == "scan" else getattr(_compiled, "Lanes", None)
    name = "native" if lanes is None else "native turn"
    return _compiled, lanes, f"{name}, checksums by {_compiled.checksum_ways()[0]}"


def _reason(error: ImportError) -> str:
    """The reason why there is no module; usually it was not built."""
    files = os.listdir(os.path.dirname(__file__))
    is_built = any(name.startswith("_compiled.") and name != "_compiled.pyi" for name in files)
    return str(error) if is_built else "module not built"


compiled, turn, way = _load()
