"""A small FAT12 file system in memory: what firmware, Linux, the BSDs and Windows all read. Pure.

    sector 0     boot sector with the BIOS parameter block
    1 …          FAT, twice
    then         root directory, 64 entries: label, long names, short names
    then         clusters of 2 KiB

Only flat, only read: enough for a seed (ECMA-107; long names after Microsoft's FAT specification 1.03).
"""

from __future__ import annotations

import struct

from thimble.core.problem import Code, Problem

SECTOR = 512
CLUSTER = 2048
_ROOT_ENTRIES = 64
_CLUSTERS_MAX = 4000  # FAT12 ends at 4084
_DATE = (1 << 5) | 1  # 1980-01-01: the same input gives the same bytes


def image(files: dict[str, bytes], *, label: str, serial: int = 0x7481B1E) -> bytes:
    """A file system holding `files` at its top. Raises `Problem` TOO_LARGE beyond 8 MB."""
    need = sum(_count(len(data), CLUSTER) for data in files.values())
    clusters = max(64, need)
    if clusters > _CLUSTERS_MAX:
        raise Problem(Code.TOO_LARGE, "the first-boot data is larger than 8 MB")
    fat_sectors = _count((clusters + 2) * 3, 2 * SECTOR)
    fat, directory, content = [0xFF8, 0xFFF], _entry(label.encode().ljust(11), 0x08, 0, 0), b""
    for n, (name, data) in enumerate(files.items()):
        first = len(fat) if data else 0
        count = _count(len(data), CLUSTER)
        fat += [*range(len(fat) + 1, len(fat) + count), 0xFFF] if count else []
        short = f"F{n:07}".encode() + b"   "
        directory += _long_name(name, short) + _entry(short, 0x01, first, len(data))
        content += data.ljust(count * CLUSTER, b"\0")
    table = _pack12(fat).ljust(fat_sectors * SECTOR, b"\0")
    head = _boot_sector(label, serial, clusters, fat_sectors)
    root = directory.ljust(_ROOT_ENTRIES * 32, b"\0")
    return head + table * 2 + root + content.ljust(clusters * CLUSTER, b"\0")


def _boot_sector(label: str, serial: int, clusters: int, fat_sectors: int) -> bytes:
    per = CLUSTER // SECTOR
    total = 1 + 2 * fat_sectors + _ROOT_ENTRIES * 32 // SECTOR + clusters * per
    head = struct.pack(
        "<3s8sHBHBHHBHHHLLBBBL11s8s",
        b"\xeb\x3c\x90", b"THIMBLE ", SECTOR, per, 1, 2, _ROOT_ENTRIES, total, 0xF8, fat_sectors,
        32, 2, 0, 0, 0x80, 0, 0x29, serial, label.encode().ljust(11), b"FAT12   ",
    )  # fmt: skip
    return head.ljust(510, b"\0") + b"\x55\xaa"


def _entry(short: bytes, attributes: int, first: int, size: int) -> bytes:
    return struct.pack("<11sBBBHHHHHHHL", short, attributes, 0, 0, 0, _DATE, _DATE, 0, 0, _DATE, first, size)


def _long_name(name: str, short: bytes) -> bytes:
    """Its entries, last part first; 13 UTF-16 units each."""
    checksum = 0
    for byte in short:
        checksum = ((checksum >> 1) | ((checksum & 1) << 7)) + byte & 0xFF
    units = name.encode("utf-16-le") + b"\0\0"
    parts = [units[at : at + 26] for at in range(0, len(name.encode("utf-16-le")), 26)]
    found = b""
    for number, part in reversed(list(enumerate(parts, 1))):
        text = part.ljust(26, b"\xff")
        order = number | (0x40 if number == len(parts) else 0)
        found += struct.pack("<B10sBBB12sH4s", order, text[:10], 0x0F, 0, checksum, text[10:22], 0, text[22:])
    return found


def _pack12(entries: list[int]) -> bytes:
    padded = [*entries, 0] if len(entries) % 2 else entries
    return b"".join(
        (low | high << 12).to_bytes(3, "little") for low, high in zip(padded[::2], padded[1::2], strict=True)
    )


def _count(size: int, unit: int) -> int:
    return (size + unit - 1) // unit
