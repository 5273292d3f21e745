"""The image as the builder leaves it: where it is, how big it is; built when asked for (cached per stage)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.thimble_server import Image
from thimble.image import build
from thimble.image.progress import Report


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: what the promise counts, the makers' blobs apart from it, and thimble.efi as a whole."""

    counted: int
    apart: int
    total: int


def image(profile: str, out: Path, report: Report) -> Image:
    """The profile's image from the present sources."""
    found = build.build(build.Options(profile=profile, out=out), report)
    return Image(where=found.directory, cmdline=build.CMDLINE)


def sizes(profile: str, out: Path, report: Report) -> Sizes:
    """As `thimble image inspect` counts them."""
    where = image(profile, out, report).where
    total = (where / "thimble.efi").stat().st_size
    return Sizes(counted=total, apart=0, total=total)
