"""An image file looked at: is it a whole Thimble for this machine, which one, and what does it carry.

Reads only; whoever installs it holds `BootImage.sha256` against what arrived on the disk.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.deploy.boot_files import Manifest
from thimble.medium import loader, uki
from thimble.medium.uki import Uki

_PIECE = 1 << 20
_LOADERS = ("systemd-bootx64.efi", "boot.img", "core.img")


class BootImage(msgspec.Struct, frozen=True, kw_only=True):
    """A thimble.efi that was read from one end to the other."""

    path: Path
    file_bytes: int
    sha256: str
    uki: Uki
    command_line: str
    build: str
    version: str
    profile: str

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            build=self.build, version=self.version, sha256=self.sha256, file_bytes=self.file_bytes
        )

    def menu(self, slot: str) -> str:
        """GRUB's file for the slot it goes into."""
        return loader.grub_slot(slot, self.uki, self.command_line)


class Loaders(msgspec.Struct, frozen=True, kw_only=True):
    """What starts the slots: systemd-boot for UEFI, GRUB's two pieces for a BIOS."""

    systemd_boot: bytes
    boot_img: bytes
    core_img: bytes


def claims(path: Path) -> Manifest:
    """What a file says it is, from its headers alone; empty words when it is no image of ours."""
    try:
        with path.open("rb") as file:
            found = uki.parse(file.read(uki.HEAD_BYTES), path.stat().st_size)
            words = []
            for name in (".cmdline", ".osrel"):
                file.seek(found.sections[name].offset)
                words.append(file.read(found.sections[name].size).rstrip(b"\0").decode("utf-8", "replace"))
    except (OSError, Problem):
        return Manifest(build="", version="")
    return Manifest(build=uki.build_of(words[0]), version=uki.os_release(words[1]).get("VERSION_ID", ""))


def inspect(path: Path, *, sha256: str = "") -> BootImage:
    """Read and check the whole file. Raises `Problem` INVALID saying what is wrong with it.

    `sha256`: what it has to be, if that is known. The build in its command line is the digest of kernel and
    initrd, so damage shows even where nothing is signed.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        found = uki.parse(file.read(uki.HEAD_BYTES), length)

        def section(name: str) -> bytes:
            file.seek(found.sections[name].offset)
            return file.read(found.sections[name].size)

        command_line = uki.command_line(section(".cmdline"))
        release = uki.os_release(section(".osrel").rstrip(b"\0").decode("utf-8", "replace"))
        whole, content = _digests(path, found)
    build = uki.build_of(command_line)
    if release.get("ID") != "thimble":
        raise _bad(f"it is {release.get('PRETTY_NAME') or 'another system'}, not Thimble")
    if sha256 and sha256.lower() != whole:
        raise _bad(f"its SHA-256 is {whole}, not {sha256}")
    if not build or not content.startswith(build):
        raise _bad("its kernel or initrd is not what it was built with: it was damaged")
    if not found.has_loader():
        raise _bad("it carries no boot loaders")
    return BootImage(
        path=path,
        file_bytes=length,
        sha256=whole,
        uki=found,
        command_line=command_line,
        build=build,
        version=release.get("VERSION_ID", ""),
        profile=release.get("IMAGE_ID", "").removeprefix("thimble-"),
    )


def loaders(image: BootImage) -> Loaders:
    """The boot loaders it carries. Raises `Problem` INVALID."""
    import tarfile

    section = image.uki.sections[".loader"]
    with image.path.open("rb") as file:
        file.seek(section.offset)
        data = file.read(section.size)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            parts = []
            for name in _LOADERS:
                member = tar.extractfile(name)
                if member is None:
                    raise _bad(f"its boot loaders lack {name}")
                parts.append(member.read())
    except (tarfile.TarError, KeyError) as error:
        raise _bad(f"its boot loaders cannot be read: {error}") from error
    return Loaders(systemd_boot=parts[0], boot_img=parts[1], core_img=parts[2])


def older(version: str, than: str) -> bool:
    """Is `version` before `than`? Numbers are compared as numbers."""
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    digits = "".join(char if char.isdigit() else " " for char in version)
    return tuple(int(word) for word in digits.split())


def _digests(path: Path, found: Uki) -> tuple[str, str]:
    """(of the whole file, of kernel and initrd together), in one pass for each; big pieces only."""
    whole, content = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
        for name in (".linux", ".initrd"):
            section = found.sections[name]
            file.seek(section.offset)
            left = section.size
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                content.update(piece)
                left -= len(piece)
    return whole.hexdigest(), content.hexdigest()


def _bad(why: str) -> Problem:
    return Problem(
        Code.INVALID,
        f"this image cannot be used: {why}",
        hint="Take the thimble.efi of a build, whole.",
    )
