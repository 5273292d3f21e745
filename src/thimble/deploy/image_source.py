"""Where an image comes from: the medium we run from, the web, an upload, or a datastore.

    <run>/deploy/upload.efi      what `deploy.upload` received; one at a time
    <run>/deploy/fetched.efi     what came from the web, for the time of its use

Both lie in memory, so that nothing is written to a disk before the image was checked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from thimble.contract.deploy import UPLOAD
from thimble.core.problem import Code, Problem
from thimble.core.units import MIB, show_size
from thimble.deploy.image import claims
from thimble.deploy.mounts import Mounts
from thimble.host import hardware
from thimble.host.pid1 import BootFacts
from thimble.storage import refs
from thimble.storage.service import Storage
from thimble.sys import files

IMAGE_MAX = 512 * MIB
#: Memory that stays free beside an image.
RESERVE = 128 * MIB
_PLACES = ("thimble/a.efi", "thimble/b.efi", "thimble.efi", "EFI/BOOT/BOOTX64.EFI")


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


class ImageSources:
    """Finds images by the name a request gives; `words`: of the kernel command line."""

    def __init__(
        self, run: Path, storage: Storage, mounts: Mounts, words: Callable[[], dict[str, str]]
    ) -> None:
        self._mounts = mounts
        self._words = words
        self._storage = storage
        self._folder = run / "deploy"
        self._fetching = asyncio.Lock()  # one from the web at a time: there is one file, and memory for one

    @property
    def uploaded(self) -> Path:
        return self._folder / "upload.efi"

    @asynccontextmanager
    async def opened(
        self, name: str, boot: BootFacts, progress: Callable[[float], None] = lambda _: None
    ) -> AsyncIterator[Path]:
        """The file that `name` stands for, there for the time of the block. Raises `Problem`."""
        name = name or self._words().get("thimble.image", "")
        if is_url(name):
            async with self._fetching, self._fetched(name, progress) as path:
                yield path
        elif name:
            yield await self.local(name)
        else:
            async with _in_threads(running(boot, self._mounts)) as path:
                yield path

    @asynccontextmanager
    async def _fetched(self, url: str, progress: Callable[[float], None]) -> AsyncIterator[Path]:
        from thimble.sys import fetch  # a megabyte, and rarely wanted

        target = self._folder / "fetched.efi"
        self._folder.mkdir(parents=True, exist_ok=True)
        check_memory(0)
        try:
            await fetch.fetch(url, target, limit=min(IMAGE_MAX, spare_memory()), progress=progress)
            yield target
        finally:
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def local(self, name: str) -> Path:
        """A file that is here already: the upload, or an image of a datastore. Raises `Problem`."""
        if name != UPLOAD:
            return (await self._storage.find_image(refs.parse(name, self._storage.default))).path
        if not self.uploaded.is_file():
            raise Problem(Code.NOT_FOUND, "no image was sent", hint="Send one: PUT /api/v1/host/image")
        return self.uploaded

    async def drop_upload(self) -> None:
        """It was used, or it is no image; fine when there is none."""
        await asyncio.to_thread(self.uploaded.unlink, missing_ok=True)

    async def receive(self, body: AsyncIterator[bytes], length: int | None, sha256: str) -> Path:
        """Take an upload in place of the last one. Raises `Problem`; then there is none."""
        check_memory(length or 0)
        unfinished = self._folder / "upload.new"
        try:
            count, digest = await self._write(unfinished, body)
            if count == 0 or (length is not None and count != length):
                raise Problem(
                    Code.MALFORMED, f"the upload was cut short: {count} bytes of {length or 'none'} came"
                )
            if sha256 and digest != sha256.lower():
                raise Problem(
                    Code.INVALID, f"its SHA-256 is {digest}, not {sha256}: it was damaged on its way"
                )
            await asyncio.to_thread(unfinished.rename, self.uploaded)
        except OSError as error:
            raise files.problem(error, "cannot keep the image in memory") from error
        finally:
            await asyncio.to_thread(unfinished.unlink, missing_ok=True)
        return self.uploaded

    async def _write(self, target: Path, body: AsyncIterator[bytes]) -> tuple[int, str]:
        """How many bytes came, and their SHA-256; both in a thread. Raises `OSError`, `Problem`."""
        digest, count = hashlib.sha256(), 0
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with target.open("wb") as file:

            def take(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            async for piece in body:
                count += len(piece)
                if count > IMAGE_MAX:
                    raise Problem(Code.TOO_LARGE, f"no image has more than {show_size(IMAGE_MAX)}")
                await asyncio.to_thread(take, piece)
        return count, digest.hexdigest()


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Path]) -> AsyncIterator[Path]:
    """One that waits for disks, entered and left off the loop; also when we are cancelled meanwhile."""
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        path = await asyncio.shield(entering)
        yield path
    finally:
        if not entering.done():
            await asyncio.wait({entering})
        if entering.exception() is None:
            await asyncio.to_thread(manager.__exit__, None, None, None)


@contextmanager
def running(boot: BootFacts, mounts: Mounts) -> Iterator[Path]:
    """The file we were started from, found by its build. Raises `Problem` NOT_FOUND."""
    hint = "Name an image: a URL, one in a datastore, or send one."
    if boot.medium is None or not boot.build:
        raise Problem(
            Code.NOT_FOUND, "this host was started over the network, so its image is not at hand", hint=hint
        )
    kind = "iso9660" if boot.medium.kind == "cd" else "vfat"
    with mounts.mounted(boot.medium.esp or boot.medium.disk, kind=kind) as root:
        places = [root / place for place in _PLACES] + sorted(root.glob("EFI/Linux/*.efi"))
        for path in places:
            if path.is_file() and claims(path).build == boot.build:
                yield path
                return
    raise Problem(Code.NOT_FOUND, f"{boot.medium.disk} no longer holds the image this host runs", hint=hint)


def spare_memory() -> int:
    return max(0, hardware.memory()[1] - RESERVE)


def check_memory(needed: int) -> None:
    """Raises `Problem` NO_MEMORY."""
    spare = spare_memory()
    if needed > spare or spare < 64 * MIB:
        raise Problem(
            Code.NO_MEMORY,
            f"there is no room in memory for the image: {show_size(spare)} to spare",
            hint="Upload it into a datastore, and name it DATASTORE/NAME.",
        )
