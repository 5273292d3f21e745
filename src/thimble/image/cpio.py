"""A cpio archive in the "newc" form the kernel reads; pure. Owners are root, times are one given date."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member. `mode` includes the file type; `device` is (major, minor) of a node."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def pack(members: Iterable[Member], *, mtime: int) -> bytes:
    """The archive with its trailer, padded to 512 bytes so that another may follow it."""
    out = bytearray()
    for number, member in enumerate(members, 1):
        _append(out, member, number, mtime)
    _append(out, Member(path="TRAILER!!!", mode=0), 0, 0)
    out += bytes(-len(out) % 512)
    return bytes(out)


def _append(out: bytearray, member: Member, number: int, mtime: int) -> None:
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        number,
        member.mode,
        0,
        0,
        links,
        mtime,
        len(member.data),
        0,
        0,
        *member.device,
        len(name),
        0,
    )
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += member.data
    out += bytes(-len(out) % 4)
