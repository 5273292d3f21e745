"""Work that many ask for, done a round at a time: a burst of askers costs two rounds, not one each.

    ask ──► round runs
    ask, ask, ask meanwhile ──► one more round, for all of them

Invariant: after every `ask`, a round begins that sees what was so when it was asked. No wake-up is lost.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from thimble.state.background import Background
from thimble.sys import log


class Work(Protocol):
    """`thorough`: somebody of those who asked for this round wants that."""

    async def __call__(self, *, thorough: bool) -> None: ...


class Rounds:
    """`name`: of the work, in the log."""

    def __init__(self, name: str, work: Work, background: Background) -> None:
        self._name = name
        self._work = work
        self._background = background
        self._next: asyncio.Future[None] | None = None
        self._thorough = False
        self._running = False

    def ask(self, *, thorough: bool = False) -> asyncio.Future[None]:
        """Have a round run soon. What the round raises is in the log, and raised to whoever awaits."""
        self._thorough |= thorough
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if not self._running:
            self._running = True
            self._background.keep(self._name, self._run())
        return self._next

    async def done(self, *, thorough: bool = False) -> None:
        """Return when a round that began after this call has ended. Raises what it raises."""
        await asyncio.shield(self.ask(thorough=thorough))

    async def _run(self) -> None:
        asked: asyncio.Future[None] | None = None
        try:
            while (asked := self._next) is not None:
                thorough, self._next, self._thorough = self._thorough, None, False
                try:
                    await self._work(thorough=thorough)
                except Exception as error:
                    log.trouble(self._name, error)
                    asked.set_exception(error)
                    asked.exception()  # nobody may be waiting for it
                else:
                    asked.set_result(None)
        finally:
            self._running = False
            for left in (asked, self._next):  # of an agent that ends
                if left is not None and not left.done():
                    left.cancel()
            self._next = None
