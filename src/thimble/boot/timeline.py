"""The timeline of the boot, for boot.json: what was reached when, in seconds since the kernel started."""

from __future__ import annotations

import time

marks: list[tuple[str, float]] = []


def mark(what: str) -> None:
    """Notes that `what` was reached now."""
    marks.append((what, round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)))
