"""Images: found, checked before each use, opened for QEMU, deleted. `upload` takes them in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem
from thimble.storage import homes, refs
from thimble.storage.attachments import Claims
from thimble.storage.datastores import Datastores
from thimble.storage.headers import Headers
from thimble.storage.homes import Home
from thimble.storage.records import ImageFacts, ImageRecord
from thimble.storage.standalone import image_refusal, unknown_refusal
from thimble.storage.upload import MODE, inspect, receive
from thimble.sys import files
from thimble.sys.worker import Worker

if TYPE_CHECKING:
    from thimble.storage.qemu_img import QemuImg


class Images:
    """All images of all datastores that are there."""

    def __init__(self, datastores: Datastores, tool: Lazy[QemuImg], claims: Claims) -> None:
        self._datastores = datastores
        self._tool = tool
        self.claims = claims
        self._headers = Headers(inspect)
        self._records = Headers(_read_record)

    def resolve(self, ref: str, home: str) -> ImageFacts:
        """The image that `ref` names. Raises `Problem` NOT_FOUND, UNAVAILABLE, INVALID."""
        whole = refs.parse(ref, home)
        path = self._datastores.home(whole.datastore).find_image(whole.name)
        if path is None:
            raise Problem(
                Code.NOT_FOUND,
                f"there is no image {whole}",
                hint="Upload it with `thimble image upload`, or list them with `thimble image list`.",
            )
        facts = self._facts(str(whole), path)
        self._check_alone(facts)
        return facts

    async def all(self) -> list[ImageFacts]:
        """Every image, but those that cannot be read or whose datastore does not answer."""
        found = await self._datastores.each(lambda store, home: list(self._of(store, home)))
        return [facts for part in found for facts in part]

    def _of(self, store: str, home: Home) -> Iterator[ImageFacts]:
        for path in home.image_files():
            with suppress(Problem):
                yield self._facts(f"{store}/{path.name}", path)

    async def receive(
        self, store: str, name: str, body: AsyncIterator[bytes], length: int | None, sha256: str
    ) -> ImageFacts:
        """Take an upload; the caller has claimed the name. Raises `Problem` as `upload.receive`."""
        await receive(self._datastores.home(store).image(name), body, length, sha256, self._tool.get())
        await self._datastores.measure(store)
        return self.resolve(name, store)

    async def remove(self, facts: ImageFacts) -> None:
        """Its file and what is known of it. Raises `Problem`."""
        worker = Worker(f"remove {facts.ref}")
        await worker.run(lambda: files.remove_large(facts.path))
        await worker.run(lambda: files.remove(homes.image_facts(facts.path)))
        await self._datastores.measure(refs.parse(facts.ref, "").datastore)

    def _facts(self, ref: str, path: Path) -> ImageFacts:
        """From the file beside it; made up for when that is missing, as for a file copied there by hand."""
        try:
            used = path.stat().st_blocks * 512
            try:
                record = self._records.get(homes.image_facts(path))
            except FileNotFoundError:
                record = self._unknown(path)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise Problem(Code.FAILED, f"cannot read what is known of the image {ref}: {error}") from error
        return ImageFacts(
            ref=ref,
            path=path,
            kind=record.format,
            format=record.format if record.format != "iso" else "raw",
            size_bytes=record.size_bytes,
            file_bytes=record.file_bytes,
            used_bytes=used,
            sha256=record.sha256,
        )

    def _check_alone(self, facts: ImageFacts) -> None:
        """Raises `Problem` INVALID when it does not."""
        length, found = self._headers.get(facts.path)
        if why := image_refusal(found, length, facts.kind, facts.format):
            raise Problem(
                Code.INVALID, f"the image {facts.ref} cannot be used: {why}", hint="Upload it again."
            )

    def _unknown(self, path: Path) -> ImageRecord:
        length, found = self._headers.get(path)
        if unknown_refusal(found, length):
            raise Problem(Code.INVALID, f"{path.name} was not uploaded and cannot be used: upload it")
        size = found.size_bytes or length
        return ImageRecord(format=found.kind, file_bytes=length, size_bytes=size, sha256="")


def _read_record(path: Path) -> ImageRecord:
    return msgspec.json.decode(path.read_bytes(), type=ImageRecord)


def open_again(path: Path) -> int:
    """A descriptor that QEMU can open once more, by `/proc/self/fd/N` and as its own user, without a copy.

    The kernel asks only the file's mode then, not the way to it: so the file is for all to read, and its
    directory for nobody to enter. Whoever was given no descriptor has no way to it. Raises `Problem`.
    """
    try:
        descriptor = files.open_regular(path, os.O_RDONLY)
        try:
            if path.parent.stat().st_mode & 0o077:
                path.parent.chmod(0o700)
            if os.fstat(descriptor).st_mode & MODE != MODE:  # of an older Thimble, or copied here by hand
                os.fchmod(descriptor, MODE)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise files.problem(error, f"cannot open {path}") from error
    return descriptor
