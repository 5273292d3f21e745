"""Settings of the management network that nobody has confirmed yet: in force, and undone by themselves.

    begin ──a moment, so that the answer gets out──► in force ──► kept: the record says the same
                                                        └── `seconds` later, or told so ──► undone

Invariant: they are in RAM alone. The record stays the old one until it is confirmed, so that a restart of the
host, however it comes, brings the old settings back; a restart of the agent changes nothing.
"""

from __future__ import annotations

import json
import time

from . import management

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop, Timer

# Seconds in which the agent's answer leaves by the old address.
MOMENT = 0.5


class Tentative:
    """`follow()` makes the network what the settings are now; `told()` writes the facts."""

    def __init__(
        self, loop: Loop, say: Callable[[str], None], follow: Callable[[], None], told: Callable[[], None]
    ) -> None:
        self._loop, self._say, self._follow, self._told = loop, say, follow, told
        self._timers: list[Timer] = []
        self._started = False
        self.id, self.nic = "", ""
        self.settings: dict[str, Any] | None = None
        self.deadline, self.in_force = 0.0, 0.0

    def begin(self, id: str, settings: dict[str, Any], seconds: float, nic: str) -> None:
        """`nic`: the MAC of the card that carries the network now, and shall again."""
        self._stop()
        self.id, self.settings, self.nic = id, settings, nic
        self.deadline = _now() + MOMENT + seconds
        self._timers = [
            self._loop.after(MOMENT, self._start),
            self._loop.after(MOMENT + seconds, lambda: self.undo("nobody confirmed them")),
        ]
        self._say(f"the management network has new settings, undone in {seconds:.0f} s unless confirmed")
        self._told()

    def look(self, *, settled: bool) -> None:
        """Are the new addresses there, and the old ones gone? Confirming counts from then on."""
        if self.settings is None or not self._started:
            return
        self.in_force = (self.in_force or _now()) if settled else 0.0

    def end(self, record: str) -> bool:
        """The record was written or shall hold again; True if it is what is in force already."""
        kept = self._started and self.settings is not None and _same(record, self.settings)
        if self.settings is not None:
            self._say(f"the management network's new settings are {'confirmed' if kept else 'taken back'}")
        self._stop()
        return kept

    def undo(self, why: str) -> None:
        self._say(f"the management network's new settings are undone: {why}")
        self._stop()
        self._follow()

    def facts(self) -> dict[str, Any] | None:
        """For the agent. Times are seconds since the kernel's start; `in_force` is 0 until it is so."""
        if self.settings is None:
            return None
        return {
            "id": self.id,
            "settings": self.settings,
            "deadline": self.deadline,
            "in_force": self.in_force,
        }

    def warnings(self) -> list[str]:
        if self.settings is None:
            return []
        at = time.strftime("%H:%M:%S", time.gmtime(time.time() + self.deadline - _now()))
        return [f"the management network's new settings are undone at {at} UTC unless they are confirmed"]

    def _start(self) -> None:
        self._started = True
        self._follow()

    def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers, self._started, self.settings, self.in_force = [], False, None, 0.0


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _same(record: str, settings: dict[str, Any]) -> bool:
    try:
        found = json.loads(record)["record"]
    except (ValueError, TypeError, KeyError):
        return False
    return all(found.get(key) == settings.get(key) for key in management.KEYS)
