"""The long work behind create and delete: every step can be done again, so a restarted agent just goes on.

Create is volumes ▸ firmware ▸ ready; when it fails or is cancelled all is taken back, the VM never was.
Delete is volumes ▸ files ▸ record; when it fails the VM stays `failed`: delete it again.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.contract.vm import DiskFormat, Firmware
from thimble.core.problem import Problem
from thimble.state.store import Collection
from thimble.state.tasks import Progress
from thimble.storage.homes import UEFI_VARIABLES, VM_RECORD
from thimble.sys import cgroup, files
from thimble.vm.driver import Driver
from thimble.vm.qemu.context import World
from thimble.vm.qemu.launch_fds import Source
from thimble.vm.record.spec import Disk, Phase, VmRecord

replace = msgspec.structs.replace


async def create(id: str, world: World, store: Collection[VmRecord], progress: Progress) -> None:
    """Make what the record says; then its phase is `ready`. Raises `Problem` after taking all back."""
    found = store.get(id)
    source = Source(world.storage, world.network, id, found.root)
    try:
        async with progress.step("volumes"):
            disks = await make_volumes(source, found.value, found.value.disks, world, progress)
        async with progress.step("firmware"):
            if found.value.firmware is Firmware.UEFI:
                make_variables(source, world)
        async with progress.step("ready"):
            protect(source.directory, found.value, world)
            store.put(id, replace(found.value, disks=disks, phase=Phase.READY))
    except BaseException:
        await take_back(id, source, world, store)
        raise


async def make_volumes(
    source: Source, record: VmRecord, disks: tuple[Disk, ...], world: World, progress: Progress
) -> tuple[Disk, ...]:
    """Make the volumes of our own that are missing; the disks with their true sizes."""
    result = []
    for n, disk in enumerate(disks):
        if disk.volume:
            result.append(disk)
            continue

        def tell(fraction: float, n: int = n) -> None:
            progress.at((n + fraction) / len(disks))

        size = await world.storage.create_volume(
            source.directory / disk.file,
            size_bytes=disk.size_bytes or None,
            image=disk.image or None,
            home=source.home,
            format=disk.format,
            progress=tell,
        )
        if world.own_users:
            os.chown(source.directory / disk.file, record.uid, record.uid, follow_symlinks=False)
        result.append(replace(disk, size_bytes=size))
    return tuple(result)


def make_variables(source: Source, world: World) -> None:
    """The VM's own UEFI variables, from the template; existing ones stay."""
    target = source.directory / UEFI_VARIABLES
    if target.exists():
        return
    try:
        data = world.qemu.ovmf_vars.read_bytes()
    except OSError as error:
        raise files.problem(error, f"cannot read the UEFI firmware {world.qemu.ovmf_vars}") from error
    files.write_atomic(target, data)


def protect(directory: Path, record: VmRecord, world: World) -> None:
    """The directory is the VM's to read, the record ours alone."""
    if world.own_users:
        os.chown(directory, 0, record.uid)
    directory.chmod(0o750)


async def take_back(id: str, source: Source, world: World, store: Collection[VmRecord]) -> None:
    """As if the create had never been asked for; where that fails, the record stays."""
    with suppress(Problem, OSError):
        await asyncio.to_thread(_remove_files, source.directory)
        await source.storage.forget_volumes(source.home, id)
    with suppress(Problem):
        store.delete(id)
    with suppress(Problem, OSError):
        source.directory.rmdir()
    if store.find(id) is None:
        world.events.publish("vm.deleted", id)


async def delete(
    id: str, driver: Driver, world: World, store: Collection[VmRecord], progress: Progress
) -> None:
    """Take away what the record in phase `deleting` has. Raises `Problem`; can be done again."""
    found = store.get(id)
    source = Source(world.storage, world.network, id, found.root)
    async with progress.step("volumes"):
        for disk in found.value.disks:
            if not disk.volume and found.value.keep_volumes:
                release_volume(source, found.value, disk)
        for disk in stray_disks(source, found.value) if found.value.keep_volumes else ():
            release_volume(source, found.value, disk)
        for nic in found.value.nics:
            await world.network.close_port(id, nic.name)
    async with progress.step("files"):
        await asyncio.to_thread(_remove_files, source.directory)
        await world.storage.forget_volumes(source.home, id)
        driver.rundir.remove()
        await world.consoles.forget(id)
        if (group := world.group(id)) is not None:
            cgroup.delete(group)
    async with progress.step("record"):
        store.delete(id)
        with suppress(OSError):
            source.directory.rmdir()


def _remove_files(directory: Path) -> None:
    """Everything but the record, which goes last: until then a restart finds the work to finish."""
    for path in directory.iterdir() if directory.exists() else ():
        if path.name == VM_RECORD:
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                import shutil

                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise files.problem(error, f"cannot remove {path}") from error


async def discard(source: Source, disks: tuple[Disk, ...], *, directory: bool) -> None:
    """Take back the volumes of a change that did not come to its record, and an empty `directory`."""
    with suppress(Problem, OSError):
        for disk in disks:
            if not disk.volume:
                await source.storage.remove_volume(source.directory / disk.file)
        if directory:
            source.directory.rmdir()


def stray_disks(source: Source, record: VmRecord) -> list[Disk]:
    """Own volumes that the record does not know: of a change that was cut off, or a guest that held on."""
    known = {disk.file for disk in record.disks if not disk.volume}
    paths = sorted(source.directory.glob("[!.]*"))
    return [
        Disk(name=path.stem, format=DiskFormat(path.suffix[1:]))
        for path in paths
        if path.suffix[1:] in tuple(DiskFormat) and path.name not in known
    ]


def release_volume(source: Source, record: VmRecord, disk: Disk) -> str:
    """Make an own volume stand alone, as `datastore/VM-DISK`; its new name, empty when it went before."""
    return source.storage.release_volume(source.home, source.id, disk.file, f"{record.name}-{disk.name}")
