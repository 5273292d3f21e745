"""The one place that reads and writes the files of a mounted boot partition, as `slots` decided.

Every file is on the disk before the next is begun; the image is read back from the disk itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from thimble.core.problem import Code, Problem
from thimble.deploy.boot_files import TRIAL, Delete, Esp, Manifest, Op, Put, PutImage, Trial
from thimble.deploy.image import claims
from thimble.medium import loader
from thimble.sys import files

T = TypeVar("T")

PIECE = 1 << 20
_SMALL = 512 * 1024
_WHERE = ("thimble", loader.ENTRIES, "loader", "grub", "EFI/BOOT", "")


class SlotImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image to be written into a slot, and the SHA-256 it has."""

    path: Path
    sha256: str


def read(root: Path) -> Esp:
    """What is on a mounted boot partition. Small files that cannot be read count as missing."""
    found = {
        str(path.relative_to(root)): path.stat().st_size
        for place in _WHERE
        for path in sorted((root / place).glob("*"))
        if path.is_file()
    }
    entries = {Path(path).name: _text(root / path) for path in found if path.startswith(f"{loader.ENTRIES}/")}
    manifests = {slot: _manifest(root, slot) for slot in loader.SLOTS}
    return Esp(
        files=found,
        small={path: _bytes(root / path) for path, size in found.items() if size <= _SMALL},
        entries={name: text for name, text in entries.items() if loader.parse_entry(name)},
        choice=loader.parse_environment(_bytes(root / loader.ENVIRONMENT)),
        manifests={slot: value for slot, value in manifests.items() if value is not None},
        trial=_decoded(root / TRIAL, Trial),
    )


def apply(
    root: Path,
    ops: tuple[Op, ...],
    *,
    images: Mapping[str, SlotImage] = {},
    progress: Callable[[float], None] = lambda _: None,
    passed: Callable[[str], None] = lambda _: None,
) -> None:
    """Make `ops` true, in order, each on the disk before the next. Raises `Problem`.

    `images`: what `PutImage` writes to which path. `passed` is called after each one.
    """
    for op in ops:
        target = root / op.path
        try:
            match op:
                case Put():
                    _put(target, op.data)
                case Delete():
                    target.unlink(missing_ok=True)
                    _sync(target.parent)
                case PutImage():
                    source = images[op.path]
                    copy(source.path, target, source.sha256, progress)
        except OSError as error:
            raise files.problem(error, f"cannot change {op.path} of the boot partition") from error
        passed(op.path)


def copy(source: Path, target: Path, sha256: str, progress: Callable[[float], None] = lambda _: None) -> None:
    """Copy a large file, and read it back from the disk. Raises `Problem` FAILED when it is another there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    length = source.stat().st_size
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with source.open("rb") as content:
            done = 0
            while piece := content.read(PIECE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
                done += len(piece)
                progress(0.7 * done / length)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read now comes from the disk
        os.lseek(descriptor, 0, os.SEEK_SET)
        digest, seen = hashlib.sha256(), 0
        while piece := os.read(descriptor, PIECE):
            digest.update(piece)
            seen += len(piece)
            progress(0.7 + 0.3 * seen / length)
    finally:
        os.close(descriptor)
    _sync(target.parent)
    if digest.hexdigest() != sha256:
        raise Problem(
            Code.FAILED,
            "the disk gives back something else than was written to it",
            hint="Replace that disk or stick; the present installation was not touched.",
        )


def _put(target: Path, data: bytes) -> None:
    """In place when the length stays: GRUB knows its environment by its sectors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    same = target.is_file() and target.stat().st_size == len(data)
    flags = os.O_WRONLY | os.O_CLOEXEC | (0 if same else os.O_CREAT | os.O_TRUNC)
    descriptor = os.open(target, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync(target.parent)


def _sync(directory: Path) -> None:
    if directory.is_dir():
        files.sync_directory(directory)


def _manifest(root: Path, slot: str) -> Manifest | None:
    """From the file beside the slot; a slot without one tells itself what it is."""
    path = root / loader.slot_path(slot)
    return _decoded(root / f"thimble/{slot}.json", Manifest) or (claims(path) if path.is_file() else None)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_SMALL)
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _decoded(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(_bytes(path), type=kind)
    except (msgspec.DecodeError, ValueError):
        return None
