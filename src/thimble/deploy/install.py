"""Puts Thimble on disks, as `plan` decided; and joins a disk to a running installation as its mirror.

    wipe ▸ partitions ▸ data ▸ state ▸ document ▸ boot ▸ loader
                                                  └ its UEFI loader comes last; then GRUB, for a BIOS

Until the last of it nothing starts from the new disk, and the medium we run from is as it was. An array for
the state is made even for one disk: a mirror joins it later.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreKind
from thimble.core.problem import Code, Problem
from thimble.core.units import MIB
from thimble.deploy import esp, plan, probe, slots
from thimble.deploy.devices import Device, Devices
from thimble.deploy.esp import Source
from thimble.deploy.image import Image, Loaders, loaders
from thimble.deploy.plan import Fresh, InstallPlan, Renew, Target
from thimble.host.pid1 import BootFacts
from thimble.medium import layout, loader
from thimble.state.store import render
from thimble.state.tasks import Progress
from thimble.storage import disks as stores
from thimble.storage import homes
from thimble.storage.contents import HEAD, identify
from thimble.storage.records import DATASTORE_UPGRADES, DatastoreRecord
from thimble.sys import block, command, files, log, mount

SLOT = "a"
_EDGE = MIB
_NODES_S = 15.0
_SYNC_S = 600.0
_ARRAY = "md_install"  # for the time of the installation; PID 1 calls it md_state
#: Of the state directory: what is not carried over.
_NOT_STATE = ("datastores", "lost+found", "deploy")
_README = (
    "This partition is for you. Put a host document here, thimble.toml: it is applied at the next start.\n"
)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What is carried over: the state directory, the document of this boot, names of datastores in use."""

    state: Path
    run: Path
    taken: tuple[str, ...]


class Installer:
    def __init__(self, host: Host, devices: Devices) -> None:
        self._host = host
        self._devices = devices

    async def install(self, wanted: InstallPlan, image: Image, progress: Progress) -> None:
        """All targets; the first one carries the state. Raises `Problem`."""
        carried = await asyncio.to_thread(loaders, image)
        progress.committed()
        first = wanted.targets[0]
        await self._disks(wanted.targets, progress)
        async with progress.step("state"):
            if not (isinstance(first, Renew) and first.keep_state):
                await self._state(wanted.targets)
        source = {loader.slot_path(SLOT): Source(path=image.path, sha256=image.sha256)}
        ops = slots.fresh(image.manifest, image.menu(SLOT), systemd_boot=carried.systemd_boot, slot=SLOT)
        for target in wanted.targets:
            async with progress.step("boot"):
                await self._boot(target, ops, source, progress)
            async with progress.step("loader"):
                await asyncio.to_thread(_bios, target, carried)

    async def join(self, wanted: InstallPlan, boot: BootFacts, image: Image, progress: Progress) -> None:
        """The targets become mirrors of the installation we run from."""
        from thimble.sys import raid

        carried = await asyncio.to_thread(loaders, image)
        progress.committed()
        await self._disks(wanted.targets, progress)
        truth = self._devices.first(boot)
        state = self._devices.array()
        await asyncio.to_thread(_drop_faulty, state)
        for target in wanted.targets:
            async with progress.step("state"):
                await asyncio.to_thread(raid.join, state, _part(target, layout.STATE))
            other = Device(disk=target.disk.device, esp=_part(target, layout.BOOT))
            async with progress.step("boot"):
                await self._make_fat(other.esp, layout.BOOT_LABEL, 32)
                await asyncio.to_thread(self._devices.follow, truth, other)
            async with progress.step("loader"):
                await asyncio.to_thread(_bios, target, carried)

    async def _disks(self, targets: tuple[Target, ...], progress: Progress) -> None:
        """New partitions where wanted, with all that is on them but state and boot partition."""
        for target in targets:
            if not isinstance(target, Fresh):
                continue
            device = target.disk.device
            async with progress.step("wipe"):
                await asyncio.to_thread(block.wipe_ends, device, _EDGE)
            async with progress.step("partitions"):
                await self._partition(target)
            async with progress.step("data"):
                if len(target.parts) > 4:
                    await stores.make_file_system(_part(target, layout.DATA), "mkfs.ext4")
            async with progress.step("document"):
                await self._document(_part(target, layout.DOCUMENT), target.disk.sector_bytes)

    async def _partition(self, target: Fresh) -> None:
        device = target.disk.device
        table = layout.script(target.parts, sector=target.disk.sector_bytes)
        argv = ["sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", device]
        await command.run(argv, stdin=table.encode(), timeout=120)
        deadline = time.monotonic() + _NODES_S
        while not all(block.is_block(_name(device, n + 1)) for n in range(len(target.parts))):
            if time.monotonic() > deadline:
                raise Problem(Code.TIMEOUT, f"the new partitions of {device} do not appear")
            await asyncio.sleep(0.1)
        for number in range(len(target.parts)):
            await asyncio.to_thread(block.wipe_ends, _name(device, number + 1), _EDGE)

    async def _make_fat(self, device: str, label: str, bits: int) -> None:
        await command.run(["mkfs.vfat", "-F", str(bits), "-n", label, device], timeout=120)

    async def _document(self, device: str, sector_bytes: int) -> None:
        """Its own small FAT, with the document this boot was made with, if any."""
        # With big sectors there are too few of them for a FAT16.
        await self._make_fat(device, layout.DOCUMENT_LABEL, 16 if sector_bytes == layout.SECTOR else 12)
        found = self._host.run / "document" / "thimble.toml"
        ops = [slots.Put(path="README.txt", data=_README.encode())]
        if found.is_file():
            ops.append(slots.Put(path="thimble.toml", data=found.read_bytes()))

        def write() -> None:
            with esp.mounted(device, self._host.run, write=True) as root:
                esp.apply(root, tuple(ops))

        await asyncio.to_thread(write)

    async def _state(self, targets: tuple[Target, ...]) -> None:
        """An array with a file system, and this host's state on it."""
        from thimble.sys import raid

        first, *others = [_part(target, layout.STATE) for target in targets]
        size = probe.size_of(first)
        array = await asyncio.to_thread(raid.create, first, _ARRAY)
        try:
            await command.run(
                ["mkfs.ext4", "-q", "-F", "-L", layout.STATE,
                 "-m", f"{stores.reserved_percent(size):.4f}", "-E", "lazy_itable_init=1,nodiscard", array],
                timeout=300,
            )  # fmt: skip
            await asyncio.to_thread(self._carry, array, targets)
            for other in others:
                await asyncio.to_thread(raid.join, array, other)
            await _in_step(array)
        finally:
            await asyncio.to_thread(raid.stop, array)

    def _carry(self, array: str, targets: tuple[Target, ...]) -> None:
        """Copy the state and name the new datastores in it."""
        import shutil

        place = self._host.run / "deploy" / "state"
        mount.mount(array, place, "ext4", flags=mount.NOSUID | mount.NODEV | mount.NOATIME)
        try:
            for entry in sorted(self._host.state.iterdir()):
                if entry.name in _NOT_STATE:
                    continue
                if entry.is_dir():
                    shutil.copytree(entry, place / entry.name, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copy2(entry, place / entry.name)
            place.chmod(0o755)
            self._name_datastores(place, targets)
            os.sync()
        except OSError as error:
            raise files.problem(error, "cannot copy the state") from error
        finally:
            mount.unmount(place)

    def _name_datastores(self, place: Path, targets: tuple[Target, ...]) -> None:
        taken = set(self._host.taken)
        for number, target in enumerate(targets):
            device = _part(target, layout.DATA, missing="")
            if not device:
                continue
            name = next(name for name in _names() if name not in taken)
            taken.add(name)
            contents = identify(block.read_ends(device, HEAD, 0)[1], b"")
            record = DatastoreRecord(
                kind=DatastoreKind.DISK, device=device, uuid=contents.uuid, default=number == 0
            )
            files.write_atomic(
                homes.datastore_record(place, name), render(record, format=len(DATASTORE_UPGRADES) + 1)
            )

    async def _boot(
        self,
        target: Target,
        ops: tuple[slots.Op, ...],
        source: dict[str, Source],
        progress: Progress,
    ) -> None:
        device = _part(target, layout.BOOT)
        if isinstance(target, Fresh):
            await self._make_fat(device, layout.BOOT_LABEL, 32)
        loop = asyncio.get_running_loop()

        def tell(fraction: float) -> None:
            loop.call_soon_threadsafe(progress.at, 0.2 + 0.75 * fraction)

        def write() -> None:
            with esp.mounted(device, self._host.run, write=True) as root:
                old = esp.read(root)
                gone = tuple(slots.Delete(path=path) for path in sorted(old.files, key=_first_the_loader))
                esp.apply(root, gone + ops, images=source, progress=tell, passed=progress.reached)

        await asyncio.to_thread(write)


def _drop_faulty(array: str) -> None:
    """Make room for the disk that comes in the place of one that failed."""
    from thimble.sys import raid

    for member in raid.status(array).members:
        if "faulty" in member.state:
            raid.leave(array, member.device)


async def _in_step(array: str) -> None:
    """Wait for a mirror to be as good as the first disk; a slow one goes on after the next start."""
    from thimble.sys import raid

    deadline = time.monotonic() + _SYNC_S
    while not raid.status(array).whole:
        if time.monotonic() > deadline:
            log.say("install: the mirror is not in step yet; the installed host goes on with that")
            return
        await asyncio.sleep(0.5)


def _bios(target: Target, carried: Loaders) -> None:
    """GRUB's core, then the code in the first sector that leads to it. Raises `Problem`."""
    if not plan.bios_starts(target.disk):
        return
    start = _start(target)
    core = layout.core(carried.core_img, start)
    code = layout.mbr_code(carried.boot_img, start)
    try:
        _overwrite(_part(target, layout.GRUB), core)
        _overwrite(target.disk.device, code)
    except OSError as error:
        raise files.problem(error, f"cannot write the loader of {target.disk.device}") from error


def _overwrite(device: str, data: bytes) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _part(target: Target, name: str, missing: str | None = None) -> str:
    """The device of the partition so named."""
    if isinstance(target, Renew):
        found = [part.device for part in target.disk.parts if part.name == name]
    else:
        found = [_name(target.disk.device, n + 1) for n, p in enumerate(target.parts) if p.name == name]
    if not found and missing is not None:
        return missing
    return found[0]


def _start(target: Target) -> int:
    parts = target.disk.parts if isinstance(target, Renew) else target.parts
    return next(part.start for part in parts if part.name == layout.GRUB)


def _name(disk: str, number: int) -> str:
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def _first_the_loader(path: str) -> tuple[bool, bool, str]:
    return (not path.startswith("EFI/"), not path.startswith("loader/"), path)


def _names() -> Iterator[str]:
    yield "data"
    number = 2
    while True:
        yield f"data{number}"
        number += 1
