"""manifest.json beside an image: what it is, what its files have to be. Read by `inspect` and the lab."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thimble.image import cache
from thimble.image.fault import fault
from thimble.image.media import KERNEL_FILES, BuiltImage

NAME = "manifest.json"
FORMAT = 1


def encoded(value: object) -> bytes:
    """JSON that reads well as a difference."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def write(
    image: BuiltImage,
    media: Mapping[str, dict[str, object]],
    *,
    epoch: int,
    totals: tuple[int, int],
    components: Sequence[dict[str, object]],
    replaced: Sequence[str],
    trust: Sequence[str],
) -> None:
    """Write it; `totals` are kernel, RAM root and QEMU's firmware, and the makers' blobs."""
    value = {
        "format": FORMAT,
        "profile": image.profile,
        "version": image.version,
        "kernel": image.kernel,
        "build": image.build,
        "words": image.words,
        "command_line": image.command_line,
        "epoch": epoch,
        "total_bytes": totals[0],
        "blob_bytes": totals[1],
        "components": list(components),
        "files": _kernel_files(image.folder) | dict(media),
        "replaced": list(replaced),
        "trust": list(trust),
    }
    cache.write(image.folder / NAME, encoded(value))


def read(folder: Path) -> dict[str, Any]:
    """What was written. Raises NOT_FOUND, UNSUPPORTED."""
    path = folder / NAME
    if not path.is_file():
        raise fault(
            "not-found", f"{folder} has no {NAME}", hint="give the directory `thimble image build` wrote"
        )
    raw: dict[str, Any] = json.loads(path.read_text())
    if raw.get("format") != FORMAT:
        raise fault(
            "unsupported", f"{path} has a format unknown to this version", hint="build the image again"
        )
    return raw


def media_of(folder: Path) -> dict[str, object]:
    """The media described by the manifest that is there, if any."""
    try:
        files: dict[str, object] = json.loads((folder / NAME).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return files


def replace_media(image: BuiltImage, media: Mapping[str, dict[str, object]]) -> None:
    """Put other media into it, as after signing."""
    raw = read(image.folder)
    raw["files"] = _kernel_files(image.folder) | dict(media)
    cache.write(image.folder / NAME, encoded(raw))


def image_of(folder: Path) -> BuiltImage:
    """What media can be made of again."""
    raw = read(folder)
    try:
        return BuiltImage(
            folder=folder,
            profile=raw["profile"],
            version=raw["version"],
            kernel=raw["kernel"],
            words=raw["words"],
            build=raw["build"],
        )
    except KeyError as error:
        raise fault(
            "unsupported", f"{folder} was built by a version too old for this", hint="build the image again"
        ) from error


def _kernel_files(folder: Path) -> dict[str, dict[str, object]]:
    paths = {name: folder / name for name in KERNEL_FILES}
    return {
        name: {"bytes": path.stat().st_size, "sha256": cache.sha256(path)} for name, path in paths.items()
    }
