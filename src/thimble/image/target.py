"""What an image is about to be written to, and whether it may be.

A disk in use or too small is refused for good; one that looks like it was not meant (very large, or built
in) until one says so. A file stands for a disk and may be made new.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from thimble.image.fault import fault

LARGE_BYTES = 256 * 10**9
_BLKGETSIZE64 = 0x80081272
_SYS = Path("/sys/dev/block")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTarget:
    """`is_new`: a file that is not there yet. `uses` are words on who holds it. `whole`: no partition."""

    path: Path
    is_device: bool = False
    is_new: bool = False
    size: int = 0
    whole: bool = True
    removable: bool = True
    model: str = ""
    uses: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        name = f" ({self.model})" if self.model else ""
        return f"{self.path}{name}" + (f", {self.size / 1e9:.1f} GB" if self.size else "")


def blockers(target: WriteTarget, image_bytes: int, allowed: Iterable[str]) -> list[str]:
    """Why not; nothing when it may be written. `allowed` are `large` and `internal`. Pure."""
    allowed_names = set(allowed)
    found = [f"it is in use: {use}" for use in target.uses]
    if not target.whole:
        found.append("it is a partition: give the whole disk")
    if not target.is_new and target.size < image_bytes:
        found.append(f"it is too small: {target.size} bytes, the image needs {image_bytes}")
    if target.is_device and target.size > LARGE_BYTES and "large" not in allowed_names:
        found.append(
            f"it has {target.size / 1e9:.0f} GB, too large for a stick: use --large if it is the right disk"
        )
    if target.is_device and not target.removable and "internal" not in allowed_names:
        found.append("it is an internal disk: use --internal if it is the right one")
    return found


def look(path: Path) -> WriteTarget:
    """The facts. Raises NOT_FOUND, INVALID, and FORBIDDEN where they may not be read."""
    path = path.resolve()
    try:
        found = path.stat()
    except FileNotFoundError:
        if str(path).startswith("/dev/") or not path.parent.is_dir():
            raise fault("not-found", f"there is no {path}") from None
        return WriteTarget(path=path, is_new=True)
    if stat.S_ISREG(found.st_mode):
        return WriteTarget(path=path, size=found.st_size)
    if not stat.S_ISBLK(found.st_mode):
        raise fault("invalid", f"{path} is neither a disk nor a file")
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    about = (_SYS / number).resolve()
    return WriteTarget(
        path=path,
        is_device=True,
        size=_size(path),
        whole=not (about / "partition").exists(),
        removable=_removable(about),
        model=" ".join(_read(about / "device" / name) for name in ("vendor", "model")).strip(),
        uses=tuple(_uses(about)),
    )


def _size(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise fault("forbidden", f"{path} may not be opened", hint="run it as root") from None
    try:
        answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
        return int(struct.unpack("<Q", answer)[0])
    finally:
        os.close(descriptor)


def _removable(about: Path) -> bool:
    """What says so itself, hangs on USB, or is a card; loop devices are files in disguise."""
    name = about.name
    return (
        _read(about / "removable") == "1" or "/usb" in str(about) or name.startswith(("mmcblk", "loop", "sr"))
    )


def _uses(about: Path) -> list[str]:
    """Mounts, swap and other devices on the disk or on one of its partitions."""
    parts = [about, *(path.parent for path in about.glob("*/partition"))]
    numbers = {_read(part / "dev"): part.name for part in parts}
    found = [
        f"{part.name} is part of {held.name}" for part in parts for held in sorted(part.glob("holders/*"))
    ]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if name := numbers.get(words[2]):
            found.append(f"{name} is mounted on {words[4]}")
    names = {f"/dev/{part.name}" for part in parts}
    swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    found += [f"{line.split()[0]} is swap" for line in swaps if line.split()[0] in names]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
