"""The datastores of this host: which are wanted, where they are mounted, why one is not.

A wanted datastore that cannot be mounted stays a record with a `why`; nothing that refers to it is lost, and
`refresh` takes it back into use when its disk returns. Leftovers of interrupted work are removed when a
datastore is taken into use, before anybody works in it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from thimble.contract.storage import Datastore, DatastoreCreate, DatastoreKind
from thimble.core.problem import Code, Problem
from thimble.state.events import Events
from thimble.state.store import Collection, Record, is_durable
from thimble.storage.records import DatastoreRecord, Marker
from thimble.sys import files, mount

if TYPE_CHECKING:
    from thimble.storage import plan
    from thimble.sys.uevent import Uevents

LOCAL = "local"
MARKER = "thimble-datastore.json"
#: A state partition below this (bytes) holds records only. A stick's has 64 MiB, an installed one 1 GiB.
SMALL_STATE = 3 << 29
_FLAGS = mount.NOSUID | mount.NODEV | mount.NOEXEC | mount.NOATIME


class Datastores:
    """Records and mounts. `mounts` is the directory to mount below."""

    def __init__(self, state: Path, mounts: Path, events: Events, *, mkfs: str = "mkfs.ext4") -> None:
        self._state = state
        self._mounts = mounts
        self._events = events
        self._mkfs = mkfs
        self._records: Collection[DatastoreRecord] = Collection(
            DatastoreRecord, noun="datastore", durable=is_durable(state)
        )
        self._roots: dict[str, Path] = {}
        self._why: dict[str, str] = {}
        self._uevents: Uevents | None = None
        #: Held while deciding and doing: between the two nobody else may take the name or the disk.
        self.lock = asyncio.Lock()
        self._refreshing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Read the records, make `local` if it is new, and mount what can be mounted."""
        self._state.mkdir(parents=True, exist_ok=True)
        self._records.add_root("", self._state / "storage")
        if self._records.find(LOCAL) is None:
            self._records.put(LOCAL, self._first_local(), expect=0)
        for record in self._records.all():
            self._brought(record, self._bring(record))  # nobody waits for us yet
        self._watch()

    def _first_local(self) -> DatastoreRecord:
        """Below the state, unless that is a partition so small that one guest's disk could fill it."""
        at = mount.mounted(self._state)
        if at is None or not at[1].startswith("ext") or files.space(self._state)[0] >= SMALL_STATE:
            return DatastoreRecord(kind=DatastoreKind.DIRECTORY)
        from thimble.storage import disks

        return disks.instead_of_state()

    def close(self) -> None:
        """Stop watching for disks."""
        if self._uevents is not None:
            self._uevents.close()
            self._uevents = None

    def _watch(self) -> None:
        """Once a disk is among them: notice when disks come and go."""
        disks = any(record.value.kind is DatastoreKind.DISK for record in self._records.all())
        if disks and self._uevents is None:
            from thimble.sys.uevent import Uevents

            try:
                self._uevents = Uevents("block", self._disks_changed)
            except OSError:
                pass  # then `datastore.list` notices

    def warnings(self) -> tuple[str, ...]:
        """Records that are not used, datastores that are not there."""
        lines = [f"{path}: not used, {why}" for path, why in self._records.broken.items()]
        local = self._records.find(LOCAL)
        if local is not None and local.value.kind is DatastoreKind.RAM and self.default == LOCAL:
            lines.append(
                "the datastore local is in RAM, for the state partition is small: VMs and disks on it "
                "are gone at the next reboot; create a datastore on a disk"
            )
        return (*lines, *(f"datastore {name} is not there: {why}" for name, why in self._why.items()))

    async def refresh(self) -> None:
        """Notice disks that went and came."""
        async with self._refreshing:
            for record in self._records.all():
                root = self._roots.get(record.id)
                if root is None:
                    await self._try_again(record)
                elif record.value.kind is DatastoreKind.DISK and not self._present(root):
                    self._lose(record.id, "its disk is gone")

    def _disks_changed(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.refresh())

    def names(self) -> list[str]:
        return [record.id for record in self._records.all()]

    @property
    def default(self) -> str:
        """Where things go when nobody says where: an installed host's disk, else `local`."""
        chosen = (record.id for record in self._records.all() if record.value.default)
        return next(chosen, LOCAL)

    def mounted(self) -> dict[str, Path]:
        return dict(self._roots)

    def root(self, name: str) -> Path:
        """Where it is. Raises `Problem` NOT_FOUND, or UNAVAILABLE when it is not mounted."""
        root = self._roots.get(name)
        if root is not None:
            return root
        self._records.get(name)
        raise Problem(Code.UNAVAILABLE, f"the datastore {name} is not there: {self._why.get(name, '')}")

    def record(self, name: str) -> Record[DatastoreRecord]:
        return self._records.get(name)

    def free(self, name: str) -> int:
        return files.space(self.root(name))[1]

    def view(self, name: str) -> Datastore:
        """As clients see it."""
        record = self._records.get(name)
        value, root = record.value, self._roots.get(name)
        size, free = (0, 0)
        if root is not None:
            try:
                size, free = files.space(root)
            except Problem as error:
                self._lose(name, error.detail)
                root = None
        return Datastore(
            name=name,
            rev=record.rev,
            kind=value.kind,
            where=value.device or str(root or value.path),
            mounted=root is not None,
            why=self._why.get(name, ""),
            durable=value.kind is not DatastoreKind.RAM and is_durable(root or self._state),
            default=name == self.default,
            size_bytes=size,
            free_bytes=free,
        )

    def decide(self, request: DatastoreCreate) -> plan.Decision:
        """Look at the device or directory, and at nothing else, and plan."""
        from thimble.storage import disks, plan

        facts: plan.DeviceFacts | plan.DirectoryFacts | None = None
        if request.kind is DatastoreKind.DISK:
            facts = disks.device_facts(request.device)
        elif request.kind is DatastoreKind.DIRECTORY:
            facts = self._directory_facts(Path(request.path))
        return plan.datastore(request, facts)

    async def create(self, request: DatastoreCreate, effects: tuple[plan.DatastoreEffect, ...]) -> None:
        """Carry out `effects`; the record comes last, so that a failure leaves nothing wanted."""
        from thimble.storage import disks, plan

        record = DatastoreRecord(
            kind=request.kind, path=request.path, device=request.device, size_bytes=request.size_bytes or 0
        )
        for effect in effects:
            match effect:
                case plan.MakeFileSystem():
                    await disks.make_file_system(effect.device, self._mkfs)
                case plan.MountDisk():
                    found = disks.device_facts(effect.device)
                    record = msgspec.structs.replace(record, uuid=found.contents.uuid)
                case plan.MountRam() | plan.UseDirectory():
                    pass
        async with self._refreshing:
            root = await asyncio.to_thread(self._mount, request.name, record)
            try:
                await asyncio.to_thread(_prepare, request.name, root)
                self._records.put(request.name, record, expect=0)
            except Problem:
                await asyncio.to_thread(self._unmount, request.name, record)
                raise
            self._use(request.name, root)
        self._watch()
        self._events.publish("datastore.changed", request.name, mounted="true")

    async def delete(self, name: str, expect: int | None) -> None:
        """Unmount and forget; the files stay."""
        async with self._refreshing:
            record = self._records.get(name)
            root = self._roots.pop(name, None)  # nobody begins to use it while it is unmounted
            try:
                await asyncio.to_thread(self._unmount, name, record.value)
                self._records.delete(name, expect=expect)
            except Problem:
                directory = record.value.kind is DatastoreKind.DIRECTORY
                if root is not None and (directory or mount.mounted(root) is not None):
                    self._roots[name] = root
                raise
        self._why.pop(name, None)
        self._events.publish("datastore.changed", name, mounted="false", deleted="true")

    def _bring(self, record: Record[DatastoreRecord]) -> Path | str:
        """Where it is now, or why it is not. May take as long as its disk does; changes nothing of ours."""
        try:
            root = self._mount(record.id, record.value)
            _prepare(record.id, root)
        except (Problem, OSError) as error:
            return error.detail if isinstance(error, Problem) else str(error)
        return root

    async def _try_again(self, record: Record[DatastoreRecord]) -> None:
        disk = record.value.kind is DatastoreKind.DISK
        self._brought(record, await asyncio.to_thread(self._bring, record) if disk else self._bring(record))

    def _brought(self, record: Record[DatastoreRecord], found: Path | str) -> None:
        if isinstance(found, str):
            self._why[record.id] = found
            return
        self._use(record.id, found)
        self._events.publish("datastore.changed", record.id, mounted="true")

    def _use(self, name: str, root: Path) -> None:
        self._roots[name] = root
        self._why.pop(name, None)

    def _lose(self, name: str, why: str) -> None:
        record = self._records.get(name)
        self._roots.pop(name, None)
        self._why[name] = why
        try:
            self._unmount(name, record.value, detach=True)
        except Problem:
            pass
        self._events.publish("datastore.changed", name, mounted="false", why=why)

    def _mount(self, name: str, record: DatastoreRecord) -> Path:
        """Bring it to where it is used, if it is not there yet; raises `Problem` or OSError."""
        if record.kind is DatastoreKind.DIRECTORY:
            if not record.path:
                root = self._state / "datastores" / name
                root.mkdir(parents=True, exist_ok=True)
                return root
            if not Path(record.path).is_dir():
                raise Problem(Code.UNAVAILABLE, f"the directory {record.path} is missing")
            return Path(record.path)
        target = self._mounts / name
        if mount.mounted(target) is not None:
            return target  # by us, before the agent was started anew
        if record.kind is DatastoreKind.RAM:
            size = record.size_bytes or "50%"
            mount.mount("thimble", target, "tmpfs", flags=_FLAGS, data=f"size={size},mode=711")
        else:
            from thimble.storage import disks

            mount.mount(disks.find_disk(record), target, "ext4", flags=_FLAGS, data="errors=remount-ro")
        return target

    def _unmount(self, name: str, record: DatastoreRecord, *, detach: bool = False) -> None:
        target = self._mounts / name
        if record.kind is not DatastoreKind.DIRECTORY and mount.mounted(target) is not None:
            mount.unmount(target, detach=detach)

    def _directory_facts(self, path: Path) -> plan.DirectoryFacts:
        from thimble.storage import plan

        mine = os.path.realpath(path).rstrip("/") + "/"
        overlaps = ""
        for name, root in [*self._roots.items(), ("", self._state)]:
            other = os.path.realpath(root).rstrip("/") + "/"
            if mine.startswith(other) or other.startswith(mine):
                overlaps = name or "that Thimble's state is"
        return plan.DirectoryFacts(
            path=str(path),
            exists=path.is_dir(),
            writable=os.access(path, os.W_OK | os.X_OK),
            overlaps=overlaps,
        )

    def _present(self, root: Path) -> bool:
        try:
            device = root.stat().st_dev
        except OSError:
            return False
        return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists()


def _prepare(name: str, root: Path) -> None:
    """Its folders and its marker; nothing of what was left half done."""
    for part in ("vms", "volumes", "images"):
        (root / part).mkdir(mode=0o711, exist_ok=True)
    if not (root / MARKER).exists():
        files.write_atomic(root / MARKER, msgspec.json.encode(Marker(name=name)), durable=is_durable(root))
    clean(root)


def clean(root: Path) -> None:
    """Remove what interrupted work left: `.*.new` files, empty directories of VMs."""
    for pattern in ("volumes/.*.new", "images/.*.new", "vms/*/.*.new"):
        for path in root.glob(pattern):
            path.unlink(missing_ok=True)
    for path in (root / "vms").iterdir():  # of a create that died before its record
        with suppress(OSError):
            path.rmdir()  # only an empty one goes
