"""Datastores come and go: each is brought in a thread of its own, a disk that goes is noticed.

bring ──► there         an event says so; VMs on it are read then
  ├─────► missing       `why` tells; tried again when disks change, and at each list
  └─────► hangs         `why` tells after `MOUNT_S`; used when it answers after all
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from thimble.core.problem import Problem
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.storage.mounted import Mount, Taken

if TYPE_CHECKING:
    from thimble.sys.uevent import Uevents

#: Seconds in which a disk is mounted, a replay of its journal included; a hanging one is told then.
MOUNT_S = 30.0
#: Seconds that a list waits for those that are missing.
LOOK_S = 2.0


class Arrivals:
    """`mounts`: all datastores that are wanted, by name."""

    def __init__(self, events: Events, background: Background) -> None:
        self.mounts: dict[str, Mount] = {}
        self._events = events
        self._background = background
        self._uevents: Uevents | None = None

    def begin(self, mount: Mount) -> None:
        """At the start. Those that nothing can make wait are there when this ends."""
        self.mounts[mount.name] = mount
        if mount.kind.at_once(mount.record):
            self._brought(mount, mount.attempt())
        else:
            self._bring(mount)

    async def settled(self, seconds: float) -> None:
        """Wait until every datastore is there or is known to be missing, but no longer than `seconds`."""
        bringing = [mount.bringing for mount in self.mounts.values() if mount.bringing is not None]
        if bringing:
            await asyncio.wait(bringing, timeout=seconds)

    def watch(self) -> None:
        """Once a disk is among them: notice when disks come and go."""
        if self._uevents is None and any(mount.kind.goes for mount in self.mounts.values()):
            from thimble.sys.uevent import Uevents

            with suppress(OSError):  # then `datastore.list` notices
                self._uevents = Uevents("block", self._disks_changed)

    def close(self) -> None:
        """Stop watching for disks."""
        if self._uevents is not None:
            self._uevents.close()
            self._uevents = None

    def _disks_changed(self) -> None:
        self._background.keep("disks changed", self.refresh())

    async def refresh(self) -> None:
        """Notice disks that went and came; waits a moment for those that come."""
        work = []
        for mount in self.mounts.values():
            if mount.root is None and not mount.leaving:
                work.append(self._bring(mount))
            elif mount.there and mount.kind.goes:
                work.append(self._background.keep(f"disk of {mount.name}", self._check(mount)))
        if work:
            await asyncio.wait(work, timeout=LOOK_S)

    async def measure(self, mount: Mount) -> None:
        """See how full it is; one that cannot be read any more is lost."""
        if mount.root is None or not mount.there:
            return
        try:
            await mount.measure(mount.root)
        except Problem as error:
            if not mount.worker.silent:
                await self._lose(mount, error.detail)

    def _bring(self, mount: Mount) -> asyncio.Task[None]:
        """Begin to take it into use, unless that is under way."""
        if mount.bringing is None or mount.bringing.done():
            mount.bringing = self._background.keep(f"datastore {mount.name}", self._bring_one(mount))
        return mount.bringing

    async def _bring_one(self, mount: Mount) -> None:
        words = f"it has not answered for {MOUNT_S:.0f} s"
        late = asyncio.get_running_loop().call_later(MOUNT_S, setattr, mount, "why", words)
        try:
            found = await mount.worker.run(mount.attempt)
        finally:
            late.cancel()
        if self.mounts.get(mount.name) is mount and not mount.leaving:
            self._brought(mount, found)

    def _brought(self, mount: Mount, found: Taken | str) -> None:
        if isinstance(found, str):
            mount.why = found
            return
        mount.use(found)
        self._events.publish("datastore.changed", mount.name, mounted="true")

    async def _check(self, mount: Mount) -> None:
        """Is the disk below it still there?"""
        root = mount.root
        if root is None:
            return
        with suppress(Problem):
            if not await mount.worker.ask(lambda: mount.kind.present(root)):
                await self._lose(mount, "its disk is gone")

    async def _lose(self, mount: Mount, why: str) -> None:
        if mount.root is None or mount.leaving:
            return
        mount.root, mount.why = None, why
        with suppress(Problem):
            await mount.worker.ask(partial(mount.kind.unmount, mount.name, detach=True))
        self._events.publish("datastore.changed", mount.name, mounted="false", why=why)
