"""One datastore as it is now: where it is, or why it is not; and the thread that waits for it.

    looked for ──► there ◄──► silent     it did not answer in time; it does again
        ▲            │
        └── missing ◄┘                   its disk went

All that may wait for a datastore goes through its `worker`, in order: one that hangs holds up only itself.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.state.store import is_durable
from thimble.storage.deadline import DeadlineWorker
from thimble.storage.homes import Home
from thimble.storage.kinds.base import Kind
from thimble.storage.records import DatastoreRecord

LOOKED_FOR = "it is being looked for"


class Taken(msgspec.Struct, frozen=True):
    """What taking one into use found out."""

    root: Path
    durable: bool
    size_bytes: int
    free_bytes: int


class Mount:
    """The state of one datastore. For the loop alone, but for `take` and `attempt`."""

    def __init__(self, name: str, kind: Kind, record: DatastoreRecord) -> None:
        self.name = name
        self.kind = kind
        self.record = record
        self.worker = DeadlineWorker(f"the datastore {name}")
        self.root: Path | None = None
        self.why = LOOKED_FOR
        self.durable = False
        self.size_bytes = self.free_bytes = 0
        self.measured = 0.0  # when, by the loop's clock
        #: The work that brings it into use; none may begin while it is `leaving`.
        self.bringing: asyncio.Task[None] | None = None
        self.leaving = False

    @property
    def there(self) -> bool:
        """Can it be worked with?"""
        return self.root is not None and not self.worker.silent

    @property
    def missing(self) -> str:
        """Why not; empty when it can."""
        if self.root is None:
            return self.why
        return "it does not answer" if self.worker.silent else ""

    def problem(self) -> Problem:
        """That it is not there."""
        return Problem(Code.UNAVAILABLE, f"the datastore {self.name} is not there: {self.missing}")

    def take(self) -> Taken:
        """Mount and prepare it. Takes as long as its disk does. Raises `Problem`, OSError."""
        root = self.kind.mount(self.name, self.record)
        durable = is_durable(root)
        Home(root).prepare(self.name, durable=durable)
        return Taken(root, durable, *self.kind.space(root))

    def attempt(self) -> Taken | str:
        """The same, or why not."""
        try:
            return self.take()
        except (Problem, OSError) as error:
            return error.detail if isinstance(error, Problem) else str(error)

    def use(self, taken: Taken) -> None:
        """From now on it is there."""
        self.root, self.why, self.durable = taken.root, "", taken.durable
        self._note(taken.size_bytes, taken.free_bytes)

    async def measure(self, root: Path) -> None:
        """See how full it is. Raises `Problem`."""
        self._note(*await self.worker.ask(lambda: self.kind.space(root)))

    def _note(self, size: int, free: int) -> None:
        self.size_bytes, self.free_bytes = size, free
        self.measured = asyncio.get_running_loop().time()
