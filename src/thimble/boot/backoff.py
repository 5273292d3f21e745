"""How long to wait before a failed child is restarted. Pure.

Failures in a row 1, 2, 3, 4 … → wait 1, 2, 4, 8 … 60 s; after a run of `stable` seconds it starts over.
"""

from __future__ import annotations

FIRST, LONGEST, STABLE = 1.0, 60.0, 60.0


class Backoff:
    """Counts the failures in a row of one child."""

    __slots__ = ("failures", "first", "longest", "stable")

    def __init__(self, first: float = FIRST, longest: float = LONGEST, stable: float = STABLE) -> None:
        self.first, self.longest, self.stable = first, longest, stable
        self.failures = 0

    def next_delay(self, ran_s: float) -> float:
        """The child failed after running `ran_s` seconds: seconds to wait before it is restarted."""
        self.failures = 1 if ran_s >= self.stable else self.failures + 1
        return min(self.longest, self.first * 2.0 ** min(self.failures - 1, 16))
