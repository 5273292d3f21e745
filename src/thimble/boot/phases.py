"""Which phase of the boot may run now. Pure: the list itself is in main.py, running it is main's.

    waiting ──(all its `needs` are done)──► running ──(it says so)──► done

A phase that fails is done all the same, with a warning: nothing may wait for what will not come.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Phase:
    """A named step; `needs` are the names of phases to be done before it starts."""

    __slots__ = ("name", "needs", "says")

    def __init__(self, name: str, needs: tuple[str, ...] = (), says: str = "") -> None:
        self.name, self.needs, self.says = name, needs, says


class Progress:
    """Where a list of phases stands."""

    __slots__ = ("done", "phases", "started")

    def __init__(self, phases: Iterable[Phase]) -> None:
        self.phases = tuple(phases)
        self.started: list[str] = []
        self.done: list[str] = []
        check(self.phases)

    def startable(self) -> list[Phase]:
        """Phases not started whose needs are done, in the order of the list."""
        return [
            phase
            for phase in self.phases
            if phase.name not in self.started and all(need in self.done for need in phase.needs)
        ]

    def finished(self) -> bool:
        return len(self.done) == len(self.phases)


def check(phases: tuple[Phase, ...]) -> None:
    """A list is sound if names are unique and each phase needs only earlier ones (so there is no cycle)."""
    seen: set[str] = set()
    for phase in phases:
        unknown = [need for need in phase.needs if need not in seen]
        if phase.name in seen or unknown:
            raise ValueError(f"phase {phase.name}: doubled, or needs what comes later: {unknown}")
        seen.add(phase.name)
