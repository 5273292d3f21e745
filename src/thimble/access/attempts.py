"""How often somebody may try: token buckets by name. Pure but for the clock it is given."""

from __future__ import annotations

from collections.abc import Callable

from thimble.core.problem import Code, Problem


class TooMany(Problem):
    """RATE_LIMITED, with whole seconds to wait."""

    def __init__(self, wait: float) -> None:
        self.retry_after = max(1, int(wait + 0.999))
        super().__init__(
            Code.RATE_LIMITED,
            "too many failed attempts to sign in",
            hint=f"Try again in {self.retry_after} s.",
        )


class Attempts:
    """Each name may fail `burst` times at once, then once every `pause` seconds."""

    def __init__(self, clock: Callable[[], float], *, burst: int, pause: float, names: int = 4096) -> None:
        self._clock = clock
        self._burst = burst
        self._pause = pause
        self._names = names
        self._paid: dict[str, float] = {}  # when the last of its attempts is paid off

    def take(self, name: str) -> None:
        """Count an attempt. Raises `TooMany`."""
        now = self._clock()
        paid = max(self._paid.get(name, now), now) + self._pause
        wait = paid - now - self._burst * self._pause
        if wait > 0:
            raise TooMany(wait)
        if name not in self._paid and len(self._paid) >= self._names:
            self._shrink(now)
        self._paid[name] = paid

    def forgive(self, name: str) -> None:
        """It was no failure: forget what was counted."""
        self._paid.pop(name, None)

    def _shrink(self, now: float) -> None:
        self._paid = {name: paid for name, paid in self._paid.items() if paid > now}
        while len(self._paid) >= self._names:
            del self._paid[next(iter(self._paid))]
