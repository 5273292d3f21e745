"""Everything that goes on beside requests: kept, named, and heard when it dies.

keep ──► runs ──► ended              forgotten
           ├────► died               the log says so, with the traceback
           └────► cancelled          by its owner, or all at the agent's end
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from thimble.sys import log


class Background:
    """The background work of one owner, or of the whole agent."""

    def __init__(self) -> None:
        self._kept: set[asyncio.Task[Any]] = set()

    def keep(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin `work`. Nobody needs to wait for it: how it ended is said here if it was not well."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._kept.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.trouble(task.get_name(), error)

    async def close(self) -> None:
        """Cancel all and wait until they have ended."""
        kept = list(self._kept)
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, return_exceptions=True)
