"""The datastores of this host: which are wanted, where they are, why one is not there.

A wanted datastore that cannot be mounted stays a record with a `why`; nothing that refers to it is lost, and
`refresh` takes it back into use when its disk returns. Leftovers of interrupted work are removed when a
datastore is taken into use, before anybody works in it. What one lies on is the affair of its kind (`kinds`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreKind
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Collection, Record, is_durable
from thimble.storage import homes, kinds
from thimble.storage.homes import Home
from thimble.storage.kinds.base import Kind, Surroundings
from thimble.storage.mounted import ANSWER_S, MOUNT_S, Mount, Taken
from thimble.storage.records import DATASTORE_UPGRADES, DatastoreRecord

if TYPE_CHECKING:
    from thimble.sys.uevent import Uevents

T = TypeVar("T")

LOCAL = "local"
#: Seconds that the agent waits for its datastores before it is ready, and a list for those that are missing.
GRACE_S = 0.5
LOOK_S = 2.0
#: Free space that was measured so many seconds ago is measured again.
FRESH_S = 2.0


class Datastores:
    """Records and mounts. `around`: the state, and the directory to mount below."""

    def __init__(self, around: Surroundings, events: Events, background: Background) -> None:
        self.around = around
        self._events = events
        self._background = background
        self._records: Collection[DatastoreRecord] = Collection(
            DatastoreRecord,
            noun="datastore",
            upgrades=DATASTORE_UPGRADES,
            durable=is_durable(around.state),
        )
        self._kinds: dict[DatastoreKind, Kind] = {}
        self._mounts: dict[str, Mount] = {}
        self._uevents: Uevents | None = None
        #: Held while deciding and doing: between the two nobody else may take the name or the disk.
        self.lock = asyncio.Lock()

    # ── start and end ────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Read the records, make `local` if it is new, begin to mount all.

        Those that nothing can make wait are there when this ends; the others after `GRACE_S`, or later.
        """
        self.around.state.mkdir(parents=True, exist_ok=True)
        self._records.add_root("", homes.datastore_records(self.around.state))
        if self._records.find(LOCAL) is None:
            from thimble.storage import first_local

            self._records.put(LOCAL, await first_local.choose(self.around.state), expect=0)
        for record in self._records.all():
            mount = self._mounts[record.id] = Mount(record.id)
            if self._kind(record.value.kind).at_once(record.value):
                self._brought(mount, self._attempt(record))
            else:
                self._bring(mount)
        self._watch()
        await self.settled(GRACE_S)

    async def settled(self, seconds: float) -> None:
        """Wait until every datastore is there or is known to be missing, but no longer than `seconds`."""
        bringing = [mount.bringing for mount in self._mounts.values() if mount.bringing is not None]
        if bringing:
            await asyncio.wait(bringing, timeout=seconds)

    def close(self) -> None:
        """Stop watching for disks."""
        if self._uevents is not None:
            self._uevents.close()
            self._uevents = None

    def _watch(self) -> None:
        """Once a disk is among them: notice when disks come and go."""
        disks = any(self._kind(record.value.kind).goes for record in self._records.all())
        if disks and self._uevents is None:
            from thimble.sys.uevent import Uevents

            with suppress(OSError):  # then `datastore.list` notices
                self._uevents = Uevents("block", self._disks_changed)

    def _disks_changed(self) -> None:
        self._background.keep("disks changed", self.refresh())

    # ── what there is ────────────────────────────────────────────────────────────────────────────

    def warnings(self) -> tuple[str, ...]:
        """Records that are not used, datastores that are not there."""
        lines = [f"{path}: not used, {why}" for path, why in self._records.broken.items()]
        local = self._records.find(LOCAL)
        if local is not None and local.value.kind is DatastoreKind.RAM and self.default == LOCAL:
            lines.append(
                "the datastore local is in RAM, for the state partition is small: VMs and disks on it "
                "are gone at the next reboot; create a datastore on a disk"
            )
        return (
            *lines,
            *(m.problem().detail.removeprefix("the ") for m in self._mounts.values() if not m.there),
        )

    def names(self) -> list[str]:
        return [record.id for record in self._records.all()]

    @property
    def default(self) -> str:
        """Where things go when nobody says where: an installed host's disk, else `local`."""
        chosen = (record.id for record in self._records.all() if record.value.default)
        return next(chosen, LOCAL)

    def mounted(self) -> dict[str, Path]:
        """Where those are that are there."""
        return {m.name: m.root for m in self._mounts.values() if m.root is not None and m.there}

    def holding(self, path: Path) -> str:
        """The datastore that `path` lies in. Raises `Problem` UNAVAILABLE when none that is there has it."""
        for name, root in self.mounted().items():
            if path.is_relative_to(root):
                return name
        raise Problem(Code.UNAVAILABLE, f"the datastore of {path} is not there")

    def home(self, name: str) -> Home:
        """Its places. Raises `Problem` NOT_FOUND, or UNAVAILABLE when it is not there."""
        return Home(self.root(name))

    def root(self, name: str) -> Path:
        """Where it is. Raises `Problem` NOT_FOUND, or UNAVAILABLE when it is not there."""
        mount = self._mount(name)
        if mount.root is None or not mount.there:
            raise mount.problem()
        return mount.root

    def record(self, name: str) -> Record[DatastoreRecord]:
        return self._records.get(name)

    def lost(self, name: str) -> str:
        """What forgetting it means for what is in it, in words."""
        return self._kind(self._records.get(name).value.kind).lost

    def free(self, name: str) -> int:
        """Bytes free as last measured, at most a moment ago. Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        self.root(name)
        mount = self._mount(name)
        if asyncio.get_running_loop().time() - mount.measured > FRESH_S:
            self._background.keep(f"space of {name}", self.measure(name))
        return mount.free_bytes

    async def measure(self, name: str) -> int:
        """Bytes free now, or as last measured when it does not answer; what cannot be read is lost."""
        mount = self._mounts.get(name)
        if mount is None or mount.root is None or mount.silent:
            return 0
        space = partial(self._kind(self._records.get(name).value.kind).space, mount.root)
        try:
            mount.note_space(*await mount.ask(space))
        except Problem as error:
            if not mount.silent:
                await self._lose(mount, error.detail)
        return mount.free_bytes

    async def ask(self, name: str, work: Callable[[Home], T], seconds: float = ANSWER_S) -> T:
        """What `work` finds in a datastore, in its thread. Raises `Problem` also when it does not answer."""
        home = self.home(name)
        return await self._mount(name).ask(lambda: work(home), seconds)

    async def each(self, work: Callable[[str, Home], T]) -> list[T]:
        """The same of all that are there and answer."""
        asked = [self.ask(name, partial(work, name)) for name in self.mounted()]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, Problem | OSError):
                raise one
        return [one for one in found if not isinstance(one, BaseException)]

    def view(self, name: str) -> Datastore:
        """As clients see it, as last measured."""
        record, mount = self._records.get(name), self._mount(name)
        value, there = record.value, mount.there
        return Datastore(
            name=name,
            rev=record.rev,
            kind=value.kind,
            where=value.device or str(mount.root or value.path),
            mounted=there,
            why="" if there else mount.problem().detail.partition(": ")[2],
            durable=mount.durable if mount.root else value.kind is not DatastoreKind.RAM,
            default=name == self.default,
            size_bytes=mount.size_bytes if there else 0,
            free_bytes=mount.free_bytes if there else 0,
        )

    # ── they come and go ─────────────────────────────────────────────────────────────────────────

    async def refresh(self) -> None:
        """Notice disks that went and came; waits a moment for those that come."""
        work = []
        for mount in list(self._mounts.values()):
            if mount.root is None and not mount.leaving:
                work.append(self._bring(mount))
            elif mount.there and self._kind(self._records.get(mount.name).value.kind).goes:
                work.append(self._background.keep(f"disk of {mount.name}", self._check(mount)))
        if work:
            await asyncio.wait(work, timeout=LOOK_S)

    def _bring(self, mount: Mount) -> asyncio.Task[None]:
        """Begin to take it into use, unless that is under way."""
        if mount.bringing is None or mount.bringing.done():
            mount.bringing = self._background.keep(f"datastore {mount.name}", self._bring_one(mount))
        return mount.bringing

    async def _bring_one(self, mount: Mount) -> None:
        record = self._records.get(mount.name)
        loop = asyncio.get_running_loop()
        late = loop.call_later(
            MOUNT_S, setattr, mount, "why", f"its disk has not answered for {MOUNT_S:.0f} s"
        )
        try:
            found = await mount.run(partial(self._attempt, record))
        finally:
            late.cancel()
        if self._mounts.get(mount.name) is mount and not mount.leaving:
            self._brought(mount, found)

    def _attempt(self, record: Record[DatastoreRecord]) -> Taken | str:
        """Mounted and prepared, or why not. May take as long as its disk does; changes nothing of ours."""
        try:
            return self._take(record.id, record.value)
        except (Problem, OSError) as error:
            return error.detail if isinstance(error, Problem) else str(error)

    def _take(self, name: str, record: DatastoreRecord) -> Taken:
        kind = self._kind(record.kind)
        root = kind.mount(name, record)
        durable = is_durable(root)
        Home(root).prepare(name, durable=durable)
        return Taken(root, durable, *kind.space(root))

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
        kind = self._kind(self._records.get(mount.name).value.kind)
        with suppress(Problem):
            if not await mount.ask(lambda: kind.present(root)):
                await self._lose(mount, "its disk is gone")

    async def _lose(self, mount: Mount, why: str) -> None:
        if mount.root is None or mount.leaving:
            return
        mount.root, mount.why = None, why
        kind = self._kind(self._records.get(mount.name).value.kind)
        with suppress(Problem):
            await mount.ask(partial(kind.unmount, mount.name, detach=True))
        self._events.publish("datastore.changed", mount.name, mounted="false", why=why)

    # ── made and forgotten ───────────────────────────────────────────────────────────────────────

    async def decide(self, request: DatastoreCreate) -> Decision[Any]:
        """Look at the device or directory, and at nothing else, and plan. Raises `Problem` UNAVAILABLE."""
        kind = self._kind(request.kind)
        others = self.mounted()
        looking = Mount(request.name)  # a thread of its own: the disk may hang
        return kind.decide(request, await looking.ask(lambda: kind.look(request, others)))

    async def create(self, request: DatastoreCreate, plan: object) -> None:
        """Carry `plan` out; the record comes last, so that a failure leaves nothing wanted."""
        kind = self._kind(request.kind)
        record = await kind.make(request, plan)
        mount = Mount(request.name)
        try:
            taken = await mount.ask(partial(self._take, request.name, record), MOUNT_S)
            await self._records.commit(request.name, record, expect=0)
        except BaseException:
            undo = mount.run(partial(kind.unmount, request.name))  # after the mount, when that still hangs
            await asyncio.wait({self._background.keep(f"unmount {request.name}", undo)}, timeout=ANSWER_S)
            raise
        mount.use(taken)
        self._mounts[request.name] = mount
        self._watch()
        self._events.publish("datastore.changed", request.name, mounted="true")

    async def delete(self, name: str, expect: int | None) -> None:
        """Unmount and forget; the files stay."""
        record, mount = self._records.get(name), self._mount(name)
        kind = self._kind(record.value.kind)
        root, mount.root = mount.root, None  # nobody begins to use it while it is unmounted
        mount.leaving = True
        try:
            await mount.ask(partial(kind.unmount, name))
            await self._records.remove(name, expect=expect)
        except BaseException:
            mount.leaving = False
            if root is not None and (mount.silent or await mount.run(lambda: kind.mounted(root))):
                mount.root = root
            raise
        del self._mounts[name]
        self._events.publish("datastore.changed", name, mounted="false", deleted="true")

    def _mount(self, name: str) -> Mount:
        self._records.get(name)
        return self._mounts[name]

    def _kind(self, kind: DatastoreKind) -> Kind:
        if kind not in self._kinds:
            self._kinds[kind] = kinds.of(kind)(self.around)
        return self._kinds[kind]
