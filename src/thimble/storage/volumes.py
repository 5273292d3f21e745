"""Volumes: made whole or not at all, found again by their names.

A volume is made under a temporary name, fsynced, then renamed; so whatever has its final name is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code, Problem
from thimble.storage import formats
from thimble.storage.datastores import Datastores
from thimble.storage.qemu_img import QemuImg
from thimble.storage.records import ImageFacts, VolumeFacts
from thimble.storage.rules import RESERVE, no_room, split_ref
from thimble.sys import block, files


class Volumes:
    """All volumes of all mounted datastores: those of their own, and the disks in VMs' directories."""

    def __init__(self, datastores: Datastores, tool: QemuImg) -> None:
        self._datastores = datastores
        self._tool = tool
        self._making: set[Path] = set()

    async def make(
        self,
        target: Path,
        *,
        size: int | None,
        image: ImageFacts | None,
        format: DiskFormat,
        progress: Callable[[float], None],
    ) -> int:
        """Make `target`, empty or a copy; when it is there already, it is the one. Its virtual size."""
        if target.exists():
            return size_of(target, format)
        name = target.with_suffix("")
        if name in self._making:
            raise Problem(Code.CONFLICT, f"{name.name} is being made already")
        self._making.add(name)
        unfinished = target.with_name(f".{target.name}.new")
        try:
            target.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            await self._fill(unfinished, size, image, format, progress)
            unfinished.chmod(0o600)
            await _sync(unfinished)
            if target.exists():  # a VM's volume was kept under this name meanwhile
                raise Problem(Code.EXISTS, f"there is a volume {name.name} already")
            unfinished.rename(target)
            files.sync_directory(target.parent)
        except OSError as error:
            raise files.problem(error, f"cannot make {target}") from error
        finally:
            try:
                if unfinished.exists():
                    await files.remove_large(unfinished)
            finally:
                self._making.discard(name)
        progress(1.0)
        return size_of(target, format)

    async def _fill(
        self,
        path: Path,
        size: int | None,
        image: ImageFacts | None,
        format: DiskFormat,
        progress: Callable[[float], None],
    ) -> None:
        path.unlink(missing_ok=True)
        if image is None:
            assert size is not None
            if format is DiskFormat.RAW:
                with open(path, "xb") as file:
                    file.truncate(size)
            else:
                await self._tool.create(path, size, format)
            return
        free = files.space(path.parent)[1]
        if image.used_bytes > free - RESERVE:
            reason = no_room(image.used_bytes, free, "")
            raise Problem(Code.NO_SPACE, f"a copy of {image.ref} {reason.message}")
        await self._tool.copy(
            image.path, image.format, path, format, lambda part: progress(part * 0.98), size=image.size_bytes
        )
        if size is not None and size > size_of(path, format):
            await self._tool.grow(path, size, format)

    async def remove(self, target: Path) -> None:
        """Delete it and what an interrupted making left; a missing one is fine."""
        for path in (target.with_name(f".{target.name}.new"), target):
            await files.remove_large(path)

    def resolve(self, ref: str, home: str) -> VolumeFacts:
        """The volume that `ref` names. Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        store, name = split_ref(ref, home)
        root = self._datastores.root(store)
        found = None if "/" in name or name.startswith(".") else _find(root, name)
        if found is None:
            raise Problem(Code.NOT_FOUND, f"there is no volume {store}/{name}")
        return facts(f"{store}/{name}", *found)

    def all(self) -> Iterator[VolumeFacts]:
        """Every volume; one that cannot be read is left out."""
        for store, root in self._datastores.mounted().items():
            for path in sorted((root / "volumes").iterdir()) + sorted((root / "vms").glob("*/*")):
                if path.suffix not in _FORMATS or path.name.startswith(".") or not files.regular(path, root):
                    continue
                inside = "" if path.parent.name == "volumes" else f"{path.parent.name}."
                try:
                    yield facts(f"{store}/{inside}{path.stem}", path, _FORMATS[path.suffix])
                except Problem:
                    continue

    def promised(self, store: str) -> int:
        """Bytes by which the volumes of a datastore may still grow."""
        mine = (facts for facts in self.all() if facts.ref.startswith(f"{store}/"))
        return sum(max(0, facts.size_bytes - facts.used_bytes) for facts in mine)


_FORMATS = {f".{format}": format for format in DiskFormat}


def _find(root: Path, name: str) -> tuple[Path, DiskFormat] | None:
    vm, dot, disk = name.partition(".")
    places = [root / "volumes" / name]
    if dot and vm.startswith("vm-"):
        places.append(root / "vms" / vm / disk)
    for place in places:
        for format in DiskFormat:
            path = place.with_name(f"{place.name}.{format}")
            if files.regular(path, root):
                return path, format
    return None


def facts(ref: str, path: Path, format: DiskFormat) -> VolumeFacts:
    """Raises `Problem`."""
    try:
        used = path.stat().st_blocks * 512
    except OSError as error:
        raise files.problem(error, f"cannot look at {path}") from error
    return VolumeFacts(ref=ref, path=path, format=format, size_bytes=size_of(path, format), used_bytes=used)


def size_of(path: Path, format: DiskFormat) -> int:
    """The virtual size, from the file itself. Raises `Problem`."""
    length, head, _ = block.read_ends(str(path), 104, 0)
    if format is DiskFormat.RAW:
        return length
    header = formats.qcow2(head)
    if header is None:
        raise Problem(Code.FAILED, f"{path} is not a qcow2 file")
    return header.size_bytes


async def _sync(path: Path) -> None:
    """fsync without holding up the agent."""
    import asyncio

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await asyncio.to_thread(os.fsync, descriptor)
    finally:
        os.close(descriptor)
