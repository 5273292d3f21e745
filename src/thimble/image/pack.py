"""Packing: entries become archives, archives become the initrd, kernel and initrd become one UKI.

Invariant: owners are root, modes and one date come from the entries and the lock, order is sorted, so the
same inputs give the same bytes on any machine, in any directory, for any user.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cpio
from thimble.image.fault import fault
from thimble.image.layout import ImageEntry
from thimble.image.toolbox import Toolbox

EARLY_LEVEL = ("--ultra", "-22")
ROOT_OPTIONS = ("-comp", "zstd", "-Xcompression-level", "22", "-b", "1M")
"""Measured against erofs (lz4hc, zstd, lzma) and squashfs-xz: docs/decisions/0010-root-image.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UkiParts:
    """What thimble.efi is made of; `release` is the kernel's version."""

    kernel: Path
    initrd: Path
    command_line: str
    os_release: str
    release: str
    loader: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Packer:
    """What packing needs to know; `epoch` is the only date that goes in."""

    box: Toolbox
    epoch: int

    def run(self, *args: str, given: str = "", dated: bool = False) -> None:
        """Run a program of the toolbox; `dated`: the date it puts into what it makes is the lock's."""
        environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        if dated:
            environment["SOURCE_DATE_EPOCH"] = str(self.epoch)
        done = subprocess.run(
            self.box.argv(*args), input=given, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode != 0:
            raise fault(
                "failed",
                f"{args[0]} could not pack the image",
                reasons=tuple(done.stderr.strip().splitlines()[-6:]),
            )

    def archive(self, entries: Iterable[ImageEntry], more: Iterable[cpio.CpioEntry] = ()) -> bytes:
        """An uncompressed cpio of these entries."""
        members = [*map(_member, entries), *more]
        return cpio.pack(sorted(members, key=lambda member: member.path), mtime=self.epoch)

    def compress(self, source: Path, target: Path) -> None:
        """zstd with all it has: the kernel unpacks any level at the same speed."""
        self.run(
            "zstd", "--quiet", "--force", "--single-thread", *EARLY_LEVEL, str(source), "-o", str(target)
        )

    def squashfs(self, entries: Iterable[ImageEntry], scratch: Path, target: Path) -> None:
        """A read-only file system with these entries, laid out in `scratch` first."""
        scratch.mkdir()
        for entry in entries:
            _place(entry, scratch / entry.path)
        self.run(
            "mksquashfs",
            str(scratch),
            str(target),
            "-noappend",
            "-quiet",
            "-no-progress",
            "-no-xattrs",
            "-all-root",
            "-root-mode",
            "755",
            "-reproducible",
            *("-mkfs-time", str(self.epoch)),
            *("-all-time", str(self.epoch)),
            *ROOT_OPTIONS,
        )
        shutil.rmtree(scratch)

    def uki(self, parts: UkiParts, target: Path) -> None:
        """One EFI program with everything in it, ready to be signed.

        Sections begin on sectors, as ukify lays them out: GRUB reads kernel and initrd by their sectors.
        """
        words = {name: target.with_suffix(f".{name}") for name in ("cmdline", "osrel", "loader")}
        words["cmdline"].write_text(parts.command_line)
        words["osrel"].write_text(parts.os_release)
        words["loader"].write_bytes(parts.loader)
        self.run(
            "ukify",
            "build",
            f"--linux={parts.kernel}",
            f"--initrd={parts.initrd}",
            f"--cmdline=@{words['cmdline']}",
            f"--os-release=@{words['osrel']}",
            f"--uname={parts.release}",
            f"--section=.loader:@{words['loader']}",
            f"--stub={self.box.path('usr/lib/systemd/boot/efi/linuxx64.efi.stub')}",
            "--efi-arch=x64",
            f"--output={target}",
        )
        for path in words.values():
            path.unlink()


def initrd(first: bytes, early: bytes, root: Path) -> Iterable[bytes]:
    """The pieces of the initrd in order; the kernel wants each to begin on four bytes."""
    yield first
    yield early
    yield bytes(-len(early) % 512)
    image = root.read_bytes()
    yield cpio.pack([cpio.CpioEntry(path="root.squashfs", mode=stat.S_IFREG | 0o600, data=image)], mtime=0)


def _member(entry: ImageEntry) -> cpio.CpioEntry:
    if entry.link:
        return cpio.CpioEntry(path=entry.path, mode=stat.S_IFLNK | 0o777, data=entry.link.encode())
    if entry.is_directory:
        return cpio.CpioEntry(path=entry.path, mode=stat.S_IFDIR | entry.mode)
    return cpio.CpioEntry(path=entry.path, mode=stat.S_IFREG | entry.mode, data=entry.read())


def _place(entry: ImageEntry, target: Path) -> None:
    if entry.link:
        target.symlink_to(entry.link)
    elif entry.is_directory:
        target.mkdir(exist_ok=True)
        target.chmod(entry.mode)
    else:
        target.write_bytes(entry.read())
        target.chmod(entry.mode)
