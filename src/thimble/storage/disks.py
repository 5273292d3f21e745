"""Disks looked at, found again and given a file system. Changes nothing but in `make_file_system`."""

from __future__ import annotations

import asyncio

from thimble.contract.storage import DatastoreKind
from thimble.core.problem import Code, Problem
from thimble.medium.layout import DATA as DATA_PARTITION
from thimble.storage import plan
from thimble.storage.contents import HEAD, TAIL, Contents, identify
from thimble.storage.records import DatastoreRecord
from thimble.storage.rules import RESERVE
from thimble.sys import block, command


def device_facts(device: str) -> plan.DeviceFacts:
    """Look at a disk without changing it."""
    if not block.is_block(device):
        return plan.DeviceFacts(device=device, problem=f"{device} is not a disk of this host")
    try:
        size, head, tail = block.read_ends(device, HEAD, TAIL)
        return plan.DeviceFacts(
            device=device, size_bytes=size, contents=identify(head, tail), in_use=block.in_use(device)
        )
    except Problem as error:
        return plan.DeviceFacts(device=device, problem=error.detail)


def find_disk(record: DatastoreRecord) -> str:
    """The device that holds the file system now; names move between boots, UUIDs do not."""
    for device in [record.device, *block.names()]:
        try:
            contents = identify(block.read_ends(device, 4096, 0)[1], b"")
        except Problem:
            continue
        if contents != Contents() and contents.uuid == record.uuid:
            return device
    raise Problem(Code.UNAVAILABLE, f"the disk {record.device} (file system {record.uuid}) is missing")


def instead_of_state() -> DatastoreRecord:
    """Where `local` is to be when the state is too small: where an installation made room, or RAM."""
    for device in block.named(DATA_PARTITION):
        contents = device_facts(device).contents
        if contents.kind == "ext4":
            return DatastoreRecord(kind=DatastoreKind.DISK, device=device, uuid=contents.uuid)
    return DatastoreRecord(kind=DatastoreKind.RAM)


def reserved_percent(size: int) -> float:
    """What root alone may use, for `mkfs.ext4 -m`: guests that fill a disk, each with its own user, leave
    room for the records that it takes to stop and delete them."""
    return min(5.0, 100.0 * RESERVE / max(size, 1))


async def make_file_system(device: str, mkfs: str) -> None:
    """An ext4 of ours on the whole of `device`, whatever it held. Raises `Problem`."""
    size, _, _ = block.read_ends(device, 0, 0)
    await asyncio.to_thread(block.wipe_ends, device, HEAD)
    await command.run(
        [
            mkfs,
            "-q",
            "-F",
            "-m", f"{reserved_percent(size):.4f}",
            "-L", plan.LABEL,
            "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            device,
        ],
        timeout=600,
    )  # fmt: skip
