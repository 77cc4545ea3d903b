"""
Memory that the machine really has.

A virtual machine hands free pages back to its host after a few seconds, and the first touch of such
a page costs several microseconds: the copy of a message into the page cache then takes longer than
everything else together. Which server of a round meets cold pages is chance, so every measurement
that writes starts with warm ones.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from benchmarks.processes import LOAD_CORE

ENOUGH = 2 << 30
"""Bytes; more than any cell writes in a run."""


def warm_free_pages(size: int = ENOUGH) -> None:
    """
    Touch so much memory and give it back: the pages that are allocated next are among it.

    This process stays on the core of the load generator: at a real-time priority it would keep the
    servers from theirs meanwhile, for a second and more.
    """
    os.sched_setaffinity(0, {LOAD_CORE})
    block = mmap.mmap(-1, size)
    first = ctypes.c_char.from_buffer(block)
    ctypes.memset(ctypes.addressof(first), 1, size)
    del first
    block.close()
