"""Disks looked at, found again and given a file system. Changes nothing but in `make_file_system`.

All but that waits for the disk it looks at: for threads.
"""

from __future__ import annotations

import threading

import msgspec

from thimble.contract.storage import DatastoreKind
from thimble.core.problem import Code, Problem
from thimble.medium.layout import DATA as DATA_PARTITION
from thimble.storage.contents import HEAD, LABEL, TAIL, Contents, identify
from thimble.storage.records import DatastoreRecord
from thimble.storage.rules import RESERVE
from thimble.sys import block, command
from thimble.sys.worker import Worker

#: Seconds that a disk has to show what is on it, when one of several is looked for.
ANSWER_S = 5.0


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as found. `problem` says why it cannot even be looked at."""

    device: str
    size_bytes: int = 0
    contents: Contents = Contents()
    in_use: bool = False
    problem: str = ""


def device_facts(device: str) -> DeviceFacts:
    """Look at a disk without changing it."""
    if not block.is_block(device):
        return DeviceFacts(device=device, problem=f"{device} is not a disk of this host")
    try:
        size, head, tail = block.read_ends(device, HEAD, TAIL)
        return DeviceFacts(
            device=device, size_bytes=size, contents=identify(head, tail), in_use=block.in_use(device)
        )
    except Problem as error:
        return DeviceFacts(device=device, problem=error.detail)


def find_disk(record: DatastoreRecord) -> str:
    """The device that holds the file system now; names move between boots, UUIDs do not.

    A disk that does not answer is passed over: it may be another datastore's.
    """
    for device in [record.device, *block.names()]:
        if record.uuid and _uuid(device) == record.uuid:
            return device
    raise Problem(Code.UNAVAILABLE, f"the disk {record.device} (file system {record.uuid}) is missing")


def _uuid(device: str) -> str:
    """Of the file system on it; empty when it has none, or does not answer."""
    found: list[str] = []

    def look() -> None:
        try:
            found.append(identify(block.read_ends(device, 4096, 0)[1], b"").uuid)
        except Problem:
            pass

    looking = threading.Thread(target=look, name=f"disk {device}", daemon=True)
    looking.start()
    looking.join(ANSWER_S)
    return found[0] if found else ""


def instead_of_state() -> DatastoreRecord | None:
    """A datastore where an installation made room for one; None when it made none."""
    for device in block.named(DATA_PARTITION):
        contents = device_facts(device).contents
        if contents.kind == "ext4":
            return DatastoreRecord(kind=DatastoreKind.DISK, device=device, uuid=contents.uuid)
    return None


def reserved_percent(size: int) -> float:
    """What root alone may use, for `mkfs.ext4 -m`: guests that fill a disk, each with its own user, leave
    room for the records that it takes to stop and delete them."""
    return min(5.0, 100.0 * RESERVE / max(size, 1))


async def make_file_system(device: str, mkfs: str) -> None:
    """An ext4 of ours on the whole of `device`, whatever it held. Raises `Problem`."""
    worker = Worker(f"disk {device}")
    size, _, _ = await worker.run(lambda: block.read_ends(device, 0, 0))
    await worker.run(lambda: block.wipe_ends(device, HEAD))
    await command.run(
        [
            mkfs,
            "-q",
            "-F",
            "-m", f"{reserved_percent(size):.4f}",
            "-L", LABEL,
            "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            device,
        ],
        timeout=600,
    )  # fmt: skip
