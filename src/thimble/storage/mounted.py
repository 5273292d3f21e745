"""One datastore as it is now: where it is, or why it is not; and the thread that waits for it.

    looked for ──► there ◄──► silent     it did not answer in time; it does again
        ▲            │
        └── missing ◄┘                   its disk went

All that may wait for a datastore goes through `ask`, in order, in the datastore's own thread: one that hangs
holds up nothing but itself. While it is silent nobody is sent after the first: they are refused at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from thimble.core.problem import Code, Problem
from thimble.sys.worker import Worker

T = TypeVar("T")

LOOKED_FOR = "it is being looked for"
#: Seconds that a datastore has for a short answer, and to be mounted (a journal may have to be replayed).
ANSWER_S = 5.0
MOUNT_S = 30.0


class Taken(NamedTuple):
    """What taking one into use found out."""

    root: Path
    durable: bool
    size_bytes: int
    free_bytes: int


class Mount:
    """The state of one datastore; for the loop alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Path | None = None
        self.why = LOOKED_FOR
        self.durable = False
        self.size_bytes = self.free_bytes = 0
        self.measured = 0.0  # by the loop's clock
        #: The work that brings it into use; nobody else may while `leaving`.
        self.bringing: asyncio.Task[None] | None = None
        self.leaving = False
        self.silent = False
        self._worker = Worker(f"datastore {name}")

    @property
    def there(self) -> bool:
        """Can it be worked with?"""
        return self.root is not None and not self.silent

    def problem(self) -> Problem:
        """Why not."""
        why = "it does not answer" if self.silent else self.why
        return Problem(Code.UNAVAILABLE, f"the datastore {self.name} is not there: {why}")

    def use(self, taken: Taken) -> None:
        self.root, self.why, self.durable = taken.root, "", taken.durable
        self.note_space(taken.size_bytes, taken.free_bytes)

    def note_space(self, size: int, free: int) -> None:
        self.size_bytes, self.free_bytes = size, free
        self.measured = asyncio.get_running_loop().time()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, however long that takes."""
        return await self._worker.run(work)

    async def ask(self, work: Callable[[], T], seconds: float = ANSWER_S) -> T:
        """The same with a deadline: raises `Problem` UNAVAILABLE then, and at once until it answers again."""
        if self.silent:
            raise self.problem()
        running = asyncio.ensure_future(self.run(work))
        running.add_done_callback(self._answered)
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            self.silent = True
            raise self.problem()
        return running.result()

    def _answered(self, running: asyncio.Future[T]) -> None:
        self.silent = False
        if not running.cancelled():
            running.exception()  # looked at, whoever still waits
