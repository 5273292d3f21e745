"""The two archives of the image as cached stages, with the weight of each component in them.

    stages/early-<key>/{early.cpio.zst, weights.json}
    stages/root-<key>/{root.squashfs, weights.json}

A weight is what a component's files take when compressed by themselves; the footprint shares an archive's
real size out by these, because files of different components share its blocks.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache, kernel, pack
from thimble.image.layout import Component, ImageEntry, Place
from thimble.image.progress import Report

WEIGHT_LEVEL = "-12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """All archives of one image."""

    first: bytes
    early: Path
    root: Path

    def weights(self, place: Place) -> dict[Component, int]:
        """Bytes of each component in this archive, by themselves."""
        folder = (self.early if place is Place.EARLY else self.root).parent
        raw: dict[str, int] = json.loads((folder / "weights.json").read_text())
        return {Component(name): size for name, size in raw.items()}

    def size(self, place: Place) -> int:
        """Bytes of this archive in the image."""
        return (self.early if place is Place.EARLY else self.root).stat().st_size


def pack_all(packer: pack.Packer, entries: list[ImageEntry], report: Report) -> Packed:
    """Pack every place of `entries`."""
    by_place = {place: [entry for entry in entries if entry.place is place] for place in Place}
    first = by_place[Place.FIRST]
    return Packed(
        first=packer.archive(first) if first else b"",
        early=_early(packer, by_place[Place.EARLY], report),
        root=_root(packer, by_place[Place.ROOT], report),
    )


def _early(packer: pack.Packer, entries: list[ImageEntry], report: Report) -> Path:
    """The compressed archive that becomes the RAM root."""

    def make(into: Path) -> None:
        report("early", None, f"compressing {len(entries)} entries")
        plain = into / "early.cpio"
        plain.write_bytes(packer.archive(entries, [kernel.console_node()]))
        packer.compress(plain, into / "early.cpio.zst")
        plain.unlink()

    return (
        _stage(packer, "early", [*pack.EARLY_LEVEL, packer.box.versions["zstd"]], entries, make)
        / "early.cpio.zst"
    )


def _root(packer: pack.Packer, entries: list[ImageEntry], report: Report) -> Path:
    """The compressed file system that becomes /usr."""

    def make(into: Path) -> None:
        report("root", None, f"packing {len(entries)} entries")
        packer.squashfs(entries, into / "tree", into / "root.squashfs")

    how = [*pack.ROOT_OPTIONS, packer.box.versions["squashfs-tools"]]
    return _stage(packer, "root", how, entries, make) / "root.squashfs"


def _stage(
    packer: pack.Packer, name: str, how: list[str], entries: list[ImageEntry], make: Callable[[Path], None]
) -> Path:
    key = cache.key(name, 2, packer.epoch, how, fingerprint(entries))

    def whole(into: Path) -> None:
        make(into)
        (into / "weights.json").write_text(json.dumps(_weights(packer, entries)))

    return cache.directory(cache.root() / "stages" / f"{name}-{key}", whole)


def fingerprint(entries: Iterable[ImageEntry]) -> list[list[object]]:
    """Everything about these entries that changes an archive."""
    return [
        [
            entry.path,
            entry.mode,
            entry.link,
            entry.component,
            "" if entry.is_directory or entry.link else hashlib.sha256(entry.read()).hexdigest(),
        ]
        for entry in entries
    ]


def _weights(packer: pack.Packer, entries: list[ImageEntry]) -> dict[str, int]:
    weights = {}
    for component in Component:
        data = b"".join(entry.read() for entry in entries if entry.component is component)
        if data:
            argv = packer.box.argv("zstd", "--quiet", "--stdout", "-T2", WEIGHT_LEVEL)
            weights[str(component)] = len(
                subprocess.run(argv, input=data, capture_output=True, check=True).stdout
            )
    return weights
