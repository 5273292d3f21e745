"""The place where everything is kept: whether it can be written, and whether it answers at all."""

from __future__ import annotations

import os
from pathlib import Path

from thimble.host.probes import Probes

#: Bytes. Records need little, and each is written anew before the old one goes.
RESERVE = 1 << 20
#: Seconds its disk may take to say how much room there is.
ANSWER_S = 2.0


class StateDisk:
    """`warnings`: what was wrong with it when it was looked at last; first by whoever makes this."""

    def __init__(self, where: Path) -> None:
        self.warnings = warnings(where)
        self._where = where
        self._probes = Probes()

    async def look(self) -> None:
        """Ask its disk, which may hang: that is a warning then."""
        answer = await self._probes.ask("state", lambda: warnings(self._where), timeout=ANSWER_S)
        self.warnings = (
            answer.value if answer.value is not None else (f"the state in {self._where}: {answer.why}",)
        )


def warnings(state: Path) -> tuple[str, ...]:
    """What is wrong with it. Blocks."""
    try:
        facts = os.statvfs(state)
    except OSError as error:
        return (f"the state in {state} cannot be read: {error.strerror}",)
    if facts.f_flag & os.ST_RDONLY:
        return ("the state went read-only after an error of its disk: no change is kept; see the log",)
    if facts.f_bfree * facts.f_frsize < RESERVE:
        return ("the state partition is full: changes are refused until something on it is removed",)
    return ()
