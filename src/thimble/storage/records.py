"""What storage keeps and hands to others, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreKind
from thimble.contract.vm import DiskFormat


class DatastoreRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A datastore as it was asked for; its id is its name."""

    kind: DatastoreKind
    path: str = ""  # directory: where; empty: below the state directory
    device: str = ""  # disk: as named at creation; device names move, so the next one counts
    uuid: str = ""  # disk: of its file system
    size_bytes: int = 0  # ram; 0: half of the host's
    default: bool = False  # where things go when nobody says where


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """`thimble-datastore.json`."""

    format: int = 1
    name: str = ""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`<name>.json` beside an image."""

    format: str
    file_bytes: int
    size_bytes: int
    sha256: str


class VolumeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A volume on disk."""

    ref: str
    path: Path
    format: DiskFormat
    size_bytes: int
    used_bytes: int


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image on disk."""

    ref: str
    path: Path
    kind: str  # for people: `iso` too
    format: str  # for qemu-img and QEMU: never let them guess
    size_bytes: int
    file_bytes: int
    used_bytes: int
    sha256: str
