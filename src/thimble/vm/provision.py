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
from thimble.state.tasks import Progress
from thimble.storage.homes import UEFI_VARIABLES, VM_RECORD
from thimble.sys import cgroup, files
from thimble.vm.qemu.context import Context
from thimble.vm.qemu.launch_fds import Source
from thimble.vm.record.spec import Definition, Disk
from thimble.vm.table import VmTable

replace = msgspec.structs.replace


async def create(id: str, table: VmTable, progress: Progress) -> None:
    """Make what the record says; then its phase is `ready`. Raises `Problem` after taking all back."""
    found, context = table.get(id), table.context
    source, vm = Source(context.storage, context.network, id, found.root), found.value.definition
    try:
        async with progress.step("volumes"):
            disks = await make_volumes(source, vm, vm.disks, context, progress)
        async with progress.step("firmware"):
            if vm.firmware is Firmware.UEFI:
                await asyncio.to_thread(make_variables, source, context)
        async with progress.step("ready"):
            protect(source.directory, vm, context)
            await table.ready(id, {disk.name: disk.size_bytes for disk in disks})
    except BaseException:
        await take_back(id, source, table)
        raise


async def make_volumes(
    source: Source, vm: Definition, disks: tuple[Disk, ...], context: Context, progress: Progress
) -> tuple[Disk, ...]:
    """Make the volumes of our own that are missing; the disks with their true sizes."""
    result = []
    for n, disk in enumerate(disks):
        if disk.volume:
            result.append(disk)
            continue

        def tell(fraction: float, n: int = n) -> None:
            progress.at((n + fraction) / len(disks))

        size = await context.storage.create_volume(
            source.directory / disk.file,
            size_bytes=disk.size_bytes or None,
            image=disk.image or None,
            home=source.home,
            format=disk.format,
            progress=tell,
        )
        if context.own_users:
            os.chown(source.directory / disk.file, vm.uid, vm.uid, follow_symlinks=False)
        result.append(replace(disk, size_bytes=size))
    return tuple(result)


def make_variables(source: Source, context: Context) -> None:
    """The VM's own UEFI variables, from the template; existing ones stay."""
    target = source.directory / UEFI_VARIABLES
    if target.exists():
        return
    try:
        data = context.qemu.ovmf_vars.read_bytes()
    except OSError as error:
        raise files.problem(error, f"cannot read the UEFI firmware {context.qemu.ovmf_vars}") from error
    files.write_atomic(target, data)


def protect(directory: Path, vm: Definition, context: Context) -> None:
    """The directory is the VM's to read, the record ours alone."""
    if context.own_users:
        os.chown(directory, 0, vm.uid)
    directory.chmod(0o750)


async def take_back(id: str, source: Source, table: VmTable) -> None:
    """As if the create had never been asked for; where that fails, the record stays."""
    with suppress(Problem, OSError):
        await asyncio.to_thread(_remove_files, source.directory)
        await source.storage.forget_volumes(source.home, id)
    with suppress(Problem):
        await table.remove(id)
    with suppress(Problem, OSError):
        source.directory.rmdir()
    if table.find(id) is None:
        table.context.events.publish("vm.deleted", id)


async def delete(id: str, table: VmTable, progress: Progress) -> None:
    """Take away what the record in phase `deleting` has. Raises `Problem`; can be done again."""
    found, context = table.get(id), table.context
    source, vm = Source(context.storage, context.network, id, found.root), found.value.definition
    async with progress.step("volumes"):
        if found.value.noted.keep_volumes:
            own = [disk for disk in vm.disks if not disk.volume]
            for disk in (*own, *stray_disks(source, vm)):
                await release_volume(source, vm, disk)
        for nic in vm.nics:
            await context.network.close_port(id, nic.name)
    async with progress.step("files"):
        await asyncio.to_thread(_remove_files, source.directory)
        await context.storage.forget_volumes(source.home, id)
        table.drivers[id].rundir.remove()
        await context.consoles.forget(id)
        if (group := context.group(id)) is not None:
            cgroup.delete(group)
    async with progress.step("record"):
        await table.remove(id)
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


def stray_disks(source: Source, vm: Definition) -> list[Disk]:
    """Own volumes that the record does not know: of a change that was cut off, or a guest that held on."""
    known = {disk.file for disk in vm.disks if not disk.volume}
    paths = sorted(source.directory.glob("[!.]*"))
    return [
        Disk(name=path.stem, format=DiskFormat(path.suffix[1:]))
        for path in paths
        if path.suffix[1:] in tuple(DiskFormat) and path.name not in known
    ]


async def release_volume(source: Source, vm: Definition, disk: Disk) -> str:
    """Make an own volume stand alone, as `datastore/VM-DISK`; its new name, empty when it went before."""
    return await source.storage.release_volume(source.home, source.id, disk.file, f"{vm.name}-{disk.name}")
