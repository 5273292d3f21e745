"""Blocking work in order, in a thread of its own: what hangs on a dead disk hangs nothing but itself.

A thread that a device holds cannot be ended. It is a daemon thread, so it does not keep the process either.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One thread, made at the first `run` and ended when there is nothing left to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._working = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. A cancelled caller leaves it to its end: it may be half done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def item() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        with self._lock:
            self._queue.append(item)
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return await future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._working = False
                    return
                item = self._queue.popleft()
            item()
