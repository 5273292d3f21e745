"""Blocking work in a thread of its own, with a deadline for whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from thimble.core.problem import Code, Problem
from thimble.sys.worker import Worker

T = TypeVar("T")

#: Seconds for a short answer, and for looking at every file of a busy disk.
ANSWER_S = 5.0
LIST_S = 30.0


class DeadlineWorker:
    """`name` is what the work waits for, in words: it is told that this does not answer.

    While it is silent nobody is sent after the first: they are refused at once, until it has answered.
    """

    def __init__(self, name: str) -> None:
        self.silent = False
        self._name = name
        self._worker = Worker(name)

    def problem(self) -> Problem:
        """That it does not answer."""
        return Problem(Code.UNAVAILABLE, f"{self._name} does not answer")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, however long that takes."""
        return await self._worker.run(work)

    async def ask(self, work: Callable[[], T], seconds: float = ANSWER_S) -> T:
        """The same, or `Problem` UNAVAILABLE after `seconds`; the work goes on then."""
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
