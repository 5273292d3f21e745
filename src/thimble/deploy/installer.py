"""Puts Thimble on disks, as `plan` decided; and joins a disk to a running installation as its mirror.

    wipe ▸ partitions ▸ data ▸ document ▸ state ▸ boot ▸ loader
                                                  └ its UEFI loader comes last; then GRUB, for a BIOS

Until the last of it nothing starts from the new disk, and the medium we run from is as it was.
"""

from __future__ import annotations

import asyncio

from thimble.deploy import esp, partitions, slots, state_array
from thimble.deploy.boot_files import Delete, Op, Put
from thimble.deploy.devices import Device, Devices
from thimble.deploy.esp import SlotImage
from thimble.deploy.image import BootImage, loaders
from thimble.deploy.mounts import Mounts
from thimble.deploy.plan import Fresh, InstallPlan, Renew, Target
from thimble.deploy.state_array import Carried
from thimble.host.pid1 import BootFacts
from thimble.medium import layout, loader
from thimble.state.tasks import Progress
from thimble.storage import disks as stores
from thimble.sys import block

SLOT = "a"
_README = (
    "This partition is for you. Put a host document here, thimble.toml: it is applied at the next start.\n"
)


class Installer:
    def __init__(self, carried: Carried, devices: Devices, mounts: Mounts) -> None:
        self._carried = carried
        self._devices = devices
        self._mounts = mounts

    async def install(self, wanted: InstallPlan, image: BootImage, progress: Progress) -> None:
        """All targets; the first one carries the state. Raises `Problem`."""
        boot_loaders = await asyncio.to_thread(loaders, image)
        progress.committed()
        first = wanted.targets[0]
        await self._disks(wanted.targets, progress)
        async with progress.step("state"):
            if not (isinstance(first, Renew) and first.keep_state):
                await state_array.make(wanted.targets, self._carried, self._mounts)
        source = {loader.slot_path(SLOT): SlotImage(path=image.path, sha256=image.sha256)}
        ops = slots.fresh(image.manifest, image.menu(SLOT), systemd_boot=boot_loaders.systemd_boot, slot=SLOT)
        for target in wanted.targets:
            async with progress.step("boot"):
                await self._boot(target, ops, source, progress)
            async with progress.step("loader"):
                await asyncio.to_thread(partitions.write_bios_loader, target, boot_loaders)

    async def join(self, wanted: InstallPlan, boot: BootFacts, image: BootImage, progress: Progress) -> None:
        """The targets become mirrors of the installation we run from. Raises `Problem`."""
        from thimble.sys import raid

        boot_loaders = await asyncio.to_thread(loaders, image)
        progress.committed()
        await self._disks(wanted.targets, progress)
        truth = self._devices.first(boot)
        state = self._devices.array()
        await asyncio.to_thread(state_array.drop_faulty, state)
        for target in wanted.targets:
            async with progress.step("state"):
                await asyncio.to_thread(raid.join, state, partitions.find(target, layout.STATE))
            other = Device(disk=target.disk.device, esp=partitions.find(target, layout.BOOT))
            async with progress.step("boot"):
                await partitions.make_fat(other.esp, layout.BOOT_LABEL, 32)
                await asyncio.to_thread(self._devices.follow, truth, other)
            async with progress.step("loader"):
                await asyncio.to_thread(partitions.write_bios_loader, target, boot_loaders)

    async def _disks(self, targets: tuple[Target, ...], progress: Progress) -> None:
        """New partitions where wanted, with all that is on them but state and boot partition."""
        for target in targets:
            if not isinstance(target, Fresh):
                continue
            async with progress.step("wipe"):
                await asyncio.to_thread(block.wipe_ends, target.disk.device, partitions.EDGE)
            async with progress.step("partitions"):
                await partitions.make(target)
            async with progress.step("data"):
                if data := partitions.find(target, layout.DATA):
                    await stores.make_file_system(data, "mkfs.ext4")
            async with progress.step("document"):
                await self._document(partitions.find(target, layout.DOCUMENT), target.disk.sector_bytes)

    async def _document(self, device: str, sector_bytes: int) -> None:
        """Its own small FAT, with the document this boot was made with, if any."""
        # With big sectors there are too few of them for a FAT16.
        bits = 16 if sector_bytes == layout.SECTOR else 12
        await partitions.make_fat(device, layout.DOCUMENT_LABEL, bits)
        found = self._carried.run / "document" / "thimble.toml"

        def write() -> None:
            ops = [Put(path="README.txt", data=_README.encode())]
            if found.is_file():
                ops.append(Put(path="thimble.toml", data=found.read_bytes()))
            with self._mounts.mounted(device, write=True) as root:
                esp.apply(root, tuple(ops))

        await asyncio.to_thread(write)

    async def _boot(
        self, target: Target, ops: tuple[Op, ...], source: dict[str, SlotImage], progress: Progress
    ) -> None:
        """The boot partition anew. What was on it goes first, its loader before all else."""
        device = partitions.find(target, layout.BOOT)
        if isinstance(target, Fresh):
            await partitions.make_fat(device, layout.BOOT_LABEL, 32)
        loop = asyncio.get_running_loop()

        def part(fraction: float) -> None:
            loop.call_soon_threadsafe(progress.at, 0.2 + 0.75 * fraction)

        def write() -> None:
            with self._mounts.mounted(device, write=True) as root:
                old = esp.read(root)
                gone = tuple(Delete(path=path) for path in sorted(old.files, key=_loader_first))
                esp.apply(root, gone + ops, images=source, progress=part, passed=progress.reached)

        await asyncio.to_thread(write)


def _loader_first(path: str) -> tuple[bool, bool, str]:
    return (not path.startswith("EFI/"), not path.startswith("loader/"), path)
