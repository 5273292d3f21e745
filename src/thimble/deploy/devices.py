"""The disks this host can start from: the one it did, and the mirrors of its state. Keeps them in step.

The one we were started from is the truth; the others follow one after the other, so that one is always
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from thimble.contract.deploy import BootDevice
from thimble.core.problem import Code, Problem
from thimble.deploy import esp, mirror, sysfs
from thimble.deploy.boot_files import Esp, Op, PutImage
from thimble.deploy.esp import SlotImage
from thimble.deploy.image import inspect
from thimble.deploy.mounts import Mounts
from thimble.host.pid1 import BootFacts
from thimble.medium import loader


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A disk and its boot partition."""

    disk: str
    esp: str
    booted: bool = False


class Devices:
    """`state` tells PID 1's (kind, device) of the state, whose array names the mirrors."""

    def __init__(self, mounts: Mounts, state: Callable[[], tuple[str, str]]) -> None:
        self._mounts = mounts
        self._state = state

    def all(self, boot: BootFacts) -> tuple[Device, ...]:
        """The one we were started from first; none when no loader started us from a slot.

        A disk with slots may be there all the same: a host that was started over the network sees it, too.
        """
        if boot.medium is None or boot.medium.kind != "disk" or boot.slot not in loader.SLOTS:
            return ()
        found = [Device(disk=boot.medium.disk, esp=boot.medium.esp, booted=True)]
        kind, state = self._state()
        for member in sysfs.members(state) if kind == "partition" else ():
            disk = sysfs.disk_of(member)
            partition = sysfs.boot_partition(disk)
            if partition and partition != boot.medium.esp:
                found.append(Device(disk=disk, esp=partition))
        return tuple(found)

    def array(self) -> str:
        """The array the state lies on; empty when it lies on none."""
        kind, state = self._state()
        return state if kind == "partition" and sysfs.members(state) else ""

    def mirror(self) -> str:
        """How the mirror of the state is: `none`, `healthy`, `rebuilding`, `degraded`."""
        from thimble.sys import raid

        array = self.array()
        if not array:
            return "none"
        try:
            found = raid.status(array)
        except Problem:
            return "none"
        if found.wanted < 2:
            return "none"
        if found.whole:
            return "healthy"
        return "rebuilding" if found.synced is not None else "degraded"

    def first(self, boot: BootFacts) -> Device:
        """The one we were started from. Raises `Problem` CONFLICT when it cannot be updated."""
        found = self.all(boot)
        if not found:
            what = "a CD" if boot.medium is not None else "the network or a kernel handed over"
            raise Problem(
                Code.CONFLICT,
                f"this host was started from {what}, where nothing can be updated",
                hint="Install it on a disk first: thimble host install DISK",
            )
        return found[0]

    def read(self, device: Device) -> Esp:
        with self._mounts.mounted(device.esp) as root:
            return esp.read(root)

    def change(
        self,
        device: Device,
        decide: Callable[[Esp], tuple[Op, ...]],
        *,
        images: Mapping[str, SlotImage] = {},
        progress: Callable[[float], None] = lambda _: None,
        passed: Callable[[str], None] = lambda _: None,
    ) -> Esp:
        """Do what `decide` says about what is there; mounted for writing only when that is something."""
        before = self.read(device)
        ops = decide(before)
        if not ops:
            return before
        with self._mounts.mounted(device.esp, write=True) as root:
            esp.apply(root, ops, images=images, progress=progress, passed=passed)
            return esp.read(root)

    def follow(
        self, truth: Device, other: Device, progress: Callable[[float], None] = lambda _: None
    ) -> None:
        """Make `other` start what `truth` starts. Raises `Problem`."""
        with ExitStack() as stack:
            root = stack.enter_context(self._mounts.mounted(truth.esp))
            wanted = esp.read(root)
            ops = mirror.follow(wanted, self.read(other))
            if not ops:
                return
            images = {op.path: _source(root, op.path) for op in ops if isinstance(op, PutImage)}
            target = stack.enter_context(self._mounts.mounted(other.esp, write=True))
            esp.apply(target, ops, images=images, progress=progress)

    def view(self, boot: BootFacts) -> tuple[BootDevice, ...]:
        """As clients see them."""
        devices = self.all(boot)
        if not devices:
            return ()
        truth = self.read(devices[0])
        shown = [BootDevice(disk=devices[0].disk, booted=True, in_step=True)]
        for device in devices[1:]:
            try:
                problem = mirror.differences(truth, self.read(device))
            except Problem as error:
                problem = error.detail
            shown.append(BootDevice(disk=device.disk, booted=False, in_step=not problem, problem=problem))
        return tuple(shown)


def _source(root: Path, path: str) -> SlotImage:
    """A slot's file to be copied; read whole first, so that damage does not spread."""
    slot = path[len("thimble/")]
    file = root / loader.slot_path(slot)
    return SlotImage(path=file, sha256=inspect(file).sha256)
