"""thimble.img: what is written to a stick, an SD card or internal flash. Boots by UEFI and by BIOS.

Made on a plain sparse file at the partitions' offsets: no loop device, no mount, no root. What lies where is
`thimble.medium`'s business; this file only puts it there.

Invariant: the same inputs give the same bytes. All identities are derived from the build.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thimble.image import cache
from thimble.image.loaders import DiskLoaders
from thimble.image.pack import Packer
from thimble.medium import layout, loader
from thimble.medium.uki import Uki

BOOT_MIB, STATE_MIB = 256, 64
_KIB = 1024
_NAMESPACE = uuid.UUID("9b2cf5f0-6f0e-4f5e-8d55-7448696d626c")

README = """This is Thimble, a hypervisor. Put this stick into a server, start from it, and it runs
virtual machines.

To tell the server who it is, copy thimble.toml.example to thimble.toml in this folder, edit it with
any editor and start the server again. Without that file it takes an address by DHCP, and shows on its
screen where to reach it and how to log in.
"""

EXAMPLE = """# Copy this file to thimble.toml. All but the format is optional, and this is not all there is.
format = 1

[host]
name = "thimble"

# The network the host itself is reached in. Without this: DHCP on the port that answers first.
#[management]
#address = "192.0.2.10/24"
#gateway = "192.0.2.1"
#dns = ["192.0.2.1"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskContents:
    """What every medium of one build carries. `keys` are signed variables for firmware in setup mode."""

    efi: Path
    uki: Uki
    command_line: str
    version: str
    build: str
    loaders: DiskLoaders
    keys: Mapping[str, bytes]


def identity(build: str, name: str) -> str:
    """A UUID that this build always gives this thing."""
    return str(uuid.uuid5(_NAMESPACE, f"{build}/{name}"))


def serial(build: str, name: str) -> str:
    """A FAT volume's number, eight hexadecimal digits."""
    return identity(build, name)[:8]


def boot_files(contents: DiskContents) -> dict[str, bytes | Path]:
    """What lies on the boot partition: one slot, and nothing to count."""
    slot = loader.SLOTS[0]
    entry = loader.Entry(slot=slot).name
    found: dict[str, bytes | Path] = {
        "EFI/BOOT/BOOTX64.EFI": contents.loaders.systemd_boot,
        "loader/loader.conf": loader.loader_conf(enroll=bool(contents.keys)).encode(),
        f"{loader.ENTRIES}/{entry}": loader.entry_text(slot, number=1, version=contents.version).encode(),
        loader.slot_path(slot): contents.efi,
        f"thimble/{slot}.json": slot_manifest(contents),
        f"thimble/{slot}.cfg": loader.grub_slot(slot, contents.uki, contents.command_line).encode(),
        "grub/grub.cfg": loader.grub_menu().encode(),
        loader.ENVIRONMENT: loader.environment(loader.Choice(default=slot)),
    }
    return found | keys_to_enrol(contents.keys)


def slot_manifest(contents: DiskContents) -> bytes:
    """What a slot's file has to be, for whoever updates it later."""
    value = {
        "build": contents.build,
        "version": contents.version,
        "sha256": cache.sha256(contents.efi),
        "file_bytes": contents.efi.stat().st_size,
    }
    return json.dumps(value).encode()


def keys_to_enrol(keys: Mapping[str, bytes]) -> dict[str, bytes | Path]:
    """Where systemd-boot looks for keys it enrols unasked, once per firmware in setup mode."""
    return {f"loader/keys/auto/{name}.auth": data for name, data in keys.items()}


def write(packer: Packer, contents: DiskContents, target: Path, scratch: Path) -> None:
    """Make thimble.img."""
    parts = layout.partitions(boot_mib=BOOT_MIB, state_mib=STATE_MIB)
    by_name = {part.name: part for part in parts}
    with target.open("xb") as handle:
        handle.truncate(layout.image_bytes(parts))
    table = layout.script(
        parts,
        disk=identity(contents.build, "disk").upper(),
        uuids=tuple(identity(contents.build, part.name).upper() for part in parts),
    )
    packer.run("sfdisk", "--quiet", str(target), given=table)
    _grub(contents.loaders, by_name[layout.GRUB].start, target)
    boot, document = by_name[layout.BOOT], by_name[layout.DOCUMENT]
    make_fat(packer, target, boot, "-F", "32", "-s", "4", label=layout.BOOT_LABEL, build=contents.build)
    fill_fat(packer, target, boot.start, boot_files(contents), scratch)
    make_fat(packer, target, document, "-F", "16", label=layout.DOCUMENT_LABEL, build=contents.build)
    texts: dict[str, bytes | Path] = {
        "README.txt": README.encode(),
        "thimble.toml.example": EXAMPLE.encode(),
    }
    fill_fat(packer, target, document.start, texts, scratch)
    _make_state(packer, target, by_name[layout.STATE], contents.build)


def _grub(loaders: DiskLoaders, start: int, target: Path) -> None:
    with target.open("r+b") as handle:
        handle.write(layout.mbr_code(loaders.boot, start))
        handle.seek(start)
        handle.write(layout.core(loaders.core, start))


def make_fat(packer: Packer, target: Path, part: layout.Partition, *how: str, label: str, build: str) -> None:
    """An empty FAT file system in a partition of a file."""
    packer.run(
        "mkfs.vfat",
        "--invariant",
        *("--offset", str(part.start // layout.SECTOR)),
        *("-h", str(part.start // layout.SECTOR)),
        *("-i", serial(build, label)),
        *("-n", label),
        *how,
        str(target),
        str(part.size // _KIB),
        dated=True,
    )


def fill_fat(
    packer: Packer, target: Path, start: int, files: Mapping[str, bytes | Path], scratch: Path
) -> None:
    """Put files into a FAT file system at `start`, with the folders they need, in a fixed order."""
    where = f"{target}@@{start}"
    folders = {str(above) for path in files for above in Path(path).parents if str(above) != "."}
    for folder in sorted(folders):
        packer.run("mmd", "-i", where, f"::/{folder}", dated=True)
    for path, content in sorted(files.items()):
        source = content if isinstance(content, Path) else scratch / "file"
        if not isinstance(content, Path):
            source.write_bytes(content)
        packer.run("mcopy", "-i", where, str(source), f"::/{path}", dated=True)


def _make_state(packer: Packer, target: Path, part: layout.Partition, build: str) -> None:
    """An empty ext4. Its inode tables are written here, so that no host writes them in its first minutes."""
    seed = identity(build, "hash seed")
    packer.run(
        "mkfs.ext4",
        *("-q", "-F"),
        *("-L", layout.STATE),
        *("-U", identity(build, "state")),
        *("-b", "4096"),
        *("-N", "8192"),
        *("-J", "size=4"),
        *("-E", f"offset={part.start},hash_seed={seed},lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
        str(target),
        f"{part.size // _KIB}k",
        dated=True,
    )
