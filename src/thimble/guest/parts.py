"""What both guests share: the cloud kernel, its modules as bytes, and the static busybox."""

from __future__ import annotations

import lzma
from pathlib import Path

from thimble.guest import packages
from thimble.image.fault import fault
from thimble.image.locking import Lock, Pin


class Parts:
    """The extracted packages of the set `parts`."""

    def __init__(self, lock: Lock) -> None:
        self.pins = lock.named("parts")
        self._kernel = packages.extracted(self._pin(packages.KERNEL))
        self._busybox = packages.extracted(self._pin(packages.BUSYBOX))

    @property
    def kernel(self) -> Path:
        """The kernel's bzImage."""
        return self._kernel / "boot" / f"vmlinuz-{self.release}"

    @property
    def release(self) -> str:
        """What `uname -r` says in the guest."""
        return self.modules.name

    @property
    def modules(self) -> Path:
        """The directory of the kernel's modules (without modules.dep, which depmod makes)."""
        return next(iter(sorted((self._kernel / "usr/lib/modules").iterdir())))

    @property
    def busybox(self) -> bytes:
        return (self._busybox / "usr/bin/busybox").read_bytes()

    def module(self, name: str) -> bytes:
        """One module, unpacked, so that the guest's slow processor need not do it."""
        for path in sorted(self.modules.rglob(f"{name}.ko.xz")):
            return lzma.decompress(path.read_bytes())
        raise fault(
            "not-found", f"the guest's kernel has no module {name}", hint="was the kernel package changed?"
        )

    def _pin(self, start: str) -> Pin:
        return next(pin for pin in self.pins if pin.name.startswith(start))
