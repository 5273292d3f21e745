"""What changed: a ring of events in RAM with a revision that counts up without gaps.

A client lists (the answer has `rev`), then follows `after=rev`. Who asks for what has left the ring gets GONE
and lists again. After a restart of the agent revisions go on from a higher base: an old one is GONE, not
wrong.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from thimble.contract.common import Event
from thimble.core.problem import Code, Problem
from thimble.sys import log


class Events:
    """`base` must be larger than any revision of an earlier run: use the wall clock in milliseconds."""

    def __init__(self, *, base: int, clock: Callable[[], float], keep: int = 4096) -> None:
        self.rev = base
        self._base = base
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=keep)
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[Event], None]] = []

    def publish(self, kind: str, subject: str, **detail: str) -> Event:
        """Tell everybody, at once; never blocks."""
        self.rev += 1
        event = Event(rev=self.rev, time=self._clock(), kind=kind, subject=subject, detail=detail)
        self._ring.append(event)
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # what went wrong there is not the publisher's: its commit stands
                log.trouble(f"listener of {kind}", error)
        return event

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` inside `publish`, for parts of the agent that must not miss anything.

        It must be quick: what takes long, or waits, is begun elsewhere. What it raises goes to the log.
        """
        self._listeners.append(listener)

    def since(self, after: int) -> list[Event]:
        """Events later than `after`. Raises `Problem` GONE when some have left the ring."""
        oldest = self._ring[0].rev if self._ring else self.rev + 1
        if after > self.rev or after < oldest - 1:
            raise Problem(
                Code.GONE,
                f"events after {after} are no longer kept",
                hint="List again, then follow from its rev.",
            )
        skip = after - oldest + 1
        return [event for n, event in enumerate(self._ring) if n >= skip]

    async def follow(self, after: int) -> AsyncIterator[list[Event]]:
        """Batches of events later than `after`, for ever. Raises `Problem` GONE to a too slow reader."""
        while True:
            changed = self._changed
            batch = self.since(after)
            if batch:
                after = batch[-1].rev
                yield batch
            else:
                await changed.wait()
