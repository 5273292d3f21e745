"""What lies where in a datastore, and where datastores have their records: the only module that knows.

    <datastore>/thimble-datastore.json        what this is, so that it can be carried to another host
    <datastore>/vms/<vm id>/vm.json           a VM's record (written by vm), beside it
                            <disk>.<format>   its own volumes
                            efivars.fd        its UEFI variables
    <datastore>/volumes/<name>.<format>       volumes of their own
    <datastore>/images/<name>, <name>.json    uploaded files and what is known of them; nobody else may enter
    <datastore>/records/volumes/<id>.json     what is known of the volumes, both kinds
    <anything>/.<name>.new                    unfinished; removed when the datastore is taken into use

Functions that touch the disk say so; they wait for it, so they are for threads. They raise OSError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.contract.vm import DiskFormat
from thimble.storage.records import Marker
from thimble.storage.refs import Ref
from thimble.storage.refs import volume as volume_ref
from thimble.sys import files

#: In a VM's directory.
VM_RECORD = "vm.json"
UEFI_VARIABLES = "efivars.fd"
_MARKER = "thimble-datastore.json"
_VMS, _VOLUMES, _IMAGES = "vms", "volumes", "images"
_RECORDS = "records/volumes"
_FORMATS = {f".{format}": format for format in DiskFormat}


class VolumeFile(msgspec.Struct, frozen=True):
    """A volume as a file. `vm`: the VM in whose directory it lies; empty for a volume of its own."""

    path: Path
    vm: str
    name: str
    format: DiskFormat


class Home:
    """The places in the datastore at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vms = root / _VMS
        self.volumes = root / _VOLUMES
        self.images = root / _IMAGES
        self.volume_records = root / _RECORDS
        self._marker = root / _MARKER

    def vm(self, id: str) -> Path:
        """The directory of a VM."""
        return self.vms / id

    def volume(self, vm: str, name: str, format: DiskFormat) -> Path:
        return (self.vm(vm) if vm else self.volumes) / disk_file(name, format)

    def image(self, name: str) -> Path:
        return self.images / name

    def find_volume(self, ref: Ref) -> VolumeFile | None:
        """The file that `ref` names; nothing that a symbolic link leads to. Touches the disk."""
        if "/" in ref.name or ref.name.startswith("."):
            return None
        for vm, name in (("", ref.name), ref.vm_disk or ("", "")):
            for format in DiskFormat if name else ():
                path = self.volume(vm, name, format)
                if files.regular(path, self.root):
                    return VolumeFile(path, vm, name, format)
        return None

    def volume_files(self) -> Iterator[VolumeFile]:
        """All of them. Touches the disk."""
        for path in sorted(self.volumes.iterdir()) + sorted(self.vms.glob("*/*")):
            known = path.suffix in _FORMATS and not path.name.startswith(".")
            if known and files.regular(path, self.root):
                yield volume_file(path)

    def find_image(self, name: str) -> Path | None:
        """The file of the image `name`. Touches the disk."""
        path = self.image(name)
        return path if "/" not in name and self._is_image(path) else None

    def image_files(self) -> Iterator[Path]:
        """All of them. Touches the disk."""
        return filter(self._is_image, sorted(self.images.iterdir()))

    def _is_image(self, path: Path) -> bool:
        hidden = path.name.startswith(".") or path.suffix == ".json"
        return not hidden and files.regular(path, self.root)

    def vm_ids(self) -> list[str]:
        """Every VM that has a directory. Touches the disk."""
        return sorted(path.name for path in self.vms.iterdir() if path.is_dir())

    def filled(self) -> bool:
        """Is anything kept here? Touches the disk."""
        return any(next(part.glob("*"), None) is not None for part in (self.vms, self.volumes, self.images))

    def prepare(self, name: str, *, durable: bool) -> None:
        """Make it the datastore `name` if it is none, remove what was left half done. Touches the disk."""
        for part, mode in ((self.vms, 0o711), (self.volumes, 0o711), (self.images, 0o700)):
            part.mkdir(mode=mode, exist_ok=True)
            if not part.is_symlink() and part.stat().st_mode & 0o777 & ~mode:
                part.chmod(mode)
        if not self.volume_records.parent.is_symlink():
            self.volume_records.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._marker.exists():
            files.write_atomic(self._marker, msgspec.json.encode(Marker(name=name)), durable=durable)
        for pattern in (f"{_VOLUMES}/.*.new", f"{_IMAGES}/.*.new", f"{_VMS}/*/.*.new"):
            for path in self.root.glob(pattern):
                if not self._led_away(path):
                    path.unlink(missing_ok=True)
        for path in self.vms.iterdir():  # of a create that died before its record
            with suppress(OSError):
                path.rmdir()  # only an empty one goes

    def _led_away(self, path: Path) -> bool:
        """Is a symbolic link on the way down to it?"""
        below = path.relative_to(self.root).parents[:-1]
        return any((self.root / place).is_symlink() for place in below)


def disk_file(name: str, format: DiskFormat) -> str:
    """The file name of a volume."""
    return f"{name}.{format}"


def volume_file(path: Path) -> VolumeFile:
    """What the place of a volume's file says of it."""
    vm = path.parent.name if path.parent.parent.name == _VMS else ""
    return VolumeFile(path, vm, path.stem, _FORMATS[path.suffix])


def image_facts(image: Path) -> Path:
    """The file beside an image that holds what is known of it."""
    return image.with_name(f"{image.name}.json")


def unfinished(path: Path) -> Path:
    """Under which name `path` is made."""
    return path.with_name(f".{path.name}.new")


def datastore_record(state: Path, name: str) -> Path:
    """The file of a datastore's record in the state directory `state`."""
    return datastore_records(state) / f"{name}.json"


def datastore_records(state: Path) -> Path:
    return state / "storage"


def datastore_in_state(state: Path, name: str) -> Path:
    """Where a datastore is that was given no place of its own."""
    return state / "datastores" / name


def datastores_on(file_system: Path) -> Iterator[Home]:
    """Those on a file system mounted at `file_system`: itself, or those of a state. Touches the disk."""
    for marker in (*file_system.glob(_MARKER), *file_system.glob(f"datastores/*/{_MARKER}")):
        yield Home(marker.parent)


def ref_of(datastore: str, file: VolumeFile) -> Ref:
    return volume_ref(datastore, file.vm, file.name)
