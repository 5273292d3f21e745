"""Commit-confirm for the management network: new settings are undone unless somebody confirms them in time.

    begin ──a moment, so that the answer gets out──► in force ──► confirmed: the record says the same
                                                        └── `seconds` later, or on request ──► undone

Invariant: unconfirmed settings are in RAM alone. The record stays the old one until they are confirmed, so
that any restart of the host brings the old settings back; a restart of the agent changes nothing.
"""

from __future__ import annotations

import json
import time

from . import management

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..loop import Loop, Timer

# Seconds before the change, in which the agent's answer leaves by the old address.
MOMENT = 0.5


class CommitConfirm:
    """`follow()` applies the settings of now to the network; `write_facts()` tells the agent."""

    def __init__(
        self,
        loop: Loop,
        say: Callable[[str], None],
        follow: Callable[[], None],
        write_facts: Callable[[], None],
    ) -> None:
        self._loop, self._say, self._follow, self._write_facts = loop, say, follow, write_facts
        self._timers: list[Timer] = []
        self._started = False
        self.id, self.nic = "", ""
        self.settings: dict[str, Any] | None = None
        self.deadline, self.in_force = 0.0, 0.0

    def begin(self, id: str, settings: dict[str, Any], seconds: float, nic: str) -> None:
        """`nic`: the MAC of the present NIC, to go back to."""
        self._stop()
        self.id, self.settings, self.nic = id, settings, nic
        self.deadline = _now() + MOMENT + seconds
        self._timers = [
            self._loop.after(MOMENT, self._start),
            self._loop.after(MOMENT + seconds, lambda: self.undo("nobody confirmed them")),
        ]
        self._say(f"the management network has new settings, undone in {seconds:.0f} s unless confirmed")
        self._write_facts()

    def look(self, *, settled: bool) -> None:
        """Notes whether the new addresses are there and the old ones gone: then confirming counts."""
        if self.settings is None or not self._started:
            return
        self.in_force = (self.in_force or _now()) if settled else 0.0

    def end(self, record: str) -> bool:
        """The record is to apply (confirmed, or undone); True if its settings are in force already."""
        kept = self._started and self.settings is not None and _same(record, self.settings)
        if self.settings is not None:
            self._say(f"the management network's new settings are {'confirmed' if kept else 'undone'}")
        self._stop()
        return kept

    def undo(self, why: str) -> None:
        self._say(f"the management network's new settings are undone: {why}")
        self._stop()
        self._follow()

    def facts(self) -> dict[str, Any] | None:
        """For the agent. Times: seconds since the kernel started; `in_force` is 0 until the settings are."""
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
