"""The programs that start a slot: systemd-boot for UEFI, GRUB for a BIOS.

They travel inside thimble.efi, in its section `.loader`, so that one file is all an installation needs:

    systemd-bootx64.efi    /EFI/BOOT/BOOTX64.EFI of the boot partition
    boot.img               GRUB's first sector, for the MBR
    core.img               GRUB itself, for the partition `thimble-grub`

Invariant: the same packages and the same key give the same bytes. GRUB loads no module from a medium: what a
core can do was chosen here. UEFI never meets it.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from thimble.image.pack import Packer

SYSTEMD_BOOT = "systemd-bootx64.efi"
STUBS = "usr/lib/systemd/boot/efi"
GRUB = "usr/lib/grub"

_SCRIPT = ("normal", "configfile", "test", "echo", "minicmd", "sleep", "serial", "terminal")
_LINUX = ("linux", "loopback", "boot")
#: A disk's boot partition is found by its number: nothing is searched for.
_DISK = ("biosdisk", "part_gpt", "fat", "loadenv", "probe", *_LINUX, *_SCRIPT)
_CD_BIOS = ("biosdisk", "iso9660", "part_gpt", "part_msdos", "all_video", *_LINUX, *_SCRIPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLoaders:
    """What installing needs, as files' contents."""

    systemd_boot: bytes
    boot: bytes
    core: bytes

    def tar(self, epoch: int) -> bytes:
        """The section `.loader`."""
        files = {SYSTEMD_BOOT: self.systemd_boot, "boot.img": self.boot, "core.img": self.core}
        return _tar(files, epoch)


def disk(packer: Packer, scratch: Path, systemd_boot: bytes = b"") -> DiskLoaders:
    """The loaders of a disk. `systemd_boot` replaces Debian's by one that is signed."""
    core = scratch / "core.img"
    packer.run(*_mkimage(packer, "i386-pc", core), "--prefix=(,gpt2)/grub", *_DISK)
    return DiskLoaders(
        systemd_boot=systemd_boot or packer.box.path(f"{STUBS}/{SYSTEMD_BOOT}").read_bytes(),
        boot=packer.box.path(f"{GRUB}/i386-pc/boot.img").read_bytes(),
        core=core.read_bytes(),
    )


def cd_bios(packer: Packer, target: Path) -> None:
    """GRUB as a BIOS starts it from a CD, or from the same file on a stick."""
    packer.run(*_mkimage(packer, "i386-pc-eltorito", target), "--prefix=/grub", *_CD_BIOS)


def _mkimage(packer: Packer, platform: str, target: Path) -> list[str]:
    modules = packer.box.path(f"{GRUB}/{platform.removesuffix('-eltorito')}")
    return ["grub-mkimage", f"--format={platform}", f"--directory={modules}", f"--output={target}"]


def _tar(files: dict[str, bytes], epoch: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), epoch, 0o644
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()
