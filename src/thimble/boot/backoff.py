"""When to start a fallen child again. Pure.

Falls in a row 1, 2, 3, 4 … → wait 1, 2, 4, 8 … 60 s; a child that stood `stable` seconds begins anew.
"""

from __future__ import annotations

FIRST, LONGEST, STABLE = 1.0, 60.0, 60.0


class Backoff:
    """Counts the falls of one child."""

    __slots__ = ("falls", "first", "longest", "stable")

    def __init__(self, first: float = FIRST, longest: float = LONGEST, stable: float = STABLE) -> None:
        self.first, self.longest, self.stable = first, longest, stable
        self.falls = 0

    def fell(self, stood: float) -> float:
        """The child fell after standing `stood` seconds: seconds to wait before starting it again."""
        self.falls = 1 if stood >= self.stable else self.falls + 1
        return min(self.longest, self.first * 2.0 ** min(self.falls - 1, 16))
