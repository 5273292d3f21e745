"""Block devices as /sys shows them: sizes, names, which disk, which array. Reads no disk."""

from __future__ import annotations

import os
from pathlib import Path

from thimble.deploy.disk_facts import PartFacts
from thimble.medium import layout


def size_of(partition: str) -> int:
    """Bytes; 0 when it is no block device."""
    entry = Path("/sys/class/block", Path(partition).name, "size")
    return int(entry.read_text()) * layout.SECTOR if entry.exists() else 0


def part_uuid(partition: str) -> str:
    """The GPT's name for it; empty when the kernel does not know."""
    return _uevent(Path("/sys/class/block", Path(partition).name)).get("PARTUUID", "")


def members(device: str) -> tuple[str, ...]:
    """The partitions below the array `device`; none when it is no array."""
    below = Path("/sys/class/block") / Path(os.path.realpath(device)).name / "slaves"
    return tuple(f"/dev/{entry.name}" for entry in sorted(below.iterdir())) if below.is_dir() else ()


def disk_of(partition: str) -> str:
    """The disk a partition is on; a disk itself is its own."""
    entry = Path(os.path.realpath(Path("/sys/class/block") / Path(partition).name))
    return f"/dev/{entry.parent.name}" if (entry / "partition").exists() else partition


def boot_partition(disk: str) -> str:
    """The partition of `disk` with the slots; empty if it has none."""
    for part in partitions(disk):
        if part.name == layout.BOOT:
            return part.device
    return ""


def partitions(disk: str) -> tuple[PartFacts, ...]:
    """Of `disk`, in the order of their places; what is on them is not known yet."""
    found = []
    for entry in Path("/sys/class/block", Path(disk).name).glob(f"{Path(disk).name}*"):
        if (entry / "partition").exists():
            found.append(
                PartFacts(
                    device=f"/dev/{entry.name}",
                    name=_uevent(entry).get("PARTNAME", ""),
                    start=int((entry / "start").read_text()) * layout.SECTOR,
                    size=int((entry / "size").read_text()) * layout.SECTOR,
                )
            )
    return tuple(sorted(found, key=lambda part: part.start))


def _uevent(entry: Path) -> dict[str, str]:
    try:
        lines = (line.partition("=") for line in (entry / "uevent").read_text().splitlines())
    except OSError:
        return {}
    return {key: value for key, _, value in lines}
