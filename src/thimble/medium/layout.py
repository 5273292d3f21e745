"""Where partitions begin, and how GRUB's two pieces find each other. Pure; sfdisk writes it."""

from __future__ import annotations

import struct

import msgspec

from thimble.core.problem import Code, Problem

SECTOR = 512
MIB = 1 << 20
GRUB, BOOT, DOCUMENT, STATE, DATA = (
    "thimble-grub",
    "thimble-boot",
    "thimble-doc",
    "thimble-state",
    "thimble-data",
)
BOOT_LABEL, DOCUMENT_LABEL = "THIMBLEBOOT", "THIMBLE"
CD_LABEL = "THIMBLE-CD"
_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_RAID = "A19D880F-05FC-4D3B-A006-743F0F84911E"
#: The MBR's code ends where the disk's signature begins.
MBR_CODE_BYTES = 440
_KERNEL_SECTOR = 0x5C  # boot.img: 64 bits, the sector where the core begins
_BLOCK_LIST = 0x1F4  # the core's first sector: 64 bits start, 16 bits length, 16 bits segment, of the rest
_SEGMENT = 0x820


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition, in bytes from the disk's beginning."""

    name: str
    kind: str
    start: int
    size: int


def partitions(
    *, boot_mib: int, state_mib: int, disk_bytes: int | None = None, raid: bool = False
) -> tuple[Partition, ...]:
    """The stick's four partitions; with `disk_bytes` the fifth as well, a datastore that takes the rest.

    Raises `Problem` INVALID when the disk is too small.
    """
    wanted = [
        (GRUB, _BIOS_BOOT, 1),
        (BOOT, _ESP, boot_mib),
        (DOCUMENT, _BASIC_DATA, 16),
        (STATE, _RAID if raid else _LINUX, state_mib),
    ]
    found, at = [], MIB
    for name, kind, mib in wanted:
        found.append(Partition(name=name, kind=kind, start=at, size=mib * MIB))
        at += mib * MIB
    if disk_bytes is not None:
        rest = (disk_bytes - at - MIB) // MIB * MIB
        if rest < 0:
            raise Problem(
                Code.INVALID,
                f"the disk is too small: it has {disk_bytes // MIB} MiB, and {at // MIB + 1} MiB are needed",
                hint="Take a bigger disk, or run from the stick.",
            )
        if rest >= 64 * MIB:
            found.append(Partition(name=DATA, kind=_LINUX, start=at, size=rest))
    return tuple(found)


def image_bytes(parts: tuple[Partition, ...]) -> int:
    """How long a disk with these partitions is; the last MiB holds the second GPT."""
    return parts[-1].start + parts[-1].size + MIB


def script(
    parts: tuple[Partition, ...], *, sector: int = SECTOR, disk: str = "", uuids: tuple[str, ...] = ()
) -> str:
    """For sfdisk(8), on a disk with sectors of so many bytes. `disk` and `uuids` fix GUIDs, else random."""
    lines = [
        "label: gpt",
        "unit: sectors",
        f"sector-size: {sector}",
        *([f"label-id: {disk}"] if disk else []),
    ]
    for number, part in enumerate(parts):
        words = [
            f"start={part.start // sector}",
            f"size={part.size // sector}",
            f"type={part.kind}",
            f'name="{part.name}"',
        ]
        lines.append(", ".join(words + ([f"uuid={uuids[number]}"] if uuids else [])))
    return "\n".join(lines) + "\n"


def mbr_code(boot_img: bytes, core_start: int) -> bytes:
    """The code of the MBR: GRUB's boot.img, which knows where its core is (as grub-bios-setup does it)."""
    code = bytearray(boot_img[:SECTOR])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_start // SECTOR)
    code[0x64] = 0xFF  # the drive it was started from, not a fixed one
    code[0x66:0x68] = b"\x90\x90"  # trust the BIOS in what drive that is
    return bytes(code[:MBR_CODE_BYTES])


def core(core_img: bytes, core_start: int) -> bytes:
    """GRUB's core, patched with the place of its rest; a whole number of sectors.

    Raises `Problem` INVALID when it does not fit into its partition.
    """
    whole = bytearray(core_img + bytes(-len(core_img) % SECTOR))
    if len(whole) > MIB:
        raise Problem(Code.INVALID, f"GRUB's core is too long: {len(whole)} bytes")
    struct.pack_into("<QHH", whole, _BLOCK_LIST, core_start // SECTOR + 1, len(whole) // SECTOR - 1, _SEGMENT)
    return bytes(whole)
