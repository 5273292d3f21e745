"""What lies where in the image, as a list of entries; pure.

    early    unpacked into the RAM root: python, the boot path, /etc   `py/…  lib/…  etc/…`
    root     packed into root.squashfs, mounted at /usr              `bin/…  lib/…  share/…`
    first    uncompressed at the very front: CPU microcode, which the kernel reads before anything else

Invariant: a path occurs once; a library or program is in `early` or in `root`, never in both, because the
loader and the interpreter search /lib before /usr/lib.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thimble.image.fault import fault

LIBRARY_FOLDER = "lib/x86_64-linux-gnu"


class Place(StrEnum):
    """Which of the image's archives an entry goes into."""

    FIRST = "first"
    EARLY = "early"
    ROOT = "root"


class Component(StrEnum):
    """What an entry is counted as in the footprint."""

    KERNEL = "kernel"
    DRIVERS = "drivers"
    QEMU = "qemu"
    FIRMWARE = "firmware"
    PYTHON = "python"
    THIMBLE = "thimble"
    WEB = "web"
    SYSTEM = "system"
    BLOBS = "blobs"
    MICROCODE = "microcode"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ImageEntry:
    """One file, link or directory. Files come from `source` or are `data`; `link` is a symlink's target."""

    place: Place
    path: str
    component: Component
    package: str = ""
    source: Path | None = None
    data: bytes | None = None
    link: str = ""
    mode: int = 0o644

    @property
    def is_directory(self) -> bool:
        return self.source is None and self.data is None and not self.link

    def read(self) -> bytes:
        """The file's contents."""
        if self.data is not None:
            return self.data
        return self.source.read_bytes() if self.source else b""


def directory(place: Place, path: str, *, mode: int = 0o755) -> ImageEntry:
    return ImageEntry(place=place, path=path, component=Component.SYSTEM, mode=mode)


def complete(entries: Iterable[ImageEntry]) -> list[ImageEntry]:
    """All entries, sorted, with the directories above them; refuses a path that occurs twice."""
    found: dict[tuple[Place, str], ImageEntry] = {}
    for entry in entries:
        known = found.get((entry.place, entry.path))
        if known and not (known.is_directory and entry.is_directory):
            raise fault(
                "internal",
                f"{entry.path} is listed twice in {entry.place}",
                reasons=(known.package, entry.package),
            )
        found[entry.place, entry.path] = entry
    for place, path in list(found):
        for above in Path(path).parents:
            if str(above) != "." and (place, str(above)) not in found:
                found[place, str(above)] = directory(place, str(above))
    return sorted(found.values(), key=lambda entry: (entry.place, entry.path))
