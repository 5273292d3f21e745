"""The partitions of a disk that is installed on: made, named, and the boot code for a BIOS on them."""

from __future__ import annotations

import asyncio
import os

from thimble.core.problem import Code, Problem
from thimble.core.units import MIB
from thimble.deploy.disk_facts import bios_starts
from thimble.deploy.image import Loaders
from thimble.deploy.plan import Fresh, Renew, Target
from thimble.medium import layout
from thimble.sys import block, command, files

#: Bytes at both ends of a disk or partition where old signatures are.
EDGE = MIB
_NODES_S = 15.0
_PAUSE_S = 0.1


async def make(target: Fresh) -> None:
    """Partition the disk anew; nothing of what was there is found in them. Raises `Problem`."""
    device, count = target.disk.device, len(target.parts)
    table = layout.script(target.parts, sector=target.disk.sector_bytes)
    argv = ["sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", device]
    await command.run(argv, stdin=table.encode(), timeout=120)
    clock = asyncio.get_running_loop().time
    deadline = clock() + _NODES_S
    while not all(block.is_block(name(device, n + 1)) for n in range(count)):
        if clock() > deadline:
            raise Problem(Code.TIMEOUT, f"the new partitions of {device} do not appear")
        await asyncio.sleep(_PAUSE_S)
    for number in range(count):
        await asyncio.to_thread(block.wipe_ends, name(device, number + 1), EDGE)


async def make_fat(device: str, label: str, bits: int) -> None:
    """An empty FAT of `bits` 12, 16 or 32. Raises `Problem`."""
    await command.run(["mkfs.vfat", "-F", str(bits), "-n", label, device], timeout=120)


def find(target: Target, label: str) -> str:
    """The device of the partition so named; empty when the disk has none."""
    if isinstance(target, Renew):
        found = [part.device for part in target.disk.parts if part.name == label]
    else:
        found = [name(target.disk.device, n + 1) for n, p in enumerate(target.parts) if p.name == label]
    return found[0] if found else ""


def name(disk: str, number: int) -> str:
    """The device of a partition, by its number from 1."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def write_bios_loader(target: Target, carried: Loaders) -> None:
    """GRUB's core, then the code in the first sector that leads to it. Raises `Problem`."""
    if not bios_starts(target.disk):
        return
    parts = target.disk.parts if isinstance(target, Renew) else target.parts
    start = next(part.start for part in parts if part.name == layout.GRUB)
    core = layout.core(carried.core_img, start)
    code = layout.mbr_code(carried.boot_img, start)
    try:
        _overwrite(find(target, layout.GRUB), core)
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
