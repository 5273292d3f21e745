"""Images, boot partitions in directories, loaders that choose as systemd-boot and GRUB do; and a host."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import struct
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from thimble.contract.common import DryRun, TaskState
from thimble.contract.verbs import Started
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Code, Problem
from thimble.deploy import esp, slots
from thimble.deploy.boot_files import Op
from thimble.deploy.context import DeployContext, DeployParts
from thimble.deploy.esp import SlotImage
from thimble.deploy.image import BootImage, inspect
from thimble.host.pid1 import BootFacts
from thimble.medium import loader
from thimble.state.events import Events
from thimble.state.tasks import Tasks

BIOS, UEFI = slots.BIOS, slots.UEFI


def image_bytes(
    *,
    version: str = "0.1.0",
    kernel: bytes = b"kernel",
    initrd: bytes = b"initrd",
    build: str = "",
    machine: int = 0x8664,
    name: str = "thimble",
    loaders: bool = True,
) -> bytes:
    """A whole thimble.efi, but for code that could run."""
    build = build or hashlib.sha256(kernel + initrd).hexdigest()[:16]
    sections = {
        ".osrel": f'ID={name}\nPRETTY_NAME="{name}"\nVERSION_ID={version}\n'.encode(),
        ".cmdline": f"quiet thimble.build={build}\0".encode(),
        ".linux": kernel,
        ".initrd": initrd,
    }
    if loaders:
        sections[".loader"] = _tar()
    optional = bytes(112) + bytes(16 * 8)
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40))
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), 0) + optional
    body, at = b"", 1024
    for section, data in sections.items():
        padded = data.ljust(-(-len(data) // 512) * 512, b"\0")
        head += section.encode().ljust(8, b"\0")
        head += struct.pack("<IIII", len(data), 0, len(padded), at) + bytes(16)
        body, at = body + padded, at + len(padded)
    return bytes(head).ljust(1024, b"\0") + body


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, size in (("systemd-bootx64.efi", 3000), ("boot.img", 512), ("core.img", 2000)):
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(name.encode().ljust(size, b".")))
    return out.getvalue()


def made(path: Path, **options: Any) -> BootImage:
    """An image in a file, inspected."""
    path.write_bytes(image_bytes(**options))
    return inspect(path)


def apply(root: Path, ops: tuple[Op, ...], image: BootImage | None = None) -> None:
    images = {}
    if image is not None:
        images = {f"thimble/{slot}.efi": SlotImage(path=image.path, sha256=image.sha256) for slot in "ab"}
    esp.apply(root, ops, images=images)


def stick(root: Path, image: BootImage) -> Path:
    """A new boot partition."""
    root.mkdir()
    apply(root, slots.fresh(image.manifest, image.menu("a"), systemd_boot=b"boot"), image)
    return root


def starts(root: Path, firmware: str) -> str:
    """The slot the loader starts from this boot partition; it counts as the real ones do."""
    return _grub(root) if firmware == BIOS else _systemd_boot(root)


def _systemd_boot(root: Path) -> str:
    found = []
    for path in sorted((root / loader.ENTRIES).glob("*.conf")):
        entry, text = loader.parse_entry(path.name), path.read_text()
        if entry is None or "efi /" not in text:
            continue
        found.append((entry.left != 0, loader.entry_number(text), entry.slot, entry, path))
    while found:
        best = max(found, key=lambda one: one[:3])
        found.remove(best)
        *_, slot, entry, path = best
        if entry.left:
            counted = loader.Entry(slot=slot, left=entry.left - 1, done=entry.done + 1)
            path.rename(path.with_name(counted.name))
        if whole(root, slot):
            return slot
    return ""


def _grub(root: Path) -> str:
    choice = loader.parse_environment((root / loader.ENVIRONMENT).read_bytes())
    slot = choice.default
    if choice.trial and choice.tries:
        slot = choice.trial
        counted = loader.Choice(default=choice.default, trial=slot, tries=choice.tries - 1)
        (root / loader.ENVIRONMENT).write_bytes(loader.environment(counted))
    for each in (slot, loader.other(slot)):
        if (root / f"thimble/{each}.cfg").is_file() and whole(root, each):
            return each
    return ""


def whole(root: Path, slot: str) -> bool:
    """Is the slot's file one that starts? Half of one counts as one that does not."""
    path = root / loader.slot_path(slot)
    try:
        return path.is_file() and bool(inspect(path).build)
    except Exception:
        return False


class FakeInit:
    """PID 1, of whom only the verbs are kept; with them what becomes of the VMs."""

    present, searched = True, True
    warnings: tuple[str, ...] = ()
    state = ("partition", "/dev/none")

    def __init__(self, boot: BootFacts) -> None:
        self.words: dict[str, str] = {}
        self.boot = boot
        self.told: list[str] = []
        self.lines: list[str] = []
        self.stopped: list[tuple[float, HostShutdown | None]] = []
        self.rebooting: asyncio.Event | None = None
        self.deaf_to: tuple[str, ...] = ()

    def tell(self, verb: str, **more: object) -> None:
        self.told.append(verb)
        if verb in self.deaf_to:
            raise Problem(Code.UNAVAILABLE, f"PID 1 does not take {verb!r}")
        if verb == "say":
            self.lines.append(str(more["line"]))
        if verb == "reboot" and self.rebooting is not None:
            self.rebooting.set()

    @asynccontextmanager
    async def guests_stopped(self, timeout: float, how: HostShutdown | None) -> AsyncIterator[None]:
        self.told.append("guests")
        self.stopped.append((timeout, how))
        try:
            yield
        except BaseException:
            self.stopped.clear()
            raise


class FakeHealth:
    """`before` is what works now; `wrong` what a trial boot finds, which was asked for `asked`."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.wrong = ""
        self.asked: list[Any] = []

    async def expectations(self) -> Any:
        return self.before

    async def prove(self, expect: Any) -> str:
        self.asked.append(expect)
        return self.wrong


class FakeKeys:
    """Trusts every signature, unless it is told `refusal`."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None

    async def signer(self, image: Path, *, signed: bool) -> str:
        if self.refusal is not None:
            raise self.refusal
        return "tests"


class FakeStorage:
    """`local`, with nothing in it."""

    default = "local"

    def names(self) -> list[str]:
        return ["local"]

    def homes(self) -> dict[str, Path]:
        return {}


def context(base: Path, init: FakeInit, *, health: Any, keys: Any = None) -> DeployContext:
    """A host with its state and run directories below `base`."""
    numbers = itertools.count()
    events = Events(base=1, clock=lambda: 1.0)
    tasks = Tasks(events, clock=lambda: 1.0, entropy=lambda count: next(numbers).to_bytes(count, "big"))
    pid1: Any = init
    storage: Any = FakeStorage()
    parts = DeployParts(
        state=base / "state",
        run=base / "run",
        durable=False,
        hosted=False,
        port=443,
        init=pid1,
        storage=storage,
        tasks=tasks,
        events=events,
        fingerprint="ab" * 32,
        guests_stopped=init.guests_stopped,
        ram_vms=lambda: (),
    )
    return DeployContext(parts, keys=keys or FakeKeys(), health=health)


def finished(deploy: DeployContext, verb: Callable[[], Awaitable[Started | DryRun]]) -> dict[str, str]:
    """The result of the task that `verb` starts. Raises the verb's `Problem`, or the task's."""

    async def work() -> dict[str, str]:
        started = await verb()
        assert isinstance(started, Started)
        task = await deploy.parts.tasks.wait(started.task.id, 30)
        if task.problem is not None:
            raise task.problem.problem()
        assert task.state is TaskState.DONE, task
        return task.result

    return asyncio.run(work())
