"""The image that is served, in memory, so that the stick may be pulled. Kernel and RAM root are in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from thimble.core.problem import Problem
from thimble.deploy.image_source import check_memory
from thimble.medium import uki
from thimble.netboot.http import Span
from thimble.sys import files

NAME = "image.efi"


class ServedImage(NamedTuple):
    """`words`: its own of the kernel command line."""

    size: int
    kernel: Span
    initrd: Span
    words: str

    @staticmethod
    def load(source: Path, folder: Path) -> ServedImage:
        """A copy in `folder`, and where in it things are. Raises `Problem` INVALID, NO_MEMORY, FAILED."""
        size = source.stat().st_size
        check_memory(size)
        target = folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)
            with target.open("rb") as file:
                parts = uki.parse(file.read(uki.HEAD_BYTES), size).sections
                file.seek(parts[".cmdline"].offset)
                words = uki.command_line(file.read(parts[".cmdline"].size))
        except OSError as error:
            target.unlink(missing_ok=True)
            raise files.problem(error, "cannot keep the image in memory") from error
        except Problem:
            target.unlink(missing_ok=True)
            raise
        kernel, initrd = (
            Span(target, parts[name].offset, parts[name].size) for name in (".linux", ".initrd")
        )
        return ServedImage(size, kernel, initrd, words)

    @staticmethod
    def drop(folder: Path) -> None:
        (folder / NAME).unlink(missing_ok=True)
