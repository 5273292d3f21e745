"""Block devices: which there are, how large, what lies at their ends, whether somebody uses them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.sys import files


def names() -> list[str]:
    """`/dev/…` of every disk and partition that can hold data; no RAM disks, no empty loop devices."""
    found = []
    for entry in sorted(Path("/sys/class/block").iterdir()):
        if entry.name.startswith(("ram", "zram")):
            continue
        try:
            if int((entry / "size").read_text()) > 0:
                found.append(f"/dev/{entry.name}")
        except (OSError, ValueError):
            continue
    return found


def named(partition: str) -> list[str]:
    """`/dev/…` of all partitions with this name in their disk's GPT."""
    found = []
    for entry in sorted(Path("/sys/class/block").iterdir()):
        try:
            if f"PARTNAME={partition}" in (entry / "uevent").read_text().splitlines():
                found.append(f"/dev/{entry.name}")
        except OSError:
            continue
    return found


def is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False


def read_ends(path: str, head: int, tail: int) -> tuple[int, bytes, bytes]:
    """(size in bytes, first `head` bytes, last `tail` bytes) of a device or file. Raises `Problem`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            return size, _read(descriptor, head, 0), _read(descriptor, tail, max(0, size - tail))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.problem(error, f"cannot read {path}") from error


def in_use(path: str) -> bool:
    """Does the kernel hold it: mounted, swap, part of RAID or LVM, or a partition of it so?"""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise files.problem(error, f"cannot open {path}") from error
    return False


def wipe_ends(path: str, count: int) -> None:
    """Overwrite the first and last `count` bytes with zeros: no old signature shows. Raises `Problem`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            for start in (0, max(0, size - count)):
                os.pwrite(descriptor, bytes(min(count, size)), start)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Problem(Code.IN_USE, f"{path} is in use") from error
        raise files.problem(error, f"cannot write to {path}") from error


def _read(descriptor: int, count: int, at: int) -> bytes:
    parts = []
    while count > 0:
        part = os.pread(descriptor, count, at)
        if not part:
            break
        parts.append(part)
        count -= len(part)
        at += len(part)
    return b"".join(parts)
