"""What is done to the file of a volume. All of it waits for the disk: for threads."""

from __future__ import annotations

import os
from pathlib import Path

from thimble.contract.vm import DiskFormat
from thimble.core.ids import NAME_MAX
from thimble.core.problem import Code, Problem
from thimble.storage import formats
from thimble.storage.homes import Home, VolumeFile
from thimble.storage.standalone import HEAD, volume_refusal
from thimble.sys import block, files


def release(home: Home, old: VolumeFile, stem: str) -> str:
    """Make a VM's volume one of its own, called `stem`, or `stem` with a number; its name, empty when it had
    gone before. Raises `Problem`.
    """
    if not old.path.exists():
        return ""
    try:
        home.volumes.mkdir(mode=0o711, exist_ok=True)
        name, number = stem[:NAME_MAX], 1
        while any(home.volume("", name, format).exists() for format in DiskFormat):
            number += 1
            name = f"{stem[: NAME_MAX - 1 - len(str(number))]}-{number}"
        os.chown(old.path, os.geteuid(), os.getegid(), follow_symlinks=False)
        old.path.rename(home.volume("", name, old.format))
        files.sync_directory(home.volumes)
    except OSError as error:
        raise files.problem(error, f"cannot keep {old.path}") from error
    return name


def size_of(path: Path, format: DiskFormat) -> int:
    """The virtual size, from the file itself. Raises `Problem`."""
    length, head, _ = block.read_ends(str(path), HEAD, 0)
    if format is DiskFormat.RAW:
        return length
    header = formats.qcow2(head)
    if header is None:
        raise Problem(Code.FAILED, f"{path} is not a qcow2 file")
    return header.size_bytes


def open_volume(path: Path, format: DiskFormat, *, read_only: bool) -> int:
    """A descriptor for QEMU. One put there by hand may refer to other files: refused. Raises `Problem`."""
    try:
        descriptor = files.open_regular(path, os.O_RDONLY if read_only else os.O_RDWR)
    except OSError as error:
        raise files.problem(error, f"cannot open {path}") from error
    if why := volume_refusal(os.pread(descriptor, HEAD, 0), format):
        os.close(descriptor)
        raise Problem(
            Code.INVALID,
            f"{path} cannot be used: {why}",
            hint="Make it one that stands alone: qemu-img convert.",
        )
    return descriptor


def make_empty(path: Path, size: int) -> None:
    """A sparse raw volume. Raises OSError."""
    with open(path, "xb") as file:
        file.truncate(size)


def settle(path: Path) -> None:
    """On the disk, and ours alone."""
    path.chmod(0o600)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_name(unfinished: Path, target: Path) -> None:
    """Whole, under its name. Raises `Problem` EXISTS, OSError."""
    if target.exists():  # a VM's volume was kept under this name meanwhile
        raise Problem(Code.EXISTS, f"there is a volume {target.stem} already")
    unfinished.rename(target)
    files.sync_directory(target.parent)
