"""Which phase of the boot may run now. Pure: the list is in phases.py, stage2.py runs it.

    waiting ──(all its `needs` are done)──► running ──(it calls done)──► done

A phase that fails counts as done, with a warning: nothing may wait for what will not come.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class BootPhase:
    """A row of the boot: name, function `run(pid1, done)`, and the phases that must be done before it."""

    __slots__ = ("name", "needs", "run")

    def __init__(self, name: str, run: Callable[[Any, Callable[[], None]], None], *needs: str) -> None:
        self.name, self.run, self.needs = name, run, needs


class BootProgress:
    """Which phases of the list have started, and which are done."""

    __slots__ = ("done", "phases", "started")

    def __init__(self, phases: Iterable[BootPhase]) -> None:
        self.phases = tuple(phases)
        self.started: list[str] = []
        self.done: list[str] = []
        check(self.phases)

    def startable(self) -> list[BootPhase]:
        """Phases not started whose needs are done, in the order of the list."""
        return [
            phase
            for phase in self.phases
            if phase.name not in self.started and all(need in self.done for need in phase.needs)
        ]

    def finished(self) -> bool:
        return len(self.done) == len(self.phases)


def check(phases: tuple[BootPhase, ...]) -> None:
    """A list is valid if names are unique and each phase needs only earlier ones (so there is no cycle)."""
    seen: set[str] = set()
    for phase in phases:
        unknown = [need for need in phase.needs if need not in seen]
        if phase.name in seen or unknown:
            raise ValueError(f"phase {phase.name}: listed twice, or needs a later phase: {unknown}")
        seen.add(phase.name)
