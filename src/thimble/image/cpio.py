"""A cpio archive ("newc", what the kernel unpacks as initramfs) from values. Pure and deterministic.

The same entries give the same bytes; everything belongs to root and has the one time given (Unix seconds).
`pack` keeps the order of its entries, `archive` sorts them and adds missing parent directories.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CpioEntry:
    """`mode` includes the file type; `device` is (major, minor) of a node."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, permissions: int = 0o644) -> CpioEntry:
    return CpioEntry(path=path, mode=stat.S_IFREG | permissions, data=data)


def directory(path: str, permissions: int = 0o755) -> CpioEntry:
    return CpioEntry(path=path, mode=stat.S_IFDIR | permissions)


def link(path: str, target: str) -> CpioEntry:
    return CpioEntry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> CpioEntry:
    return CpioEntry(path=path, mode=stat.S_IFCHR | permissions, device=(major, minor))


def pack(entries: Iterable[CpioEntry], *, mtime: int) -> bytes:
    """The archive with its trailer, padded to 512 bytes so that another may follow it."""
    out = bytearray()
    for number, entry in enumerate(entries, 1):
        _append(out, entry, number, mtime)
    _append(out, CpioEntry(path="TRAILER!!!", mode=0), 0, 0)
    out += bytes(-len(out) % 512)
    return bytes(out)


def archive(entries: list[CpioEntry]) -> bytes:
    """The archive of these entries and their parent directories, sorted by path; all times are zero."""
    return pack(_with_parents(entries), mtime=0)


def _with_parents(entries: list[CpioEntry]) -> list[CpioEntry]:
    known: set[str] = {entry.path for entry in entries if stat.S_ISDIR(entry.mode)}
    complete = list(entries)
    for entry in entries:
        parts = entry.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent not in known:
                known.add(parent)
                complete.append(directory(parent))
    return sorted(complete, key=lambda entry: entry.path.split("/"))


def _append(out: bytearray, entry: CpioEntry, inode: int, mtime: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, mtime, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)
