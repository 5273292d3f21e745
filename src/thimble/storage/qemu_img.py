"""`qemu-img`, driven: create, copy with progress, grow, inspect. Formats are always told, never guessed.

It reads what strangers uploaded, so it runs confined (`sys.confine`), and gets descriptors instead of paths.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB, MIB
from thimble.storage.standalone import info_refusal
from thimble.sys import command, files
from thimble.sys.confine import Cell, Limits

#: Address space: code and libraries, a stack for each of its threads, and caches.
MEMORY = 3 * GIB
#: Seconds of processor time for what only looks at or writes a header.
GLANCE_S = 60
#: Bytes that even a slow CPU converts in a second.
SLOW = 2 * MIB
_ENV = {"LC_ALL": "C", "MALLOC_ARENA_MAX": "2"}


class QemuImg:
    """`program`: its path, or its name on our own PATH (its environment has none)."""

    def __init__(self, program: str = "qemu-img") -> None:
        self._program = shutil.which(program) or program

    async def create(self, target: Path, size: int, format: DiskFormat) -> None:
        """A new empty disk; sparse."""
        cell = self._cell(GLANCE_S, _room(size))
        with _made(target, cell) as new:
            await self._run(cell, ["create", "-q", "-f", format, _path(new), str(size)], new)

    async def copy(
        self,
        source: Path,
        driver: str,
        target: Path,
        format: DiskFormat,
        progress: Callable[[float], None],
        *,
        size: int,
    ) -> None:
        """A whole, independent copy of `source`, of virtual `size`, holes kept."""
        cell = self._cell(GLANCE_S + 600 + size // SLOW, _room(size))
        with _opened(source, cell) as old, _made(target, cell) as new:
            await command.watch(
                [
                    self._program,
                    "convert",
                    "-p",
                    "-f", driver,
                    "-O", format,
                    _path(old),
                    _path(new),
                ],
                Meter(progress),
                env=_ENV,
                fds=(old, new),
                enter=cell.enter,
            )  # fmt: skip

    async def grow(self, target: Path, size: int, format: DiskFormat) -> None:
        cell = self._cell(GLANCE_S, _room(size))
        with _owned(_open(target, os.O_RDWR), cell) as disk:
            await self._run(cell, ["resize", "-q", "-f", format, _path(disk), str(size)], disk)

    async def virtual_size(self, path: Path, driver: str) -> int:
        """The virtual size as `qemu-img info` sees it. Raises `Problem` INVALID on a file it cannot read."""
        cell = self._cell(GLANCE_S, 0)
        with _opened(path, cell) as image:
            words = ["info", "--output=json", "-f", driver, _path(image)]
            result = await self._run(cell, words, image, check=False)
        if result.code:
            raise Problem(Code.INVALID, f"it is damaged: {result.last_words}")
        facts = msgspec.json.decode(result.stdout, type=_Info)
        if why := info_refusal(facts.backing_filename):
            raise Problem(Code.INVALID, why)
        return facts.virtual_size

    def _cell(self, cpu_s: int, file_bytes: int) -> Cell:
        return Cell(self._program, Limits(memory=MEMORY, cpu_s=cpu_s, file_bytes=file_bytes))

    async def _run(
        self, cell: Cell, words: list[str], descriptor: int, *, check: bool = True
    ) -> command.Result:
        argv = [self._program, *words]
        return await command.run(argv, check=check, env=_ENV, fds=(descriptor,), enter=cell.enter)


def _room(size: int) -> int:
    """What a disk of virtual `size` takes at most, with the tables of its format."""
    return size + size // 32 + 64 * MIB


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _open(path: Path, flags: int) -> int:
    try:
        return files.open_regular(path, flags)
    except OSError as error:
        raise files.problem(error, f"cannot open {path}") from error


@contextmanager
def _opened(path: Path, cell: Cell) -> Iterator[int]:
    """To read only."""
    descriptor = _open(path, os.O_RDONLY)
    try:
        cell.may_read(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _made(path: Path, cell: Cell) -> Iterator[int]:
    """A new, empty file to write."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.problem(error, f"cannot make {path}") from error
    with _owned(descriptor, cell):
        yield descriptor


@contextmanager
def _owned(descriptor: int, cell: Cell) -> Iterator[int]:
    """The program's inside the block, ours again after it."""
    try:
        cell.owns(descriptor)
        try:
            yield descriptor
        finally:
            cell.disowns(descriptor)
    finally:
        os.close(descriptor)


class _Info(msgspec.Struct, frozen=True, rename="kebab"):
    virtual_size: int
    backing_filename: str = ""


class Meter:
    """Reads `    (12.50/100%)\\r` as `qemu-img -p` writes it, in whatever pieces."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\r")
        for line in whole[-1:]:
            number = line.strip().lstrip(b"(").split(b"/")[0]
            try:
                self._progress(float(number) / 100)
            except ValueError:
                continue
