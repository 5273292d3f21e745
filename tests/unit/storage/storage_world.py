"""A storage of one's own in a temporary directory, with the real qemu-img."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from thimble.contract.call import Call
from thimble.contract.common import Task
from thimble.core.problem import Problem
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.attachments import Ports
from thimble.storage.datastore_verbs import DatastoreService
from thimble.storage.image_verbs import ImageService
from thimble.storage.service import Storage
from thimble.storage.volume_verbs import VolumeService


class World:
    """`restart` makes a new agent's storage over the same directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.restart()

    def restart(self) -> None:
        self._make()
        asyncio.run(self.storage.open())

    async def reopen(self) -> None:
        """The same inside a loop."""
        await self.storage.close()
        self._make()
        await self.storage.open()

    def _make(self) -> None:
        self.events = Events(base=1, clock=time.time)
        self.tasks = Tasks(self.events, clock=time.time, entropy=os.urandom)
        self.ports = Ports()
        self.storage = Storage(
            self.directory / "state",
            self.directory / "run",
            events=self.events,
            tasks=self.tasks,
            ports=self.ports,
        )
        self.datastore = DatastoreService(self.storage)
        self.volume = VolumeService(self.storage)
        self.image = ImageService(self.storage)

    @property
    def local(self) -> Path:
        return self.directory / "state" / "datastores" / "local"

    async def upload(self, name: str, data: bytes, *, length: int | None = -1, sha256: str = "") -> object:
        query = {"sha256": sha256} if sha256 else {}
        size = len(data) if length == -1 else length
        return await self.image.upload(
            Call(input=None, path={"image": name}, query=query, body=body(data), length=size)
        )

    async def done(self, started: object) -> Task:
        task = await self.tasks.wait(started.task.id, 60)  # type: ignore[attr-defined]
        assert task.state == "done", task.problem
        return task

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.directory.rglob("*.new")]


async def body(data: bytes, piece: int = 70_000) -> AsyncIterator[bytes]:
    for start in itertools.count(0, piece):
        if start >= len(data):
            return
        yield data[start : start + piece]


async def refused(work: Awaitable[object]) -> Problem:
    """The problem that `work` must end with."""
    try:
        answer = await work
    except Problem as error:
        return error
    raise AssertionError(f"it was accepted: {answer}")


def scenario(test: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        world = World(tmp_path)
        asyncio.run(asyncio.wait_for(test(world), 60))

    run.__name__ = test.__name__
    return run
