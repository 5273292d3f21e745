"""The whole disks of this host, with the names that do not move between boots: serial number and WWN."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

#: Devices that are no disks of their own.
_NOT = ("ram", "zram", "loop", "md", "dm-", "sr", "fd", "nbd")
_SYS = Path("/sys/block")


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """`device` is `/dev/sda`; `serial` and `wwn` are empty when it tells none. `partitions`: devices.

    `sector_bytes`: the smallest piece it reads or writes, 512 or 4096.
    """

    device: str
    size_bytes: int = 0
    sector_bytes: int = 512
    serial: str = ""
    wwn: str = ""
    model: str = ""
    removable: bool = False
    partitions: tuple[str, ...] = ()

    @property
    def lasting_name(self) -> str:
        """What a document calls it."""
        if self.serial:
            return f"serial:{self.serial}"
        return f"wwn:{self.wwn}" if self.wwn else self.device


def all_disks(sys: Path | None = None) -> tuple[Disk, ...]:
    """Every disk that has a medium, in the order of their names. `sys`: where the kernel tells of them."""
    found = []
    sys = sys or _SYS
    for entry in sorted(sys.iterdir()) if sys.is_dir() else ():
        size = _word(entry / "size")
        if entry.name.startswith(_NOT) or not size.isdigit() or size == "0":
            continue
        parts = sorted(path.parent.name for path in entry.glob(f"{entry.name}*/partition"))
        found.append(
            Disk(
                device=f"/dev/{entry.name}",
                size_bytes=int(size) * 512,
                sector_bytes=int(_word(entry / "queue" / "logical_block_size") or 512),
                serial=_serial(entry),
                wwn=_wwn(entry),
                model=_word(entry / "device" / "model"),
                removable=_word(entry / "removable") == "1",
                partitions=tuple(f"/dev/{name}" for name in parts),
            )
        )
    return tuple(found)


def normal(text: str) -> str:
    """A serial number or WWN as it is compared: blanks at its ends and case do not count."""
    return text.strip().lower().removeprefix("0x").removeprefix("naa.").removeprefix("eui.")


def resolve(text: str, disks: tuple[Disk, ...]) -> str:
    """The device that `text` names now: `serial:…`, `wwn:…`, or a path below /dev; empty when it is not here.

    Two disks that answer to one name are none: nothing is done to a disk that is not certain.
    """
    kind, colon, value = text.partition(":")
    if colon and kind in ("serial", "wwn"):
        found = [d.device for d in disks if normal(d.serial if kind == "serial" else d.wwn) == normal(value)]
        return found[0] if len(found) == 1 and normal(value) else ""
    return os.path.realpath(text) if text.startswith("/dev/") and Path(text).exists() else ""


def _serial(entry: Path) -> str:
    for place in (entry / "serial", entry / "device" / "serial"):
        if found := _word(place):
            return found
    try:
        page = (entry / "device" / "vpd_pg80").read_bytes()  # SCSI and SATA: SPC-4, unit serial number
    except OSError:
        return ""
    return _clean(page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace"))


def _wwn(entry: Path) -> str:
    found = _word(entry / "wwid") or _word(entry / "device" / "wwid")
    return normal(found) if re.fullmatch(r"(naa|eui)\.[0-9a-fA-F]+", found) else ""


def _word(path: Path) -> str:
    try:
        return _clean(path.read_text(errors="replace"))
    except OSError:
        return ""


def _clean(text: str) -> str:
    return "".join(mark for mark in text if mark.isprintable()).strip()
