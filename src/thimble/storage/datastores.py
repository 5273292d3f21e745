"""The datastores of this host: which are wanted, where they are, why one is not there.

A wanted datastore that cannot be mounted stays a record with a `why`; nothing that refers to it is lost, and
`arrivals` takes it back into use when its disk returns. Leftovers of interrupted work are removed when a
datastore is taken into use, before anybody works in it. What one lies on is the affair of its kind (`kinds`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreKind
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Collection, Record, is_durable
from thimble.storage import homes, kinds
from thimble.storage.arrivals import MOUNT_S, Arrivals
from thimble.storage.deadline import ANSWER_S, LIST_S, DeadlineWorker
from thimble.storage.homes import Home
from thimble.storage.kinds.base import Kind, Surroundings
from thimble.storage.mounted import Mount
from thimble.storage.records import DATASTORE_UPGRADES, DatastoreRecord

T = TypeVar("T")

LOCAL = "local"
#: Seconds that the agent waits for its datastores before it is ready.
GRACE_S = 0.5
#: Free space that was measured so many seconds ago is measured again.
FRESH_S = 2.0


class Datastores:
    """Records and mounts. `around`: the state, and the directory to mount below."""

    def __init__(self, around: Surroundings, events: Events, background: Background) -> None:
        self.around = around
        self.arrivals = Arrivals(events, background)
        self._mounts = self.arrivals.mounts
        self._events = events
        self._background = background
        self._records: Collection[DatastoreRecord] = Collection(
            DatastoreRecord,
            noun="datastore",
            upgrades=DATASTORE_UPGRADES,
            durable=is_durable(around.state),
        )
        self._kinds: dict[DatastoreKind, Kind] = {}
        #: Held while deciding and doing: between the two nobody else may take the name or the disk.
        self.lock = asyncio.Lock()

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
            self.arrivals.begin(self._new(record.id, record.value))
        self.arrivals.watch()
        await self.arrivals.settled(GRACE_S)

    def _new(self, name: str, record: DatastoreRecord) -> Mount:
        return Mount(name, self._kind(record.kind), record)

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
        gone = [mount for mount in self._mounts.values() if not mount.there]
        return (*lines, *(f"datastore {mount.name} is not there: {mount.missing}" for mount in gone))

    def names(self) -> list[str]:
        return [record.id for record in self._records.all()]

    @property
    def default(self) -> str:
        """Where things go when nobody says where: an installed host's disk, else `local`."""
        chosen = (record.id for record in self._records.all() if record.value.default)
        return next(chosen, LOCAL)

    def mounted(self) -> dict[str, Path]:
        """Where those are that are mounted, also when one does not answer now: its VMs are not gone."""
        return {mount.name: mount.root for mount in self._mounts.values() if mount.root is not None}

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
        return self._mount(name).kind.lost

    def free(self, name: str) -> int:
        """Bytes free as last measured, at most a moment ago. Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        self.root(name)
        mount = self._mount(name)
        if asyncio.get_running_loop().time() - mount.measured > FRESH_S:
            self._background.keep(f"space of {name}", self.measure(name))
        return mount.free_bytes

    async def measure(self, name: str) -> int:
        """Bytes free now, or as last measured when it does not answer. Raises `Problem` NOT_FOUND."""
        mount = self._mount(name)
        await self.arrivals.measure(mount)
        return mount.free_bytes

    async def ask(self, name: str, work: Callable[[Home], T], seconds: float = ANSWER_S) -> T:
        """What `work` finds in a datastore, in its thread. Raises `Problem` also when it does not answer."""
        home = self.home(name)
        return await self._mount(name).worker.ask(lambda: work(home), seconds)

    async def each(self, work: Callable[[str, Home], T]) -> list[T]:
        """The same of all that are there and answer; `work` may look at every file."""
        asked = [self.ask(name, partial(work, name), LIST_S) for name in self.mounted()]
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
            why=mount.missing,
            durable=mount.durable if mount.root else value.kind is not DatastoreKind.RAM,
            default=name == self.default,
            size_bytes=mount.size_bytes if there else 0,
            free_bytes=mount.free_bytes if there else 0,
        )

    # ── made and forgotten ───────────────────────────────────────────────────────────────────────

    async def decide(self, request: DatastoreCreate) -> Decision[Any]:
        """Look at the device or directory, and at nothing else, and plan. Raises `Problem` UNAVAILABLE."""
        kind, others = self._kind(request.kind), self.mounted()
        looking = DeadlineWorker(request.device or request.path)
        return kind.decide(request, await looking.ask(lambda: kind.look(request, others)))

    async def create(self, request: DatastoreCreate, plan: object) -> None:
        """Carry `plan` out; the record comes last, so that a failure leaves nothing wanted."""
        record = await self._kind(request.kind).make(request, plan)
        mount = self._new(request.name, record)
        try:
            taken = await mount.worker.ask(mount.take, MOUNT_S)
            await self._records.commit(request.name, record, expect=0)
        except BaseException:
            undo = mount.worker.run(partial(mount.kind.unmount, mount.name))  # after a mount that still hangs
            await asyncio.wait({self._background.keep(f"unmount {mount.name}", undo)}, timeout=ANSWER_S)
            raise
        mount.use(taken)
        self._mounts[request.name] = mount
        self.arrivals.watch()
        self._events.publish("datastore.changed", request.name, mounted="true")

    async def delete(self, name: str, expect: int | None) -> None:
        """Unmount and forget; the files stay."""
        mount = self._mount(name)
        kind, worker = mount.kind, mount.worker
        root, mount.root = mount.root, None  # nobody begins to use it while it is unmounted
        mount.leaving = True
        try:
            await worker.ask(partial(kind.unmount, name))
            await self._records.remove(name, expect=expect)
        except BaseException:
            mount.leaving = False
            if root is not None and (worker.silent or await worker.run(lambda: kind.mounted(root))):
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
