"""Looks at the machine: what PID 1 found out about this boot, disks and what is on them. Changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from thimble.core.problem import Problem
from thimble.deploy import esp, image, plan
from thimble.deploy.plan import DiskFacts, PartFacts
from thimble.host.pid1 import BootFacts, Init
from thimble.medium import layout, loader
from thimble.storage import homes
from thimble.storage.contents import HEAD, TAIL, identify
from thimble.sys import block, disks, mount

_READ_ONLY = 1
_FLAGS = _READ_ONLY | mount.NOSUID | mount.NODEV | mount.NOEXEC


def boot_facts(init: Init) -> BootFacts:
    """How this boot came about, as PID 1 knows by now; it learns the last of it after readiness."""
    facts = init.boot or BootFacts()
    if facts.build:
        return facts
    return msgspec.structs.replace(facts, build=init.words.get("thimble.build", ""))


def found_out(init: Init) -> bool:
    """Does PID 1 know what we were started from? CD drives it asks last."""
    return init.boot is not None and (init.boot.medium is not None or init.searched)


def started_from(boot: BootFacts) -> str:
    """The disk we were started from; empty when PID 1 only guesses, because one with slots is there."""
    if boot.medium is None:
        return ""
    guessed = not boot.slot and boot.medium.esp == boot_partition(boot.medium.disk)
    return "" if guessed else boot.medium.disk


def size_of(partition: str) -> int:
    """Bytes; 0 when it is no block device."""
    entry = Path("/sys/class/block", Path(partition).name, "size")
    return int(entry.read_text()) * layout.SECTOR if entry.exists() else 0


def part_uuid(partition: str) -> str:
    """The GPT's name for it; empty when the kernel does not tell."""
    return _uevent(Path("/sys/class/block", Path(partition).name)).get("PARTUUID", "")


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def members(device: str) -> tuple[str, ...]:
    """The partitions below the array `device`; none when it is no array."""
    below = Path("/sys/class/block") / Path(os.path.realpath(device)).name / "slaves"
    return tuple(f"/dev/{entry.name}" for entry in sorted(below.iterdir())) if below.is_dir() else ()


def disk_of(partition: str) -> str:
    """The disk a partition is on; a disk itself is its own."""
    entry = Path(os.path.realpath(Path("/sys/class/block") / Path(partition).name))
    return f"/dev/{entry.parent.name}" if (entry / "partition").exists() else partition


def boot_partition(disk: str) -> str:
    """The partition of `disk` with the slots; empty if it has none."""
    for part in _parts(disk):
        if part.name == layout.BOOT:
            return part.device
    return ""


def all_disks(run: Path) -> tuple[DiskFacts, ...]:
    """Every disk, with what is on it."""
    return tuple(_disk(found, run) for found in disks.all_disks())


def named(words: tuple[str, ...], found: tuple[DiskFacts, ...], ours: tuple[str, ...]) -> dict[str, str]:
    """What each word means here: `largest`, or as `sys.disks` understands it."""
    there = disks.all_disks()
    return {
        word: plan.largest(found, ours) if word == plan.LARGEST else _by_id(word, there)
        for word in words
        if word
    }


def _by_id(word: str, there: tuple[disks.Disk, ...]) -> str:
    """Also names of /dev/disk/by-id, which nobody makes here: they end with the serial number or the WWN."""
    found = disks.resolve(word, there)
    if found or not word.startswith("/dev/disk/by-id/"):
        return found
    tail = disks.normal(word.rpartition("/")[2])
    fits = {
        disk.device
        for disk in there
        for name in (disk.serial, disk.wwn)
        if name and tail.endswith(disks.normal(name).replace(" ", "_"))
    }
    return fits.pop() if len(fits) == 1 else ""


def _disk(found: disks.Disk, run: Path) -> DiskFacts:
    facts = DiskFacts(
        device=found.device,
        size_bytes=found.size_bytes,
        sector_bytes=found.sector_bytes,
        serial=found.serial,
        model=found.model,
        removable=found.removable,
    )
    try:
        _, head, tail = block.read_ends(found.device, HEAD, TAIL)
        contents = identify(head, tail)
        in_use = block.in_use(found.device)
        parts = tuple(_inside(part, run, look=not in_use) for part in _parts(found.device))
        facts = msgspec.structs.replace(facts, in_use=in_use, kind=contents.kind, parts=parts)
        if not parts and not in_use and contents.kind == "ext4":
            facts = msgspec.structs.replace(facts, datastore=_datastore(found.device, contents.label, run))
        if plan.is_ours(facts) and not in_use:
            facts = msgspec.structs.replace(facts, installed=_installed(parts[1].device, run))
    except Problem as problem:
        return msgspec.structs.replace(facts, problem=problem.detail)
    return facts


def _parts(disk: str) -> tuple[PartFacts, ...]:
    found = []
    for entry in Path("/sys/class/block", Path(disk).name).glob(f"{Path(disk).name}*"):
        if (entry / "partition").exists():
            found.append(
                PartFacts(
                    device=f"/dev/{entry.name}",
                    name=_uevent(entry).get("PARTNAME", ""),
                    start=int((entry / "start").read_text()) * layout.SECTOR,
                    size=int((entry / "size").read_text()) * layout.SECTOR,
                )
            )
    return tuple(sorted(found, key=lambda part: part.start))


def _uevent(entry: Path) -> dict[str, str]:
    try:
        lines = (line.partition("=") for line in (entry / "uevent").read_text().splitlines())
    except OSError:
        return {}
    return {key: value for key, _, value in lines}


def _inside(part: PartFacts, run: Path, *, look: bool) -> PartFacts:
    _, head, tail = block.read_ends(part.device, HEAD, TAIL)
    contents = identify(head, tail)
    ours = look and contents.kind == "ext4" and _datastore(part.device, contents.label, run)
    return msgspec.structs.replace(part, kind=contents.kind, label=contents.label, datastore=ours)


def _datastore(device: str, label: str, run: Path) -> bool:
    """Is there a datastore of ours with anything in it? When that cannot be told, a label alone says yes."""
    target = run / "deploy" / f"look-{Path(device).name}"
    try:
        mount.mount(device, target, "ext4", flags=_FLAGS, data="noload")
    except Problem:
        return label.startswith("thimble-")
    try:
        return any(home.filled() for home in homes.datastores_on(target))
    finally:
        mount.unmount(target)


def _installed(device: str, run: Path) -> str:
    """The build of the slot this boot partition starts; empty when it is unfinished."""
    try:
        with esp.mounted(device, run) as root:
            found = esp.read(root)
            if not (root / "EFI/BOOT/BOOTX64.EFI").is_file():
                return ""
            slot = found.choice.default
            path = root / loader.slot_path(slot)
            return image.claims(path).build if path.is_file() else ""
    except (Problem, OSError):
        return ""
