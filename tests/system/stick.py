"""Disks as PID 1 finds them: a boot medium's partitions, made without mounts, with or without a document."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from thimble.image.progress import on_stderr
from thimble.image.toolbox import Toolbox, ensure
from thimble.medium import layout


def stick(path: Path, document: str | None = None, *, state_mib: int = 64) -> Path:
    """A disk with the partitions of a boot medium: the document's FAT, the state's ext4; no loader in it."""
    box = ensure(on_stderr)
    parts = layout.partitions(boot_mib=34, state_mib=state_mib)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(layout.image_bytes(parts))
    run(box, "sfdisk", "--quiet", str(path), given=layout.script(parts))
    for part in parts:
        if part.name == layout.DOCUMENT:
            fat(box, path, part.start, part.size, document)
        if part.name == layout.STATE:
            ext4(box, path, part)
    return path


def volume(path: Path, document: str | None, *, label: str = layout.DOCUMENT_LABEL) -> Path:
    """A whole small disk that is one FAT, as a stick formatted by somebody."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(16 << 20)
    fat(ensure(on_stderr), path, 0, 16 << 20, document, label)
    return path


def fat(
    box: Toolbox, path: Path, start: int, size: int, document: str | None, label: str = layout.DOCUMENT_LABEL
) -> None:
    where = f"{path}@@{start}"
    run(box, "mformat", "-i", where, "-h", "64", "-s", "32", "-T", str(size // 512), "-v", label, "::")
    if document is not None:
        run(box, "mcopy", "-i", where, "-", "::/thimble.toml", given=document)


def ext4(box: Toolbox, path: Path, part: layout.Partition, *, uuid: str = "random") -> None:
    blocks = str(part.size // 1024)
    options = f"lazy_itable_init=1,nodiscard,offset={part.start}"
    run(
        box,
        "mkfs.ext4",
        "-q",
        "-F",
        "-b",
        "1024",
        "-L",
        layout.STATE,
        "-U",
        uuid,
        "-E",
        options,
        str(path),
        blocks,
    )


def run(box: Toolbox, *args: str, given: str = "") -> None:
    subprocess.run(
        box.argv(*args),
        env={**os.environ, **box.environment},
        input=given.encode(),
        check=True,
        capture_output=True,
    )
