"""Questions that may never be answered: each in a thread of its own, with a deadline.

A thread that a dead device holds cannot be ended; it is left alone, and the same question is not asked again
until it comes back. So a machine's one bad sensor costs one thread, and all else goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """`value`, or None and why."""

    value: T | None
    why: str = ""


class Probes:
    """`hanging`: the questions that have not come back."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    @property
    def hanging(self) -> tuple[str, ...]:
        return tuple(name for name, thread in self._threads.items() if thread.is_alive())

    async def ask(self, name: str, question: Callable[[], T], *, timeout: float) -> Answer[T]:
        """Never raises but when cancelled."""
        before = self._threads.get(name)
        if before is not None and before.is_alive():
            return Answer(None, "it does not answer")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer[T]] = loop.create_future()

        def deliver(answer: Answer[T]) -> None:
            if not future.done():
                future.set_result(answer)

        def work() -> None:
            try:
                answer = Answer(question())
            except Exception as error:
                answer = Answer(None, str(getattr(error, "strerror", None) or error))
            try:
                loop.call_soon_threadsafe(deliver, answer)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        thread = self._threads[name] = threading.Thread(target=work, name=f"probe {name}", daemon=True)
        thread.start()
        try:
            answer = await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return Answer(None, f"it does not answer within {timeout:.0f} s")
        self._threads.pop(name, None)
        return answer
