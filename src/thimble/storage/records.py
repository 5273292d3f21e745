"""What storage keeps and hands to others, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec

from thimble.contract.storage import DatastoreKind
from thimble.contract.vm import DiskFormat
from thimble.state.store import Upgrade

#: From each format of a record to the next; see `state.store`.
DATASTORE_UPGRADES: tuple[Upgrade, ...] = ()
VOLUME_UPGRADES: tuple[Upgrade, ...] = ()


class DatastoreRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A datastore as it was asked for; its id is its name."""

    kind: DatastoreKind
    path: str = ""  # directory: where; empty: below the state directory
    device: str = ""  # disk: as named at creation; device names move, so the next one counts
    uuid: str = ""  # disk: of its file system
    size_bytes: int = 0  # ram; 0: half of the host's
    default: bool = False  # where things go when nobody says where


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a volume beside its file. Its id is the record's, its datastore the one it lies in.

    Snapshots, clones and backups refer to the id: it stays when the volume is renamed or leaves its VM.
    """

    name: str  # as its file is called
    vm: str = ""  # the VM in whose directory it lies; empty: a volume of its own
    format: DiskFormat
    size_bytes: int  # virtual, when it was made or found; the file knows the present one
    parent: str = ""  # id of the volume it is a layer over (its backing file); empty: it stands alone
    made_by: str = ""  # the user, or the VM it was made for; empty: found without a record
    created: float  # seconds since the epoch, UTC


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
