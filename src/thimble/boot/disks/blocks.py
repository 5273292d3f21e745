"""What is on the block devices: one scan of all, one read each. Runs in job children only.

The result is plain data, as it crosses a pipe; what it means is decided elsewhere (statedisk.py, document.py,
../firmware.py), purely.
"""

from __future__ import annotations

import os

from ..devices.uevent import parse_lines
from . import superblock, volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class BlockDevice(TypedDict, total=False):
        """One device. `kind` is ext4, fat, iso9660, raid or nothing; `part` the name of the GPT partition."""

        device: str
        disk: str
        part: str
        kind: str
        label: str
        clean: int
        problem: str
        uuid: str
        members: int
        events: int
        place: int
        places: list[int]


_IGNORED = ("ram", "loop", "zram", "fd", "nbd", "mtdblock")


def find(*, discs: bool = False) -> list[BlockDevice]:
    """All block devices with a partition name or known content; slow CD drives only with `discs`."""
    found: list[BlockDevice] = []
    for name in sorted(os.listdir("/sys/class/block")):
        if not name.startswith(_IGNORED) and (discs or not name.startswith("sr")):
            seen = look(name)
            if seen is not None and (seen["kind"] or seen["part"]):
                found.append(seen)
    return found


def look(name: str) -> BlockDevice | None:
    """What this device holds; None if it cannot even be opened (no medium, gone).

    None too for a partition that begins where its disk does: the boot sector of a FAT over a whole disk may
    read as such a table, and one volume would be seen twice.
    """
    path = f"/sys/class/block/{name}"
    try:
        with open(f"{path}/uevent") as file:
            facts = parse_lines(file.read())
        if "PARTN" in facts:
            with open(f"{path}/start") as file:
                if file.read().strip() == "0":
                    return None
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    disk = os.path.basename(os.path.dirname(os.path.realpath(path))) if "PARTN" in facts else name
    seen: BlockDevice = {"device": f"/dev/{name}", "disk": f"/dev/{disk}", "part": facts.get("PARTNAME", "")}
    seen.update({"kind": "", "label": "", "clean": 0, "problem": ""})
    try:
        start = os.pread(fd, volume.SIZE, 0)
        seen.update(_contents(fd, start))
    except OSError as error:
        seen["problem"] = f"cannot be read: {error.strerror}"
    os.close(fd)
    return seen


def _contents(fd: int, start: bytes) -> BlockDevice:
    member = volume.raid(start)
    if member is not None:  # before ext4: an older file system may still show through
        return {
            "kind": "raid", "label": member.name, "uuid": member.uuid, "members": member.members,
            "events": member.events, "place": member.place, "places": member.places,
        }  # fmt: skip
    ext4 = superblock.parse(start[superblock.OFFSET : superblock.OFFSET + superblock.SIZE])
    if ext4 is not None:
        return {"kind": "ext4", "label": ext4.label, "clean": int(ext4.clean)}
    iso = volume.iso_label(start)
    if iso is not None:
        return {"kind": "iso9660", "label": iso}
    fat = volume.fat(start)
    if fat is not None:
        directory = os.pread(fd, fat.root_bytes, fat.root_offset)
        return {"kind": "fat", "label": volume.root_label(directory) or fat.label}
    return {}
