"""Datastores, volumes and images on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from thimble.contract.common import In, Listed, Name, Out
from thimble.contract.vm import DiskFormat


class DatastoreKind(StrEnum):
    DIRECTORY = "directory"  # an existing directory of a mounted file system (hosted, or the state partition)
    DISK = "disk"  # a whole disk or partition with ext4, mounted by us
    RAM = "ram"  # a tmpfs: gone at reboot, and it says so


class DatastoreCreate(In, frozen=True, kw_only=True):
    name: Name
    kind: DatastoreKind
    path: str = ""  # directory: absolute path
    device: str = ""  # disk: `/dev/disk/by-id/…` or `/dev/…`
    format: bool = False  # disk: make a file system on it; refused when one is found, unless `erase`
    erase: bool = False
    size_bytes: Annotated[int, Meta(ge=1)] | None = None  # ram: the upper bound


class Datastore(Out, frozen=True, kw_only=True):
    name: str
    rev: int
    kind: DatastoreKind
    where: str  # path or device
    mounted: bool
    why: str  # when it is not mounted: the reason
    durable: bool  # false for RAM
    default: bool
    size_bytes: int
    free_bytes: int


class DatastoreList(Listed, frozen=True, kw_only=True):
    datastores: tuple[Datastore, ...]


class VolumeCreate(In, frozen=True, kw_only=True):
    """An empty volume of `size_bytes`, or a copy of `image` grown to it."""

    name: Name
    datastore: str = ""
    size_bytes: Annotated[int, Meta(ge=1)] | None = None
    image: str | None = None
    format: DiskFormat = DiskFormat.QCOW2


class Volume(Out, frozen=True, kw_only=True):
    """A disk a VM can use. `name` is `datastore/name`."""

    name: str
    datastore: str
    size_bytes: int
    used_bytes: int
    format: DiskFormat
    vm: str | None  # id of the VM that uses it


class VolumeList(Listed, frozen=True, kw_only=True):
    volumes: tuple[Volume, ...]


class Image(Out, frozen=True, kw_only=True):
    """A file to copy disks from, to put into a CD-ROM or to boot directly. `name` is `datastore/name`."""

    name: str
    datastore: str
    format: str  # qcow2, raw, iso, …, as qemu-img sees it; `raw` when it is any other file
    file_bytes: int
    size_bytes: int  # the virtual size
    sha256: str


class ImageList(Listed, frozen=True, kw_only=True):
    images: tuple[Image, ...]
