"""A cpio archive (newc, what the kernel unpacks as initramfs) from values. Pure and deterministic.

Invariants: the same entries give the same bytes; every directory is named before what lies in it; times are
zero and everything belongs to root.
"""

from __future__ import annotations

import stat

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | permissions, data=data)


def directory(path: str, permissions: int = 0o755) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | permissions)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(path=path, mode=stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: list[Entry]) -> bytes:
    """The archive with the missing parent directories added, padded to 512 bytes."""
    chunks = [_record(number, entry) for number, entry in enumerate(_with_parents(entries), start=1)]
    chunks.append(_record(0, Entry(path="TRAILER!!!", mode=0)))
    body = b"".join(chunks)
    return body + bytes(-len(body) % 512)


def _with_parents(entries: list[Entry]) -> list[Entry]:
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


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    head = header + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
