"""Recognises volumes by their first bytes: FAT and ISO9660 labels, RAID members. Pure.

Layouts: Microsoft's FAT specification (fatgen103), ECMA-119, and struct mdp_superblock_1 of Linux'
include/uapi/linux/raid/md_p.h. ext4 is in superblock.py.
"""

from __future__ import annotations

# One read of this many bytes from the start of a volume is enough for all but a FAT's root directory.
SIZE = 36864

_ISO = 32768
_RAID, _RAID_MAGIC = 4096, 0xA92B4EFC
_ROOT_BYTES = 65536
_NOT_A_PLACE = 0xFFF0  # roles from here on: spare, faulty, journal


class Fat:
    """A FAT: its label by the boot sector, and where its root directory lies, which may have another."""

    __slots__ = ("label", "root_bytes", "root_offset")

    def __init__(self, label: str, root_offset: int, root_bytes: int) -> None:
        self.label, self.root_offset, self.root_bytes = label, root_offset, root_bytes


def fat(start: bytes) -> Fat | None:
    """The FAT12, FAT16 or FAT32 that begins with these bytes."""
    if len(start) < 512 or start[510:512] != b"\x55\xaa":
        return None
    sector, cluster, reserved, copies = _number(start, 11, 2), start[13], _number(start, 14, 2), start[16]
    if sector not in (512, 1024, 2048, 4096) or not reserved or copies not in (1, 2) or start[21] < 0xF0:
        return None
    if not cluster or cluster & (cluster - 1):
        return None
    old, entries = _number(start, 22, 2), _number(start, 17, 2)
    if old:  # FAT12 and FAT16: the root directory has its own place
        label = start[43:54] if start[38] == 0x29 else b""
        return Fat(_text(label), (reserved + copies * old) * sector, min(entries * 32, _ROOT_BYTES))
    label = start[71:82] if start[66] == 0x29 else b""
    data = reserved + copies * _number(start, 36, 4)
    first = data + (_number(start, 44, 4) - 2) * cluster
    return Fat(_text(label), first * sector, min(cluster * sector, _ROOT_BYTES))


def root_label(directory: bytes) -> str:
    """The label in a FAT's root directory, where Windows puts it; nothing if there is none."""
    for at in range(0, len(directory) - 31, 32):
        entry = directory[at : at + 32]
        if entry[0] == 0:
            break
        if entry[0] != 0xE5 and entry[11] & 0x1F == 0x08:
            return _text(entry[:11])
    return ""


def iso_label(start: bytes) -> str | None:
    """The volume id of an ISO9660; None if it is none."""
    block = start[_ISO : _ISO + 72]
    return _text(block[40:72]) if len(block) == 72 and block[:6] == b"\x01CD001" else None


class RaidMember:
    """A member of a RAID set, as its own superblock (format 1.2) sees it.

    `place` is its role in the set, -1 if it has none; `places` are the members it believes to be in sync.
    """

    __slots__ = ("events", "members", "name", "place", "places", "uuid")

    def __init__(
        self, uuid: str, name: str, members: int, events: int, place: int, places: list[int]
    ) -> None:
        self.uuid, self.name, self.members, self.events = uuid, name, members, events
        self.place, self.places = place, places


def raid(start: bytes) -> RaidMember | None:
    """The RAID member that begins with these bytes; None if it is none, or its superblock is damaged."""
    block = start[_RAID : _RAID + 4096]
    if len(block) < 512 or _number(block, 0, 4) != _RAID_MAGIC or _number(block, 4, 4) != 1:
        return None
    count, number = _number(block, 220, 4), _number(block, 160, 4)
    if not 0 < count <= 1920 or raid_checksum(block[: 256 + 2 * count]) != _number(block, 216, 4):
        return None
    roles = [_number(block, 256 + 2 * at, 2) for at in range(count)]
    place = roles[number] if number < count and roles[number] < _NOT_A_PLACE else -1
    name = block[32:64].split(b"\0", 1)[0].decode("utf-8", "replace").rpartition(":")[2]
    return RaidMember(
        uuid=block[16:32].hex(),
        name=name,
        members=_number(block, 92, 4),
        events=_number(block, 200, 8),
        place=place,
        places=sorted(role for role in roles if role < _NOT_A_PLACE),
    )


def raid_checksum(block: bytes) -> int:
    """The sum over a superblock and its roles, the checksum's own four bytes counting as nothing."""
    whole = block[:216] + bytes(4) + block[220:]
    whole += bytes(-len(whole) % 4)
    total = sum(_number(whole, at, 4) for at in range(0, len(whole), 4))
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace").rstrip(" ")
