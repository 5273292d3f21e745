"""What a loss of power does to a disk with a write cache: what was not flushed may be lost, even in part.

QEMU's `blklogwrites` notes every write and flush of such a disk (the format of Linux's dm-log-writes,
Documentation/admin-guide/device-mapper/log-writes.rst). After a cut the disk is made anew from its copy of
before power-on: everything up to the last flush, and of each later write all, nothing or a part, as the dice
say. Killing QEMU alone would keep them all, in order, which no real disk promises.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from thimble.core.problem import Code, Problem

SECTOR = 512
_MAGIC = 0x6A736677736872
_FLUSH, _DISCARD, _MARK = 1, 4, 8


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One noted request, in sectors; `data_at` is where its data lies in the log."""

    sector: int
    count: int
    flags: int
    data_at: int

    @property
    def flushes(self) -> bool:
        return bool(self.flags & _FLUSH)


def copy_of(disk: Path) -> Path:
    return disk.with_name(disk.name + ".before")


def log_of(disk: Path) -> Path:
    return disk.with_name(disk.name + ".writes")


def prepare(disk: Path) -> None:
    """Before power-on: a copy of the disk, and an empty log."""
    subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", str(disk), str(copy_of(disk))], check=True, timeout=600
    )
    log_of(disk).write_bytes(b"")


def lose(disk: Path, dice: random.Random) -> tuple[int, int]:
    """After the cut: the disk as it may well look now. Answers how many writes were uncertain, and lost."""
    uncertain = lost = 0
    with log_of(disk).open("rb") as log, copy_of(disk).open("r+b") as target:
        entries = list(read(log))
        sure = max((number + 1 for number, entry in enumerate(entries) if entry.flushes), default=0)
        for number, entry in enumerate(entries):
            keep = range(entry.count)
            if number >= sure and entry.count:
                keep = _survivors(entry.count, dice)
                uncertain += 1
                lost += len(keep) < entry.count
            _apply(entry, keep, log, target)
    copy_of(disk).rename(disk)
    return uncertain, lost


def read(log: BinaryIO) -> Iterator[Write]:
    """The requests of a log, oldest first. Raises `Problem` INVALID when it is none."""
    head = log.read(28)
    if not head:
        return
    magic, version, count, size = struct.unpack("<QQQI", head)
    if magic != _MAGIC or version != 1 or size != SECTOR:
        raise Problem(Code.INVALID, "this is not a dm-log-writes log")
    at = SECTOR
    for _ in range(count):
        log.seek(at)
        sector, sectors, flags, length = struct.unpack("<QQQQ", log.read(32))
        at += SECTOR
        if not flags & _MARK:
            yield Write(sector=sector, count=sectors, flags=flags, data_at=at)
        if not flags & _DISCARD:
            at += -(-length // SECTOR) * SECTOR if flags & _MARK else sectors * SECTOR


def _survivors(count: int, dice: random.Random) -> range:
    """Which sectors of an unflushed write reached the disk: all, none, the first or the last ones."""
    kind = dice.choice(("all", "all", "none", "first", "last"))
    middle = dice.randint(0, count)
    return {"all": range(count), "none": range(0), "first": range(middle), "last": range(middle, count)}[kind]


def _apply(entry: Write, keep: range, log: BinaryIO, target: BinaryIO) -> None:
    if not keep:
        return
    if entry.flags & _DISCARD:
        data = bytes(len(keep) * SECTOR)
    else:
        log.seek(entry.data_at + keep.start * SECTOR)
        data = log.read(len(keep) * SECTOR)
    target.seek((entry.sector + keep.start) * SECTOR)
    target.write(data)
