"""`thimble image write`: writes an image to a stick and verifies it.

    look → refuse → write → flush → read back, not from the cache → move the second GPT to the end → document

Invariant: nothing is written before everything that can be refused was looked at; a document that is no
TOML is among that. The device is opened exclusively, so the kernel itself refuses one that is in use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache, disk, target, toolbox
from thimble.image.fault import fault
from thimble.image.pack import Packer
from thimble.image.progress import Report
from thimble.image.target import WriteTarget
from thimble.medium import layout

CHUNK = 4 << 20
FLUSH_EVERY = 16 << 20
DOCUMENT_BYTES = 1 << 20
_BLKFLSBUF, _BLKRRPART = 0x1261, 0x125F


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePlan:
    """What is going to be written where. `sha256` is the image's, as its manifest says or as it is now."""

    image: Path
    size: int
    sha256: str
    target: WriteTarget
    document: bytes | None


def plan(image: Path, where: Path, *, document: Path | None, allowed: Iterable[str]) -> WritePlan:
    """Look at everything. Raises NOT_FOUND, INVALID, and CONFLICT with all reasons."""
    image = image / "thimble.img" if image.is_dir() else image
    if not image.is_file():
        raise fault("not-found", f"there is no {image}", hint="build one first: thimble image build")
    content = _read_document(document) if document else None
    if content is not None and image.suffix == ".iso":
        raise fault("invalid", "a CD image cannot hold a host document", hint="Write thimble.img instead.")
    found = target.look(where)
    size = image.stat().st_size
    if reasons := target.blockers(found, size, allowed):
        raise fault("conflict", f"{found} cannot be written", reasons=tuple(reasons))
    digest = cache.sha256(image)
    if (known := _promised(image)) and known != digest:
        raise fault("conflict", f"{image} is not the file that was built", hint="build the image again")
    return WritePlan(image=image, size=size, sha256=digest, target=found, document=content)


def write(planned: WritePlan, report: Report) -> None:
    """Write and verify. Raises FAILED when what is read back differs."""
    where = planned.target.path
    with _opened(planned.target) as handle:
        _copy(planned, handle, report)
        _verify(planned, handle, report)
    packer = Packer(box=toolbox.ensure(report), epoch=0)
    if planned.image.suffix == ".img":
        if planned.target.size > planned.size:
            packer.run("sfdisk", "--quiet", "--no-reread", "--relocate", "gpt-bak-std", str(where))
        if planned.document is not None:
            report("document", None, "thimble.toml")
            _put_document(packer, where, planned.document)
    if planned.target.is_device:
        _reread(where)


def _read_document(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        tomllib.loads(content.decode())
    except OSError as error:
        raise fault("not-found", f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise fault("invalid", f"{path} is not a TOML document: {error}") from None
    if len(content) > DOCUMENT_BYTES:
        raise fault("invalid", f"{path} is too long: {len(content)} bytes of at most {DOCUMENT_BYTES}")
    return content


def _promised(image: Path) -> str:
    """What the manifest beside the image says its hash is."""
    try:
        known = json.loads(image.with_name("manifest.json").read_bytes())["files"][image.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(known)


@contextlib.contextmanager
def _opened(found: WriteTarget) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if found.is_device else os.O_CREAT)
    try:
        handle = os.open(found.path, flags, 0o644)
    except OSError as error:
        code = "conflict" if error.errno == errno.EBUSY else "failed"
        raise fault(code, f"cannot write {found.path}: {error.strerror}") from None
    try:
        yield handle
    except OSError as error:
        raise fault("failed", f"{found.path}: {error.strerror}", hint="is the stick good?") from None
    finally:
        os.close(handle)


def _copy(planned: WritePlan, handle: int, report: Report) -> None:
    """Byte for byte, zeros too: what lay in a file system's unused places before is not its business."""
    unflushed = 0
    with planned.image.open("rb") as source:
        while piece := source.read(CHUNK):
            at = source.tell() - len(piece)
            if not (planned.target.is_new and not any(piece)):
                _write_all(handle, piece, at)
                unflushed += len(piece)
            if unflushed >= FLUSH_EVERY:  # so that the progress shown is the stick's, not the memory's
                os.fdatasync(handle)
                unflushed = 0
            report("write", source.tell() / planned.size, f"{source.tell() >> 20} MiB")
    if planned.target.is_new:
        os.ftruncate(handle, planned.size)
    os.fsync(handle)


def _write_all(handle: int, piece: bytes, at: int) -> None:
    view = memoryview(piece)
    while view:
        done = os.pwrite(handle, view, at)
        view, at = view[done:], at + done


def _verify(planned: WritePlan, handle: int, report: Report) -> None:
    if planned.target.is_device:
        fcntl.ioctl(handle, _BLKFLSBUF, 0)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    digest, at = hashlib.sha256(), 0
    while at < planned.size:
        piece = os.pread(handle, min(CHUNK, planned.size - at), at)
        if not piece:
            break
        digest.update(piece)
        at += len(piece)
        report("verify", at / planned.size, f"{at >> 20} MiB")
    if digest.hexdigest() != planned.sha256:
        raise fault(
            "failed",
            f"{planned.target.path} is not readable as written",
            hint="The stick is faulty or a fake with less memory than it claims. Use another one.",
        )


def _put_document(packer: Packer, where: Path, content: bytes) -> None:
    parts = layout.partitions(boot_mib=disk.BOOT_MIB, state_mib=disk.STATE_MIB)
    start = next(part.start for part in parts if part.name == layout.DOCUMENT)
    with tempfile.NamedTemporaryFile() as scratch:
        scratch.write(content)
        scratch.flush()
        packer.run("mcopy", "-o", "-i", f"{where}@@{start}", scratch.name, "::/thimble.toml")


def _reread(where: Path) -> None:
    """Let the kernel see the new partitions; it does at the next plugging in anyway."""
    handle = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
        with contextlib.suppress(OSError):
            fcntl.ioctl(handle, _BLKRRPART, 0)
    finally:
        os.close(handle)
