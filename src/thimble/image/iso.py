"""thimble.iso: for a CD drive, a BMC's virtual media, or a stick. Boots by UEFI and by BIOS.

    /thimble.efi      the UKI                   /grub/bios.img    El Torito, for BIOS: GRUB
    /grub/grub.cfg    how BIOS starts it        partition 2       El Torito and GPT, for UEFI: a FAT of 4 MiB

The FAT holds GRUB, because UEFI cannot read ISO 9660 and an El Torito image may not be as long as the UKI.
With keys, it holds systemd-boot in front of that, which puts them into a firmware that is in setup mode.
"""

from __future__ import annotations

import os
from pathlib import Path

from thimble.image import disk, loaders
from thimble.image.disk import Contents
from thimble.image.pack import Packer
from thimble.medium import layout, loader
from thimble.medium.layout import Partition

_EFI_BYTES = 4 << 20
_ENTRY = "title Thimble (CD)\nsort-key thimble\nefi /EFI/thimble/grubx64.efi\n"
_UEFI_SCRIPT = f"""search --no-floppy --set=root --label {layout.CD_LABEL}
chainloader /thimble.efi
boot
echo The firmware did not start /thimble.efi of this disc.
sleep 10
exit
"""


def write(packer: Packer, contents: Contents, grub: Path, target: Path, scratch: Path) -> None:
    """Make thimble.iso; `grub` is the GRUB of `loaders.cd_uefi`, signed or not."""
    tree = scratch / "iso"
    (tree / "grub").mkdir(parents=True)
    _place(contents.efi, tree / "thimble.efi")
    (tree / "grub/grub.cfg").write_text(_bios_menu(contents))
    loaders.cd_bios(packer, tree / "grub/bios.img")
    efi = scratch / "efi.img"
    _efi_partition(packer, contents, grub, efi, scratch)
    packer.run(
        *("xorriso", "-as", "mkisofs", "-quiet"),
        *("-r", "-V", layout.CD_LABEL),
        *("--set_all_file_dates", f"={packer.epoch}"),
        *("-b", "grub/bios.img", "-no-emul-boot", "-boot-load-size", "4"),
        *("-boot-info-table", "--grub2-boot-info"),
        *("--grub2-mbr", str(packer.box.path(f"{loaders.GRUB}/i386-pc/boot_hybrid.img"))),
        *("-append_partition", "2", "0xef", str(efi), "-appended_part_as_gpt"),
        "-eltorito-alt-boot",
        *("-e", "--interval:appended_partition_2:all::", "-no-emul-boot"),
        *("-o", str(target), str(tree)),
        dated=True,
    )


def grub_for_uefi(packer: Packer, target: Path, scratch: Path) -> None:
    """The GRUB that UEFI starts from a CD."""
    config = scratch / "uefi.cfg"
    config.write_text(_UEFI_SCRIPT)
    loaders.cd_uefi(packer, config, target)


def _bios_menu(contents: Contents) -> str:
    """The same ranges of the same file as a slot's, and no slot."""
    slot = loader.grub_slot("a", contents.uki, contents.command_line)
    lines = slot.replace(f"/{loader.slot_path('a')}", "/thimble.efi").replace(" thimble.slot=a $word", "")
    return f"if serial --unit=0 --speed=115200; then terminal_output console serial; fi\n{lines}boot\n"


def _efi_partition(packer: Packer, contents: Contents, grub: Path, target: Path, scratch: Path) -> None:
    with target.open("xb") as handle:
        handle.truncate(_EFI_BYTES)
    whole = Partition(name="efi", kind="", start=0, size=_EFI_BYTES)
    disk.make_fat(packer, target, whole, "-F", "12", label="THIMBLE-EFI", build=contents.build)
    disk.fill_fat(packer, target, 0, _efi_files(contents, grub), scratch)


def _efi_files(contents: Contents, grub: Path) -> dict[str, bytes | Path]:
    if not contents.keys:
        return {"EFI/BOOT/BOOTX64.EFI": grub}
    found: dict[str, bytes | Path] = {
        "EFI/BOOT/BOOTX64.EFI": contents.loaders.systemd_boot,
        "EFI/thimble/grubx64.efi": grub,
        "loader/loader.conf": loader.loader_conf(enroll=True).encode(),
        f"{loader.ENTRIES}/cd.conf": _ENTRY.encode(),
    }
    return found | disk.keys_to_enrol(contents.keys)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())
