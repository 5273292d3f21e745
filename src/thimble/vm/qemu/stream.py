"""QEMU's memory to a file and back, over QMP: its migration, with a descriptor of ours as the other host.

The vCPUs stand still meanwhile, so every page is written once; pages of zeros take no room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from thimble.core.problem import Code, Problem
from thimble.vm.qemu.qmp import Control, Json

#: Under this name QEMU keeps the descriptor.
KEY = "saved.state"
#: Bytes per second: none that a disk could reach. QEMU's own default is 128 MiB/s.
_UNLIMITED = 1 << 40
#: Between two looks at how far it is.
LOOK_EVERY_S = 0.1


async def out(
    qmp: Control, descriptor: int, offset: int, tell: Callable[[float], None], cancelled: Callable[[], bool]
) -> None:
    """Write the stopped machine into `descriptor` from `offset` on. Raises `Problem` in QEMU's words."""
    await qmp.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
    async with _Handed(qmp, descriptor) as path:
        await qmp.execute("migrate", _channel(path, offset))
        await _completed(qmp, tell, cancelled, "saving")


async def into(qmp: Control, descriptor: int, offset: int, tell: Callable[[float], None]) -> None:
    """Fill a QEMU that waits for it. It stands still afterwards. Raises `Problem` in QEMU's words."""
    async with _Handed(qmp, descriptor) as path:
        await qmp.execute("migrate-incoming", _channel(path, offset) | {"exit-on-error": False})
        await _completed(qmp, tell, lambda: False, "loading")


async def stop(qmp: Control, timeout: float = 30.0) -> None:
    """End a migration that may be going on. Raises `Problem` when it goes on all the same."""
    with suppress(Problem):
        await qmp.execute("migrate_cancel")
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while (await qmp.execute("query-migrate")).get("status") in ("setup", "active", "cancelling", "device"):
        if loop.time() > end:
            raise Problem(Code.TIMEOUT, f"QEMU does not end its migration within {timeout:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)


class _Handed:
    """A descriptor in QEMU's hands inside the `with` block; its path there."""

    def __init__(self, qmp: Control, descriptor: int) -> None:
        self._qmp = qmp
        self._descriptor = descriptor
        self._set = -1

    async def __aenter__(self) -> str:
        self._qmp.send(self._descriptor)
        self._set = int((await self._qmp.execute("add-fd", {"opaque": KEY}))["fdset-id"])
        return f"/dev/fdset/{self._set}"

    async def __aexit__(self, *_: object) -> None:
        with suppress(Problem):  # it may have ended
            await self._qmp.execute("remove-fd", {"fdset-id": self._set})


def _channel(path: str, offset: int) -> Json:
    address = {"transport": "file", "filename": path, "offset": offset}
    return {"channels": [{"channel-type": "main", "addr": address}]}


async def _completed(
    qmp: Control, tell: Callable[[float], None], cancelled: Callable[[], bool], doing: str
) -> None:
    while (found := await qmp.execute("query-migrate")).get("status") != "completed":
        if found.get("status") in ("failed", "cancelled"):
            raise _failed(found.get("error-desc") or "QEMU does not say why", doing)
        if cancelled():
            raise Problem(Code.CANCELLED, "cancelled on request")
        ram = found.get("ram") or {}
        if ram.get("total"):
            tell(1.0 - ram["remaining"] / ram["total"])
        await asyncio.sleep(LOOK_EVERY_S)


def _failed(words: str, doing: str) -> Problem:
    full = "No space left" in words or "quota exceeded" in words
    hint = "Free space on that datastore." if full else ""
    return Problem(Code.NO_SPACE if full else Code.FAILED, f"{doing} failed: {words}", hint=hint)
