"""Images: received, checked, found again, deleted.

An upload lies under a temporary name until its last byte is here, its digest is right and its format is one
that refers to no other file; only then it gets its name. Whatever goes wrong before leaves nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.core.units import show_size
from thimble.state.store import is_durable
from thimble.storage import formats
from thimble.storage.datastores import Datastores
from thimble.storage.qemu_img import QemuImg
from thimble.storage.records import ImageFacts, ImageRecord
from thimble.storage.rules import RESERVE, SIZE_MAX, split_ref
from thimble.sys import block, files

#: Written and hashed at once, in a thread.
PIECE = 1024 * 1024
#: Free space is looked at again after so many bytes.
_LOOK = 64 * 1024 * 1024


class Images:
    """All images of all mounted datastores."""

    def __init__(self, datastores: Datastores, tool: QemuImg) -> None:
        self._datastores = datastores
        self._tool = tool
        self._receiving: set[Path] = set()

    def resolve(self, ref: str, home: str) -> ImageFacts:
        """The image that `ref` names. Raises `Problem` NOT_FOUND, UNAVAILABLE."""
        store, name = split_ref(ref, home)
        root = self._datastores.root(store)
        path = root / "images" / name
        named = "/" not in name and not name.startswith(".") and not name.endswith(".json")
        if not named or not files.regular(path, root):
            raise Problem(
                Code.NOT_FOUND,
                f"there is no image {store}/{name}",
                hint="Upload it with `thimble image upload`, or list them with `thimble image list`.",
            )
        facts = _facts(f"{store}/{name}", path)
        _check_alone(facts)
        return facts

    def all(self) -> Iterator[ImageFacts]:
        for store, root in self._datastores.mounted().items():
            for path in sorted((root / "images").iterdir()):
                if path.name.startswith(".") or path.suffix == ".json" or not files.regular(path, root):
                    continue
                try:
                    yield _facts(f"{store}/{path.name}", path)
                except Problem:
                    continue

    async def receive(
        self, store: str, name: str, body: AsyncIterator[bytes], length: int | None, sha256: str
    ) -> ImageFacts:
        """Take an upload. Raises `Problem`: NO_SPACE, MALFORMED when it is cut short, INVALID, CONFLICT."""
        target = self._datastores.root(store) / "images" / name
        if target in self._receiving:
            raise Problem(Code.CONFLICT, f"{store}/{name} is being uploaded already")
        unfinished = target.with_name(f".{name}.new")
        self._receiving.add(target)
        try:
            digest = await _store(unfinished, body, length, sha256)
            record = await self._examine(unfinished, digest)
            files.write_atomic(
                target.with_name(f"{name}.json"),
                msgspec.json.encode(record),
                durable=is_durable(target.parent),
            )
            unfinished.rename(target)
            files.sync_directory(target.parent)
        except OSError as error:
            raise files.problem(error, f"cannot store {store}/{name}") from error
        finally:
            try:
                if unfinished.exists():
                    await files.remove_large(unfinished)
            finally:
                self._receiving.discard(target)
        return _facts(f"{store}/{name}", target)

    async def remove(self, facts: ImageFacts) -> None:
        await files.remove_large(facts.path)
        files.remove(facts.path.with_name(f"{facts.path.name}.json"))

    async def _examine(self, path: Path, digest: str) -> ImageRecord:
        length, head, tail = block.read_ends(str(path), formats.HEAD, formats.TAIL)
        found = formats.inspect(head, tail)
        refused = found.refused
        if found.driver == "vmdk" and length % 512:
            refused = "it does not end with a whole sector"  # QEMU would look for its footer elsewhere
        if refused:
            raise Problem(
                Code.INVALID,
                f"this {found.kind} file cannot be accepted: {refused}",
                hint="Make it one that stands alone: qemu-img convert -O qcow2 IN OUT.",
            )
        size = length
        if found.driver != "raw":
            size = await self._tool.virtual_size(path, found.driver)
        if size > SIZE_MAX:
            raise Problem(Code.INVALID, f"its virtual size is {show_size(size)}, more than a disk can have")
        return ImageRecord(format=found.kind, file_bytes=length, size_bytes=size, sha256=digest)


async def _store(path: Path, body: AsyncIterator[bytes], length: int | None, sha256: str) -> str:
    """Write `body` to `path`; the digest of what came."""
    import hashlib

    hasher = hashlib.sha256()
    free = files.space(path.parent)[1] - RESERVE
    if length is not None and length > free:
        raise Problem(
            Code.NO_SPACE, f"{show_size(length)} do not fit into {show_size(max(0, free))} that are free"
        )
    count = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(data: bytearray) -> None:
        hasher.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    try:
        async for piece in _pieces(body):
            count += len(piece)
            if (count - len(piece)) // _LOOK != count // _LOOK:  # others write here too
                free = count + files.space(path.parent)[1] - RESERVE
            if count > free:
                raise Problem(Code.NO_SPACE, f"it is larger than the {show_size(max(0, free))} that are free")
            await asyncio.to_thread(write, piece)
        if count == 0 or (length is not None and count != length):
            raise Problem(
                Code.MALFORMED, f"the upload was cut short: {count} bytes of {length or 'none'} came"
            )
        digest = hasher.hexdigest()
        if sha256 and digest != sha256.lower():
            raise Problem(Code.INVALID, f"its SHA-256 is {digest}, not {sha256}: it was damaged on its way")
        await asyncio.to_thread(os.fsync, descriptor)
        return digest
    finally:
        os.close(descriptor)


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


def _facts(ref: str, path: Path) -> ImageFacts:
    """From the file beside it; made up for when that is missing, as for a file copied there by hand."""
    try:
        stat = path.stat()
        record = msgspec.json.decode(path.with_name(f"{path.name}.json").read_bytes(), type=ImageRecord)
    except FileNotFoundError:
        record = _unknown(path)
    except (OSError, ValueError) as error:
        raise Problem(Code.FAILED, f"cannot read what is known of the image {ref}: {error}") from error
    return ImageFacts(
        ref=ref,
        path=path,
        kind=record.format,
        format=record.format if record.format != "iso" else "raw",
        size_bytes=record.size_bytes,
        file_bytes=record.file_bytes,
        used_bytes=stat.st_blocks * 512,
        sha256=record.sha256,
    )


def _check_alone(facts: ImageFacts) -> None:
    """The file beside it may be another host's word: what is used is looked at again. Raises `Problem`."""
    _, head, tail = block.read_ends(str(facts.path), formats.HEAD, formats.TAIL)
    found = formats.inspect(head, tail)
    why = found.refused or ("" if found.driver == facts.format else f"it is {found.kind}, not {facts.kind}")
    if why:
        raise Problem(Code.INVALID, f"the image {facts.ref} cannot be used: {why}", hint="Upload it again.")


def _unknown(path: Path) -> ImageRecord:
    length, head, tail = block.read_ends(str(path), formats.HEAD, formats.TAIL)
    found = formats.inspect(head, tail)
    if found.refused or found.kind in ("vmdk", "vhdx", "vdi", "vpc"):
        raise Problem(Code.INVALID, f"{path.name} was not uploaded and cannot be used: upload it")
    return ImageRecord(format=found.kind, file_bytes=length, size_bytes=found.size_bytes or length, sha256="")
