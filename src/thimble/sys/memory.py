"""A long-lived process gives back what only its start needed."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Free pages of the heap go to the kernel. Takes some tens of milliseconds: not on the way to "ready"."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
