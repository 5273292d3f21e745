"""Disks as they were found, and what that means: ours or not, what would be lost, what can start it. Pure."""

from __future__ import annotations

import msgspec

from thimble.core.units import show_size
from thimble.medium import layout

LARGEST = "largest"
#: The partitions of every installation, in their order; one of data may follow.
OURS = (layout.GRUB, layout.BOOT, layout.DOCUMENT, layout.STATE)


class PartFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as found. `kind` as storage tells contents; `datastore`: one of ours, with things in it."""

    device: str
    name: str = ""
    start: int = 0
    size: int = 0
    kind: str = ""
    label: str = ""
    datastore: bool = False


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as found. `installed`: the build its boot partition starts, empty when it starts none."""

    device: str
    size_bytes: int = 0
    sector_bytes: int = 512
    serial: str = ""
    model: str = ""
    removable: bool = False
    in_use: bool = False
    kind: str = ""
    datastore: bool = False  # on the whole of it, without partitions
    parts: tuple[PartFacts, ...] = ()
    installed: str = ""
    problem: str = ""

    def words(self) -> str:
        named = ", ".join(
            word for word in (self.model, f"serial {self.serial}" if self.serial else "") if word
        )
        return f"{self.device} ({show_size(self.size_bytes)}{', ' + named if named else ''})"


def bios_starts(disk: DiskFacts) -> bool:
    """GRUB's first pieces count in sectors of 512 bytes, and so does nearly every BIOS."""
    return disk.sector_bytes == layout.SECTOR


def is_ours(disk: DiskFacts) -> bool:
    """Is it partitioned as an installation is?"""
    names = tuple(part.name for part in disk.parts)
    return names[:4] == OURS and names[4:] in ((), (layout.DATA,))


def is_complete(disk: DiskFacts) -> bool:
    """Its boot partition is made last: where that is none, an installation was cut short before."""
    return disk.parts[1].kind == "fat"


def holds_datastore(disk: DiskFacts) -> bool:
    return disk.datastore or any(part.datastore for part in disk.parts)


def contents(disk: DiskFacts) -> str:
    """What would be lost, in words; empty for a blank disk."""
    if not disk.parts:
        return disk.kind
    named = [
        " ".join(word for word in (part.name or part.label, part.kind and f"({part.kind})") if word)
        for part in disk.parts
    ]
    return f"{len(named)} partitions: " + ", ".join(name or "one without a name" for name in named)


def largest(disks: tuple[DiskFacts, ...], used: tuple[str, ...]) -> str:
    """The largest disk inside the machine that nobody uses; empty if there is none or two are alike."""
    free = [
        disk for disk in disks if not (disk.removable or disk.in_use or disk.problem or disk.device in used)
    ]
    size = max((disk.size_bytes for disk in free), default=0)
    best = sorted(disk.device for disk in free if disk.size_bytes == size)
    return best[0] if best else ""
