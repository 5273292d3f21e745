"""One queue per VM: requests and what QEMU told, worked on one at a time.

    requests (from verbs)   ──► inbox ──► one task ──► process, QMP
    guest events, exits     ──► first ─┘     └───────► status, events

One request is worked on at a time; what QEMU told meanwhile goes before the next. The task of an idle VM
does not exist.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from thimble.vm.qemu.qmp import Json

T = TypeVar("T")


class Inbox:
    """`listen` is given what QEMU told, in order; it does not raise."""

    def __init__(self, name: str, listen: Callable[[str, Json], Awaitable[None]]) -> None:
        self._name = name
        self._listen = listen
        self._requests: deque[Callable[[], Awaitable[None]]] = deque()
        self._told: deque[tuple[str, Json]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """Queue `work` and wait for its result; it goes on when the caller is cancelled."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def item() -> None:
            try:
                result = await work()
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                if not done.done():
                    done.set_result(result)

        self._requests.append(item)
        self._rouse()
        return await asyncio.shield(done)

    def tell(self, name: str, data: Json) -> None:
        """What QEMU told; before any request that waits."""
        self._told.append((name, data))
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name=self._name)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._told or self._requests:
                if self._told:
                    await self._listen(*self._told.popleft())
                else:
                    await self._requests.popleft()()

    async def close(self) -> None:
        """What is being worked on is cancelled; nothing is taken any more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
