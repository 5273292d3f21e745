"""The clocks: wall time for people, boot time for measuring."""

from __future__ import annotations

import os
import time


def now() -> float:
    """Seconds since the epoch; may jump."""
    return time.time()


def since_boot() -> float:
    """Seconds since kernel start, suspended time included; never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def entropy(count: int) -> bytes:
    """`count` unguessable bytes."""
    return os.urandom(count)
