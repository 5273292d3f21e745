"""Volumes: made whole or not at all, found again by their names.

A volume is made under a temporary name, fsynced, gets its record and then its name; so whatever has its final
name is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from thimble.contract.vm import DiskFormat
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem
from thimble.state.background import Background
from thimble.storage import homes, refs
from thimble.storage.attachments import Claims
from thimble.storage.catalog import Catalog, Sized
from thimble.storage.datastores import Datastores
from thimble.storage.headers import Headers
from thimble.storage.homes import Home, VolumeFile
from thimble.storage.records import ImageFacts, VolumeFacts
from thimble.storage.rules import RESERVE, no_room
from thimble.storage.volume_files import give_name, make_empty, settle, size_of
from thimble.sys import files
from thimble.sys.worker import Worker

if TYPE_CHECKING:
    from thimble.storage.qemu_img import QemuImg


class Volumes:
    """All volumes of all datastores that are there: those of their own, and the disks in VMs' directories."""

    def __init__(
        self,
        datastores: Datastores,
        tool: Lazy[QemuImg],
        claims: Claims,
        background: Background,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._datastores = datastores
        self._tool = tool
        self.claims = claims
        self._sizes = Headers(lambda path: size_of(path, homes.volume_file(path).format))
        self.catalog = Catalog(
            datastores, background, files=self._sized, busy=self._busy, clock=clock, entropy=entropy
        )

    async def make(
        self,
        target: Path,
        *,
        size: int | None,
        image: ImageFacts | None,
        format: DiskFormat,
        made_by: str = "",
        progress: Callable[[float], None],
    ) -> int:
        """Make `target`, empty or a copy; when it is there already, it is the one. Its virtual size.

        The caller has claimed it.
        """
        worker = Worker(f"make {target.name}")
        if await worker.run(target.exists):
            return await worker.run(partial(self._sizes.get, target))
        datastore = self._datastores.holding(target)
        unfinished = homes.unfinished(target)
        try:
            await worker.run(lambda: target.parent.mkdir(mode=0o711, parents=True, exist_ok=True))
            await self._fill(worker, unfinished, size, image, format, progress)
            await worker.run(partial(settle, unfinished))
            await self._name(worker, datastore, unfinished, target, made_by)
        except OSError as error:
            raise files.problem(error, f"cannot make {target}") from error
        finally:
            await worker.run(partial(files.remove_large, unfinished))
        progress(1.0)
        await self._datastores.measure(datastore)
        return await worker.run(partial(self._sizes.get, target))

    async def _name(
        self, worker: Worker, datastore: str, unfinished: Path, target: Path, made_by: str
    ) -> None:
        """The record, then the name."""
        file = homes.volume_file(target)
        size = await worker.run(lambda: size_of(unfinished, file.format))
        await self.catalog.add(datastore, file, size, made_by=made_by or file.vm)
        try:
            await worker.run(lambda: give_name(unfinished, target))
        except BaseException:
            if not await worker.run(target.exists):
                await self.catalog.remove(datastore, file.vm, file.name)
            raise

    async def _fill(
        self,
        worker: Worker,
        path: Path,
        size: int | None,
        image: ImageFacts | None,
        format: DiskFormat,
        progress: Callable[[float], None],
    ) -> None:
        await worker.run(lambda: path.unlink(missing_ok=True))
        if image is None:
            assert size is not None
            if format is DiskFormat.RAW:
                await worker.run(lambda: make_empty(path, size))
            else:
                await self._tool.get().create(path, size, format)
            return
        free = (await worker.run(lambda: files.space(path.parent)))[1]
        if image.used_bytes > free - RESERVE:
            reason = no_room(image.used_bytes, free, "")
            raise Problem(Code.NO_SPACE, f"a copy of {image.ref} {reason.message}")
        await self._tool.get().copy(
            image.path, image.format, path, format, lambda part: progress(part * 0.98), size=image.size_bytes
        )
        if size is not None and size > await worker.run(lambda: size_of(path, format)):
            await self._tool.get().grow(path, size, format)

    async def remove(self, target: Path) -> None:
        """Delete it, what an interrupted making left, and its record; a missing one is fine."""
        worker = Worker(f"remove {target.name}")
        for path in (homes.unfinished(target), target):
            await worker.run(partial(files.remove_large, path))
        file, datastore = homes.volume_file(target), self._datastores.holding(target)
        await self.catalog.remove(datastore, file.vm, file.name)
        await self._datastores.measure(datastore)

    def resolve(self, ref: str, home: str) -> VolumeFacts:
        """The volume that `ref` names. Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        whole = refs.parse(ref, home)
        found = self._datastores.home(whole.datastore).find_volume(whole)
        if found is None:
            raise Problem(Code.NOT_FOUND, f"there is no volume {whole}")
        return self._facts(whole.datastore, found)

    async def all(self) -> list[VolumeFacts]:
        """Every volume, but those that cannot be read or whose datastore does not answer."""
        found = await self._datastores.each(lambda store, home: list(self._of(store, home)))
        return [facts for part in found for facts in part]

    def promised(self, store: str) -> int:
        """Bytes by which the volumes of a datastore may still grow. Raises `Problem` UNAVAILABLE."""
        mine = self._of(store, self._datastores.home(store))
        return sum(max(0, facts.size_bytes - facts.used_bytes) for facts in mine)

    def _of(self, store: str, home: Home) -> Iterator[VolumeFacts]:
        for file in home.volume_files():
            try:
                yield self._facts(store, file)
            except Problem:
                continue

    def _sized(self, home: Home) -> list[Sized]:
        found = []
        for file in home.volume_files():
            with suppress(Problem, OSError):
                found.append((file, self._sizes.get(file.path)))
        return found

    def _busy(self, datastore: str, vm: str, name: str) -> bool:
        return self.claims.claimed(str(refs.volume(datastore, vm, name)))

    def _facts(self, store: str, file: VolumeFile) -> VolumeFacts:
        """Raises `Problem`."""
        try:
            used = file.path.stat().st_blocks * 512
            size = self._sizes.get(file.path)
        except OSError as error:
            raise files.problem(error, f"cannot look at {file.path}") from error
        return VolumeFacts(
            ref=str(homes.ref_of(store, file)),
            path=file.path,
            format=file.format,
            size_bytes=size,
            used_bytes=used,
        )
