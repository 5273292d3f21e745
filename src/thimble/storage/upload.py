"""An image on its way in: written and hashed in one thread, then looked at, then given its name.

It lies under a temporary name until its last byte is here, its digest is right and its format is one that
refers to no other file. Whatever goes wrong before leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from thimble.core.problem import Code, Problem
from thimble.core.units import show_size
from thimble.state.store import is_durable
from thimble.storage import formats, homes
from thimble.storage.formats import Inspection
from thimble.storage.records import ImageRecord
from thimble.storage.rules import RESERVE, SIZE_MAX
from thimble.storage.standalone import upload_refusal
from thimble.sys import block, files
from thimble.sys.worker import Worker

if TYPE_CHECKING:
    from thimble.storage.qemu_img import QemuImg

#: Written and hashed at once.
PIECE = 1024 * 1024
#: Free space is looked at again after so many bytes.
_LOOK = 64 * 1024 * 1024
#: QEMU opens a kernel once more, as its own user: it may, for nobody else can enter the directory.
MODE = 0o644


async def receive(
    target: Path, body: AsyncIterator[bytes], length: int | None, sha256: str, tool: QemuImg
) -> None:
    """Take an upload as `target`. Raises `Problem`: NO_SPACE, MALFORMED when it is cut short, INVALID."""
    worker = Worker(f"upload {target.name}")
    unfinished = homes.unfinished(target)
    try:
        digest = await _store(worker, unfinished, body, length, sha256)
        record = await _examine(worker, unfinished, digest, tool)
        await worker.run(lambda: _settle(unfinished, target, record))
    except OSError as error:
        raise files.problem(error, f"cannot store {target.name}") from error
    finally:
        await worker.run(partial(files.remove_large, unfinished))


class _Writer:
    """The unfinished file. Every method waits for the disk."""

    def __init__(self, path: Path, length: int | None) -> None:
        import hashlib  # loads libcrypto: only for those who upload

        self._path = path
        self._length = length
        self._hasher = hashlib.sha256()
        self._count = 0
        self._free = files.space(path.parent)[1] - RESERVE
        if length is not None and length > self._free:
            free = show_size(max(0, self._free))
            raise Problem(Code.NO_SPACE, f"{show_size(length)} do not fit into {free} that are free")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def write(self, data: bytearray) -> None:
        before, self._count = self._count, self._count + len(data)
        if before // _LOOK != self._count // _LOOK:  # others write here too
            self._free = self._count + files.space(self._path.parent)[1] - RESERVE
        if self._count > self._free:
            free = show_size(max(0, self._free))
            raise Problem(Code.NO_SPACE, f"it is larger than the {free} that are free")
        self._hasher.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def finish(self, sha256: str) -> str:
        """On the disk; the digest of what came."""
        if self._count == 0 or (self._length is not None and self._count != self._length):
            raise Problem(
                Code.MALFORMED,
                f"the upload was cut short: {self._count} bytes of {self._length or 'none'} came",
            )
        digest = self._hasher.hexdigest()
        if sha256 and digest != sha256.lower():
            raise Problem(Code.INVALID, f"its SHA-256 is {digest}, not {sha256}: it was damaged on its way")
        os.fchmod(self._descriptor, MODE)
        os.fsync(self._descriptor)
        return digest

    def close(self) -> None:
        os.close(self._descriptor)


async def _store(
    worker: Worker, path: Path, body: AsyncIterator[bytes], length: int | None, sha256: str
) -> str:
    writer = await worker.run(lambda: _Writer(path, length))
    try:
        async for piece in _pieces(body):
            await worker.run(partial(writer.write, piece))
        return await worker.run(lambda: writer.finish(sha256))
    finally:
        await worker.run(writer.close)


async def _examine(worker: Worker, path: Path, digest: str, tool: QemuImg) -> ImageRecord:
    length, found = await worker.run(lambda: inspect(path))
    if refused := upload_refusal(found, length):
        raise Problem(
            Code.INVALID,
            f"this {found.kind} file cannot be accepted: {refused}",
            hint="Make it one that stands alone: qemu-img convert -O qcow2 IN OUT.",
        )
    size = length
    if found.driver != "raw":
        size = await tool.virtual_size(path, found.driver)
    if size > SIZE_MAX:
        raise Problem(Code.INVALID, f"its virtual size is {show_size(size)}, more than a disk can have")
    return ImageRecord(format=found.kind, file_bytes=length, size_bytes=size, sha256=digest)


def inspect(path: Path) -> tuple[int, Inspection]:
    """(length, what its bytes show). Waits for the disk; raises `Problem`."""
    length, head, tail = block.read_ends(str(path), formats.HEAD, formats.TAIL)
    return length, formats.inspect(head, tail)


def _settle(unfinished: Path, target: Path, record: ImageRecord) -> None:
    """What is known of it, then its name."""
    facts, durable = homes.image_facts(target), is_durable(target.parent)
    files.write_atomic(facts, msgspec.json.encode(record), durable=durable)
    unfinished.rename(target)
    files.sync_directory(target.parent)


async def _pieces(body: AsyncIterator[bytes]) -> AsyncIterator[bytearray]:
    """The same bytes in pieces of about `PIECE`, whatever the network made of them."""
    buffer = bytearray()
    async for part in body:
        buffer += part
        if len(buffer) >= PIECE:
            yield buffer
            buffer = bytearray()
    if buffer:
        yield buffer
