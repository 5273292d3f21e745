"""The image as the builder leaves it: where it is, how big it is; built when asked for (cached per stage)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.thimble_server import Image
from thimble.image import build, inspect
from thimble.image.progress import Report


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: what the promise counts, the makers' blobs apart from it, thimble.efi, all of it in RAM."""

    counted: int
    apart: int
    total: int
    in_ram: int


def image(profile: str, out: Path, report: Report) -> Image:
    """The profile's image from the present sources."""
    found = build.build(build.BuildOptions(profile=profile, out=out), report)
    return Image(where=found.directory.absolute(), cmdline=build.CMDLINE)


def sizes(profile: str, out: Path, report: Report) -> Sizes:
    """As `thimble image inspect` counts them."""
    found = inspect.inspect(image(profile, out, report).where)
    return Sizes(
        counted=found.total_bytes, apart=found.blob_bytes, total=found.file_bytes, in_ram=found.ram_bytes
    )
