"""thimble.iso: for a CD drive, a BMC's virtual media, or a stick. Boots by UEFI and by BIOS.

    /efi.img          FAT, what UEFI starts: systemd-boot, keys to enrol if there are any, the UKI
    /thimble.efi      the UKI: the very same sectors, those inside efi.img
    /grub/bios.img    GRUB, what a BIOS starts; it reads kernel and initrd out of /thimble.efi
    /grub/grub.cfg

El Torito says in 16 bits how many sectors of 512 bytes to load: too few for the UKI. A count of 1 is taken
for "up to the disc's end", which Windows' own discs rely on, too. Reading the UKI through GRUB's ISO 9660
is no way out: under Secure Boot GRUB starts nothing that a shim has not checked.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from thimble.image import disk, loaders
from thimble.image.disk import DiskContents
from thimble.image.fault import fault
from thimble.image.pack import Packer
from thimble.medium import layout, loader
from thimble.medium.layout import MIB, Partition

_BLOCK = 2048
_ROOT_RECORD = 16 * _BLOCK + 156  # in the primary volume descriptor
_ROOM = 4 * MIB
_UKI = "EFI/Linux/thimble.efi"


def write(packer: Packer, contents: DiskContents, target: Path, scratch: Path) -> None:
    """Make thimble.iso."""
    tree = scratch / "iso"
    (tree / "grub").mkdir(parents=True)
    (tree / "grub/grub.cfg").write_text(_menu(contents))
    (tree / "thimble.efi").write_bytes(b"?")  # moved into efi.img below
    loaders.cd_bios(packer, tree / "grub/bios.img")
    _efi_image(packer, contents, tree / "efi.img", scratch)
    packer.run(
        *("xorriso", "-as", "mkisofs", "-quiet"),
        *("-r", "-V", layout.CD_LABEL),
        *("--set_all_file_dates", f"={packer.epoch}"),
        *("-b", "grub/bios.img", "-no-emul-boot", "-boot-load-size", "4"),
        *("-boot-info-table", "--grub2-boot-info"),
        *("--grub2-mbr", str(packer.box.path(f"{loaders.GRUB}/i386-pc/boot_hybrid.img"))),
        *("-efi-boot-part", "--efi-boot-image"),
        "-eltorito-alt-boot",
        *("-e", "efi.img", "-no-emul-boot"),
        *("-o", str(target), str(tree)),
        dated=True,
    )
    with target.open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as disc:
        _share(disc, contents.efi.read_bytes())
        _load_all(disc)


def _menu(contents: DiskContents) -> str:
    """The same ranges of the same file as a slot's, and no slot."""
    slot = loader.grub_slot("a", contents.uki, contents.command_line)
    lines = slot.replace(f"/{loader.slot_path('a')}", "/thimble.efi").replace(
        " thimble.slot=a $word $from", ""
    )
    return f"if serial --unit=0 --speed=115200; then terminal_output console serial; fi\n{lines}boot\n"


def _efi_image(packer: Packer, contents: DiskContents, target: Path, scratch: Path) -> None:
    """Clusters of a CD's block, so that a file in it begins on one."""
    size = -(-(contents.efi.stat().st_size + _ROOM) // MIB) * MIB
    with target.open("xb") as handle:
        handle.truncate(size)
    whole = Partition(name="efi", kind="", start=0, size=size)
    sectors = str(_BLOCK // layout.SECTOR)
    disk.make_fat(packer, target, whole, "-F", "16", "-s", sectors, label="THIMBLE-EFI", build=contents.build)
    files: dict[str, bytes | Path] = {
        "EFI/BOOT/BOOTX64.EFI": contents.loaders.systemd_boot,
        "loader/loader.conf": loader.loader_conf(enroll=bool(contents.keys)).encode(),
        _UKI: contents.efi,
    }
    disk.fill_fat(packer, target, 0, files | disk.keys_to_enrol(contents.keys), scratch)


def _share(disc: mmap.mmap, efi: bytes) -> None:
    """Let /thimble.efi be the sectors of efi.img that hold it."""
    at = disc.find(efi)
    if at < 0 or at % _BLOCK:
        raise fault("internal", "the UKI is fragmented on the CD, or not aligned to a block")
    record = _record(disc, b"THIMBLE.EFI;1")
    for offset, value in ((2, at // _BLOCK), (10, len(efi))):
        disc[record + offset : record + offset + 8] = struct.pack("<I", value) + struct.pack(">I", value)


def _load_all(disc: mmap.mmap) -> None:
    """Set the count of sectors in the catalog's UEFI entry, which follows validation, BIOS and a header."""
    (catalog,) = struct.unpack_from("<I", disc, 17 * _BLOCK + 0x47)
    entry = catalog * _BLOCK + 3 * 32
    if disc[entry - 32 : entry - 30] != b"\x91\xef" or disc[entry] != 0x88:
        raise fault("internal", "the CD's boot catalog is not laid out as expected")
    struct.pack_into("<H", disc, entry + 6, 1)


def _record(disc: mmap.mmap, name: bytes) -> int:
    """Where the root directory's record of a file is (ECMA-119, 9.1)."""
    start, length = (int(struct.unpack_from("<I", disc, _ROOT_RECORD + offset)[0]) for offset in (2, 10))
    at, end = start * _BLOCK, start * _BLOCK + length
    while at < end:
        if not disc[at]:  # records do not cross blocks
            at = (at // _BLOCK + 1) * _BLOCK
        elif disc[at + 33 : at + 33 + disc[at + 32]] == name:
            return at
        else:
            at += disc[at]
    raise fault("internal", f"the CD has no {name.decode()}")
