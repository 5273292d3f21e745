"""`qemu-img`, driven: create, copy with progress, grow, inspect. Formats are always told, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from thimble.contract.vm import DiskFormat
from thimble.core.problem import Code, Problem
from thimble.sys import command


class QemuImg:
    """`program`: its path, or its name on PATH."""

    def __init__(self, program: str = "qemu-img") -> None:
        self._program = program

    async def create(self, target: Path, size: int, format: DiskFormat) -> None:
        """A new empty disk; sparse."""
        await command.run([self._program, "create", "-q", "-f", format, str(target), str(size)])

    async def copy(
        self, source: Path, driver: str, target: Path, format: DiskFormat, progress: Callable[[float], None]
    ) -> None:
        """A whole, independent copy of `source`, holes kept."""
        await command.watch(
            [
                self._program,
                "convert",
                "-p",
                "-f", driver,
                "-O", format,
                str(source),
                str(target),
            ],
            Meter(progress),
        )  # fmt: skip

    async def grow(self, target: Path, size: int, format: DiskFormat) -> None:
        await command.run([self._program, "resize", "-q", "-f", format, str(target), str(size)])

    async def virtual_size(self, path: Path, driver: str) -> int:
        """The virtual size as `qemu-img info` sees it. Raises `Problem` INVALID on a file it cannot read."""
        result = await command.run(
            [
                self._program,
                "info",
                "--output=json",
                "-f", driver,
                str(path),
            ],
            check=False,
        )  # fmt: skip
        if result.code:
            raise Problem(Code.INVALID, f"it is damaged: {result.last_words}")
        facts = msgspec.json.decode(result.stdout, type=_Info)
        if facts.backing_filename:
            raise Problem(Code.INVALID, "it refers to a backing file")
        return facts.virtual_size


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
