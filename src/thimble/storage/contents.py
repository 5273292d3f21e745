"""What a disk or partition holds already, told from its bytes. Pure, and on the safe side.

Whatever is not recognised but not blank either is `unknown data`: nothing is formatted over it unasked.
"""

from __future__ import annotations

import msgspec

#: How much of the start and of the end of a device is looked at.
HEAD = 1024 * 1024
TAIL = 64 * 1024

#: The file system label that says "a datastore of Thimble". The state partition has its own.
LABEL = "thimble-data"
STATE_LABEL = "thimble-state"

#: (offset, magic, name); the first that fits tells. See the file systems' own documentation and libblkid.
_MAGIC = (
    (0, b"XFSB", "xfs"),
    (65600, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS encryption"),
    (536, b"LVM2 001", "an LVM volume"),
    (24, b"LVM2 001", "an LVM volume"),
    (4096, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (0, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (54, b"FAT", "fat"),
    (82, b"FAT32", "fat"),
    (32769, b"CD001", "iso9660"),
    (4086, b"SWAPSPACE2", "swap"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1048576 - 4, b"\x0d\xd0\x01\xc0", "VMFS"),
    (512, b"EFI PART", "a GPT partition table"),
)


class Contents(msgspec.Struct, frozen=True):
    """`kind` is empty for a blank device. `label` and `uuid` are those of an ext4."""

    kind: str = ""
    label: str = ""
    uuid: str = ""


def identify(head: bytes, tail: bytes) -> Contents:
    """What `head` (the first bytes) and `tail` (the last ones) show."""
    ext = _ext(head)
    if ext is not None:
        return ext
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return Contents(name)
    if head[510:512] == b"\x55\xaa" and any(head[446:510]):
        return Contents("a partition table")
    if tail[-512:-504] == b"EFI PART":
        return Contents("the rest of a GPT partition table")
    if any(head) or any(tail):
        return Contents("unknown data")
    return Contents()


def _ext(head: bytes) -> Contents | None:
    block = head[1024:2048]
    if block[56:58] != b"\x53\xef":
        return None
    incompatible = int.from_bytes(block[96:100], "little")
    raw = block[104:120].hex()
    return Contents(
        "ext4" if incompatible & 0x40 else "ext2/3",  # extents
        block[120:136].split(b"\0")[0].decode(errors="replace"),
        "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])),
    )
