"""The support bundle: what one needs to understand a host from afar, as one tar.gz, without secrets.

    bundle.json                   when, which version, and the parts that could not be had
    host/… hardware, sensors, health, time, log
    vms/NAME.json, vms/NAME.qemu.log
    network/… storage/… deploy/… document.json

A part that fails is named and left out. Guests' consoles and disks are never in it. Everything goes through
`redact.Mask`, the log too.
"""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from thimble.core.problem import Problem
from thimble.dispatch.registry import Registry
from thimble.host.redact import Mask
from thimble.sys import command

#: Seconds for each part.
PART_S = 20.0
_LOG_LINES = 10_000
_QEMU_LOG = 64 * 1024
#: file → verb
_VERBS = {
    "host/host.json": "host.get",
    "host/hardware.json": "host.hardware",
    "host/sensors.json": "host.sensors",
    "host/health.json": "host.health",
    "host/time.json": "host.time",
    "host/tasks.json": "task.list",
    "host/management.json": "management.get",
    "vms/list.json": "vm.list",
    "network/switches.json": "switch.list",
    "storage/datastores.json": "datastore.list",
    "storage/volumes.json": "volume.list",
    "storage/images.json": "image.list",
    "deploy/deploy.json": "deploy.get",
    "deploy/document.json": "document.get",
}
_COMMANDS = {
    "network/addresses.json": ["ip", "-j", "-d", "address", "show"],
    "network/routes.txt": ["ip", "route", "show", "table", "all"],
    "network/neighbours.txt": ["ip", "neigh", "show"],
    "network/bridges.txt": ["bridge", "link", "show"],
    "network/rules.txt": ["nft", "list", "ruleset"],
}
_FILES = {
    "host/boot.json": "{run}/boot.json",
    "host/cpuinfo.txt": "/proc/cpuinfo",
    "host/meminfo.txt": "/proc/meminfo",
    "host/interrupts.txt": "/proc/interrupts",
    "host/modules.txt": "/proc/modules",
    "host/slabs.txt": "/proc/slabinfo",
    "network/devices.txt": "/proc/net/dev",
    "network/uplink.json": "{run}/net/uplink.json",
    "storage/mounts.txt": "/proc/mounts",
    "storage/mirrors.txt": "/proc/mdstat",
    "storage/partitions.txt": "/proc/partitions",
    "storage/disks.txt": "/proc/diskstats",
}


#: Makes one file's content.
Part = Callable[[], Awaitable[bytes]]


class Bundle:
    """`known`: strings that are secret."""

    def __init__(
        self,
        registry: Registry,
        run: Path,
        *,
        known: Callable[[], list[str]],
        now: Callable[[], float],
    ) -> None:
        self._registry, self._run = registry, run
        self._known, self._now = known, now

    async def make(self, version: str) -> bytes:
        """The archive's bytes."""
        mask, missing = Mask(self._known()), dict[str, str]()
        found: dict[str, bytes] = {}
        for name, part in {**self._parts(mask), **await self._vm_parts(mask)}.items():
            try:
                async with asyncio.timeout(PART_S):
                    found[name] = await part()
            except (Problem, OSError, TimeoutError, ValueError) as error:
                missing[name] = mask.text(str(error) or type(error).__name__)
        about = {"version": version, "made": self._now(), "missing": missing}
        found["bundle.json"] = _json(about)
        return await asyncio.to_thread(pack, found, self._now())

    def _parts(self, mask: Mask) -> dict[str, Part]:
        return {
            **{name: partial(self._verb, mask, verb) for name, verb in _VERBS.items()},
            "host/log.txt": partial(self._log, mask),
            "document.json": partial(self._document, mask),
            **{name: partial(self._command, mask, argv) for name, argv in _COMMANDS.items()},
            **{name: partial(self._file, mask, path) for name, path in _FILES.items()},
        }

    async def _vm_parts(self, mask: Mask) -> dict[str, Part]:
        found: dict[str, Part] = {}
        for id in sorted(row.id for row in (await self._registry.ask("vm.list")).vms):
            found[f"vms/{id}.json"] = partial(self._verb, mask, "vm.get", vm=id)
            if (self._run / "vms" / id / "qemu.log").exists():
                path = f"{{run}}/vms/{id}/qemu.log"
                found[f"vms/{id}.qemu.log"] = partial(self._file, mask, path, last=_QEMU_LOG)
        return found

    async def _verb(self, mask: Mask, name: str, **path: str) -> bytes:
        return _json(mask.tree(await self._registry.ask(name, path=path)))

    async def _log(self, mask: Mask) -> bytes:
        found = await self._registry.ask("host.logs", query={"lines": str(_LOG_LINES)})
        rows = (f"{line.time:.3f} {line.level} {line.source}: {line.text}" for line in found.lines)
        return mask.text("\n".join(rows)).encode()

    async def _document(self, mask: Mask) -> bytes:
        text = (await self._registry.ask("document.export")).text
        return await asyncio.to_thread(_document, text, mask)

    async def _command(self, mask: Mask, argv: list[str]) -> bytes:
        result = await command.run(argv, timeout=PART_S / 2)
        return mask.text(result.stdout.decode(errors="replace")).encode()

    async def _file(self, mask: Mask, path: str, *, last: int = 0) -> bytes:
        """All of it, or its `last` characters."""
        text = await asyncio.to_thread(_read, Path(path.format(run=self._run)))
        return mask.text(text[-last:]).encode()


def pack(files: Mapping[str, bytes], made: float) -> bytes:
    """A tar.gz of these, below one directory."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=6) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"thimble-support/{re.sub(r'[^A-Za-z0-9._/-]', '_', name)}")
            entry.size, entry.mtime, entry.mode = len(data), int(made), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return whole.getvalue()


def _document(text: str, mask: Mask) -> bytes:
    import tomllib

    from thimble.contract.document import Document

    return _json(mask.tree(msgspec.convert(tomllib.loads(text), Document)))


def _read(path: Path) -> str:
    return path.read_text(errors="replace")


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
