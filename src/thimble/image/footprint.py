"""The footprint: bytes per component, compressed and in RAM; pure.

Compressed: an archive's real size, shared out by what each component takes by itself. In RAM at rest: what
is unpacked counts unpacked, the root image counts as it lies there compressed (what is read from it is page
cache, which the kernel gives back), the kernel counts what its own header says it needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from thimble.image.layout import Component, ImageEntry, Place
from thimble.image.sbom import Part

APART = frozenset({Component.BLOBS, Component.MICROCODE})
"""What the makers of NICs and CPUs add; reported, not counted."""


class Archives(Protocol):
    """What the footprint asks of the packed archives (the real ones, and small ones in tests)."""

    @property
    def first(self) -> bytes: ...

    def weights(self, place: Place) -> dict[Component, int]: ...

    def size(self, place: Place) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One component's part of the image."""

    name: Component
    compressed_bytes: int
    ram_bytes: int
    packages: tuple[str, ...]


def kernel_share(package: str, image: bytes) -> Share:
    """The kernel's own share; `init_size` of its header is what it needs to start."""
    needs = struct.unpack_from("<I", image, 0x260)[0] if image[0x202:0x206] == b"HdrS" else len(image)
    return Share(name=Component.KERNEL, compressed_bytes=len(image), ram_bytes=needs, packages=(package,))


def shared_out(total: int, weights: Mapping[Component, int]) -> dict[Component, int]:
    """`total` split in proportion to `weights`; the parts add up to `total` exactly."""
    whole = sum(weights.values())
    parts = {name: total * weight // whole for name, weight in weights.items()} if whole else {}
    if parts:
        largest = max(parts, key=lambda name: (parts[name], name))
        parts[largest] += total - sum(parts.values())
    return parts


def components(entries: Iterable[ImageEntry], packed: Archives) -> list[Share]:
    """Every component but the kernel itself, in the order of `Component`."""
    known = list(entries)
    compressed: dict[Component, int] = {}
    resident: dict[Component, int] = {}
    for place in (Place.EARLY, Place.ROOT):
        for name, size in shared_out(packed.size(place), packed.weights(place)).items():
            compressed[name] = compressed.get(name, 0) + size
            if place is Place.ROOT:
                resident[name] = resident.get(name, 0) + size
    if packed.first:
        compressed[Component.MICROCODE] = len(packed.first)
    for entry in known:
        if entry.place is Place.EARLY:
            resident[entry.component] = resident.get(entry.component, 0) + len(entry.read())
    packages: dict[Component, set[str]] = {}
    for entry in known:
        if entry.package:
            packages.setdefault(entry.component, set()).add(entry.package)
    return [
        Share(
            name=name,
            compressed_bytes=compressed[name],
            ram_bytes=resident.get(name, 0),
            packages=tuple(sorted(packages.get(name, ()))),
        )
        for name in Component
        if name in compressed
    ]


def counted(shares: Iterable[Share]) -> int:
    """Kernel, RAM root and QEMU's firmware: the number the targets are about."""
    return sum(share.compressed_bytes for share in shares if share.name not in APART)


def apart(shares: Iterable[Share]) -> int:
    """The makers' blobs."""
    return sum(share.compressed_bytes for share in shares if share.name in APART)


def plain(share: Share, described: Mapping[str, Part]) -> dict[str, object]:
    """The share as the manifest has it."""
    return {
        "name": str(share.name),
        "compressed_bytes": share.compressed_bytes,
        "ram_bytes": share.ram_bytes,
        "counted": share.name not in APART,
        "packages": [
            {"name": part.name, "version": part.version, "licence": part.licence}
            for part in (described[name] for name in share.packages)
        ],
    }
