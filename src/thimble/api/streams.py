"""How the halves of a stream or console have ended: nothing that went wrong in one of them stays unsaid."""

from __future__ import annotations

from collections.abc import Iterable

from thimble.core.problem import Problem
from thimble.sys import log

#: The other side left, was too slow, or was told why.
EXPECTED = (OSError, TimeoutError, Problem)


def hear(name: str, results: Iterable[object]) -> None:
    """Say in the log, behind `name`, which of the results of `gather` are faults of ours."""
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, EXPECTED):
            log.trouble(name, result)
