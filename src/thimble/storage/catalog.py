"""The records of volumes, beside the volumes: made with them, made up for files without one, gone with them.

    make     record ▸ file gets its name       what has its name has its record
    found    file without a record ▸ adopted   copied here by hand, or made by an older Thimble
    gone     record without a file ▸ removed   deleted with its VM's directory, or by hand

The file is the truth on whether a volume is there and what it holds; the record on its identity and origin.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import msgspec

from thimble.contract.common import Event
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem
from thimble.state.background import Background
from thimble.state.store import Collection, Record, is_durable
from thimble.storage.datastores import Datastores
from thimble.storage.deadline import LIST_S
from thimble.storage.homes import Home, VolumeFile
from thimble.storage.records import VOLUME_UPGRADES, VolumeRecord
from thimble.sys import log

Key = tuple[str, str]
Sized = tuple[VolumeFile, int]


class Catalog:
    """All volume records; those of a datastore are read when they are first wanted.

    `files`: the volumes of a datastore with their virtual sizes; `busy`: is the volume (datastore, VM, name)
    being made or removed now?
    """

    def __init__(
        self,
        datastores: Datastores,
        background: Background,
        *,
        files: Callable[[Home], list[Sized]],
        busy: Callable[[str, str, str], bool],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._datastores = datastores
        self._background = background
        self._files = files
        self._busy = busy
        self._clock = clock
        self._entropy = entropy
        self._read: dict[str, Collection[VolumeRecord]] = {}
        self._moved: dict[str, list[tuple[Key, Key]]] = {}
        self._changes = 0
        self._keeps_up = False
        self._reading: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reconciling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._following: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def keep_up(self) -> None:
        """From now on, also what comes and goes without a verb gets and loses its record."""
        self._keeps_up = True
        for name in self._datastores.mounted():
            self._begin(name)

    def heard(self, event: Event) -> None:
        """A datastore that went may come back as another one; the files of a VM went with it."""
        if event.kind == "datastore.changed":
            if event.detail.get("mounted") == "false":
                self._read.pop(event.subject, None)
            elif self._keeps_up:
                self._begin(event.subject)
        elif event.kind == "vm.deleted" and self._keeps_up:
            for name in self._datastores.mounted():
                self._begin(name)

    def _begin(self, datastore: str) -> None:
        self._background.keep(f"volume records of {datastore}", self.reconcile(datastore))

    async def records(self, datastore: str) -> Collection[VolumeRecord]:
        """Raises `Problem` UNAVAILABLE."""
        if (known := self._read.get(datastore)) is not None:
            return known
        async with self._reading[datastore]:
            if datastore not in self._read:
                found = await self._datastores.ask(datastore, lambda home: _read(home, datastore), LIST_S)
                self._read[datastore] = found
            return self._read[datastore]

    async def find(self, datastore: str, vm: str, name: str) -> Record[VolumeRecord] | None:
        """The record of the volume so called. Raises `Problem` UNAVAILABLE."""
        return _find(await self.records(datastore), (vm, name))

    async def add(
        self, datastore: str, file: VolumeFile, size: int, *, made_by: str = "", parent: str = ""
    ) -> Record[VolumeRecord]:
        """Before its file gets its name. Raises `Problem` as a commit does."""
        records = await self.records(datastore)
        self._changes += 1
        value = VolumeRecord(
            name=file.name, vm=file.vm, format=file.format, size_bytes=size, parent=parent, made_by=made_by,
            created=self._clock(),
        )  # fmt: skip
        old = _find(records, (file.vm, file.name))  # of a file that has gone
        id = old.id if old else identity("vol", self._entropy(5))
        return await records.commit(id, value, root=datastore)

    async def remove(self, datastore: str, vm: str, name: str) -> None:
        """After its file. What cannot be removed now is at the next `reconcile`."""
        self._changes += 1
        try:
            found = await self.find(datastore, vm, name)
            if found is not None:
                await (await self.records(datastore)).remove(found.id)
        except Problem as error:
            log.say(f"the record of the volume {name} on {datastore} stays: {error.detail}")

    async def forget(self, datastore: str, vm: str) -> None:
        """The files of a VM are gone. What cannot be removed now is at the next `reconcile`."""
        self._changes += 1
        try:
            records = await self.records(datastore)
            await self._follow(datastore, records)
            for record in records.all():
                if record.value.vm == vm:
                    await records.remove(record.id)
        except Problem as error:
            log.say(f"the records of the volumes of {vm} on {datastore} stay: {error.detail}")

    def renamed(self, datastore: str, old: Key, new: Key) -> None:
        """The file has got another name: the volume keeps its identity, beside all else."""
        self._changes += 1
        self._moved.setdefault(datastore, []).append((old, new))
        self._begin(datastore)

    async def reconcile(self, datastore: str) -> None:
        """Adopt files without a record, remove records without a file. A full datastore only logs."""
        try:
            async with self._reconciling[datastore]:
                records, files = await self._look(datastore)
                known = {_key(record) for record in records.all()}
                for file, size in files:
                    if (file.vm, file.name) not in known and not self._busy(datastore, file.vm, file.name):
                        await self.add(datastore, file, size)
                there = {(file.vm, file.name) for file, _ in files}
                for record in records.all():
                    key = _key(record)
                    if key in known and key not in there and not self._busy(datastore, *key):
                        await records.remove(record.id)
        except Problem as error:
            log.say(f"volumes on {datastore}: their records are behind: {error.detail}")

    async def _look(self, datastore: str) -> tuple[Collection[VolumeRecord], list[Sized]]:
        """Records and files as they are at one time: looked at again when a verb changed them meanwhile."""
        records = await self.records(datastore)
        while True:
            await self._follow(datastore, records)
            changes = self._changes
            files = await self._datastores.ask(datastore, self._files, LIST_S)
            if changes == self._changes:
                return records, files

    async def _follow(self, datastore: str, records: Collection[VolumeRecord]) -> None:
        """The files that were renamed."""
        async with self._following[datastore]:
            for was, (vm, name) in self._moved.pop(datastore, ()):
                if (found := _find(records, was)) is not None:
                    change = partial(msgspec.structs.replace, vm=vm, name=name)
                    await records.amend(found.id, change)


def _read(home: Home, datastore: str) -> Collection[VolumeRecord]:
    for place in (home.volume_records, home.volume_records.parent):
        if place.is_symlink():  # a datastore from elsewhere may lead anywhere
            raise Problem(Code.FAILED, f"{place} is a symbolic link: records are not kept there")
    records = Collection(VolumeRecord, noun="volume", upgrades=VOLUME_UPGRADES, durable=is_durable(home.root))
    records.add_root(datastore, home.volume_records)
    return records


def _find(records: Collection[VolumeRecord], key: Key) -> Record[VolumeRecord] | None:
    return next((record for record in records.all() if _key(record) == key), None)


def _key(record: Record[VolumeRecord]) -> Key:
    return record.value.vm, record.value.name
