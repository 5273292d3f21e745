"""The tiny guest: the cloud kernel and one busybox. For tests: up in seconds even under TCG.

On its console (ttyS0): `tiny guest: up` first, `tiny guest: address A` when DHCP answered (3 s are given to
it), then a shell with the prompt `tiny# `. Port 7 answers any connection with `tiny guest: hello`. The
power button powers it off; `reboot -f` resets it, `crash` makes its kernel panic. `tiny.run=CMD,ARG,…` on
the kernel command line runs a command at boot.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from thimble.guest import initrd, packages
from thimble.guest.parts import Parts
from thimble.image import cache, cpio
from thimble.image.progress import Report, silent

CMDLINE = "console=ttyS0 quiet panic=-1"


class TinyGuest(msgspec.Struct, frozen=True, kw_only=True):
    kernel: Path
    initrd: Path
    cmdline: str = CMDLINE


def ensure(report: Report = silent) -> TinyGuest:
    """The tiny guest's files in the cache, made if missing."""
    lock = packages.ensure(report)
    name = cache.key(
        "tiny",
        1,
        [pin.sha256 for pin in lock.named("parts")],
        initrd.TINY_INIT,
        initrd.SCRIPTS,
        initrd.TINY_MODULES,
    )
    home = cache.directory(
        cache.root() / "guests" / f"tiny-{name[:16]}", lambda into: _make(into, Parts(lock))
    )
    return TinyGuest(kernel=home / "vmlinuz", initrd=home / "initrd")


def _make(into: Path, parts: Parts) -> None:
    modules = {module: parts.module(module) for module in initrd.TINY_MODULES}
    (into / "initrd").write_bytes(cpio.archive(initrd.tiny(parts.busybox, modules)))
    (into / "vmlinuz").write_bytes(parts.kernel.read_bytes())
