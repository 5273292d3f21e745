"""A slot's kernel loaded as the running one's successor (kexec), read from its file on the boot partition."""

from __future__ import annotations

import os
from pathlib import Path

from thimble.core.problem import Code, Problem
from thimble.deploy import sysfs
from thimble.deploy.image import inspect
from thimble.deploy.mounts import Mounts
from thimble.medium import loader
from thimble.medium.uki import Section

_PIECE = 1 << 20


def load(mounts: Mounts, partition: str, slot: str) -> None:
    """Load it; the next `kexec` of PID 1 starts it as a trial. Raises `Problem` when this kernel refuses."""
    from thimble.sys import kexec

    with mounts.mounted(partition) as root:
        path = root / loader.slot_path(slot)
        image = inspect(path)
        parts = {name: _piece(path, image.uki.sections[name]) for name in (".linux", ".initrd")}
    words = f"{image.command_line} thimble.slot={slot} thimble.trial=1"
    if name := sysfs.part_uuid(partition):
        words += f" thimble.boot={name}"
    try:
        kexec.load(parts[".linux"], parts[".initrd"], words)
    except OSError as error:
        raise Problem(Code.UNSUPPORTED, f"this kernel refuses it: {error.strerror}") from error
    finally:
        for descriptor in parts.values():
            os.close(descriptor)


def _piece(path: Path, section: Section) -> int:
    """A file in memory with that part of `path`."""
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    with path.open("rb") as file:
        file.seek(section.offset)
        size = section.size
        while size > 0 and (piece := file.read(min(_PIECE, size))):
            os.write(descriptor, piece)
            size -= len(piece)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
