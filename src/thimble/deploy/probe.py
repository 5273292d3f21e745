"""Looks at all disks and into what is on them. Changes nothing; waits for disks, so it is for a thread."""

from __future__ import annotations

import msgspec

from thimble.core.problem import Problem
from thimble.deploy import disk_facts, esp, image, sysfs
from thimble.deploy.disk_facts import DiskFacts, PartFacts
from thimble.deploy.mounts import Mounts
from thimble.medium import loader
from thimble.storage import homes
from thimble.storage.contents import HEAD, TAIL, identify
from thimble.sys import block, disks


def all_disks(mounts: Mounts) -> tuple[DiskFacts, ...]:
    """Every disk, with what is on it."""
    mounts.tidy()  # what a killed agent left mounted is not in use
    return tuple(_disk(found, mounts) for found in disks.all_disks())


def named(words: tuple[str, ...], found: tuple[DiskFacts, ...], ours: tuple[str, ...]) -> dict[str, str]:
    """What each word means here: `largest`, or as `sys.disks` understands it."""
    there = disks.all_disks()
    return {
        word: disk_facts.largest(found, ours) if word == disk_facts.LARGEST else _by_id(word, there)
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


def _disk(found: disks.Disk, mounts: Mounts) -> DiskFacts:
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
        parts = tuple(_inside(part, mounts, look=not in_use) for part in sysfs.partitions(found.device))
        facts = msgspec.structs.replace(facts, in_use=in_use, kind=contents.kind, parts=parts)
        if not parts and not in_use and contents.kind == "ext4":
            facts = msgspec.structs.replace(facts, datastore=_datastore(found.device, contents.label, mounts))
        if disk_facts.is_ours(facts) and not in_use:
            facts = msgspec.structs.replace(facts, installed=_installed(parts[1].device, mounts))
    except Problem as problem:
        return msgspec.structs.replace(facts, problem=problem.detail)
    return facts


def _inside(part: PartFacts, mounts: Mounts, *, look: bool) -> PartFacts:
    _, head, tail = block.read_ends(part.device, HEAD, TAIL)
    contents = identify(head, tail)
    ours = look and contents.kind == "ext4" and _datastore(part.device, contents.label, mounts)
    return msgspec.structs.replace(part, kind=contents.kind, label=contents.label, datastore=ours)


def _datastore(device: str, label: str, mounts: Mounts) -> bool:
    """Is there a datastore of ours with anything in it? When that cannot be seen, the label decides."""
    try:
        with mounts.mounted(device, kind="ext4", data="noload") as root:
            return any(home.filled() for home in homes.datastores_on(root))
    except Problem:
        return label.startswith("thimble-")


def _installed(device: str, mounts: Mounts) -> str:
    """The build of the slot this boot partition starts; empty when it is unfinished."""
    try:
        with mounts.mounted(device) as root:
            found = esp.read(root)
            if not (root / "EFI/BOOT/BOOTX64.EFI").is_file():
                return ""
            slot = found.choice.default
            path = root / loader.slot_path(slot)
            return image.claims(path).build if path.is_file() else ""
    except (Problem, OSError):
        return ""
