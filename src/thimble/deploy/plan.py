"""What an installation would do to which disk, and every reason against it. Pure.

A disk that holds a datastore of Thimble is never partitioned anew, whoever asks: at most its boot partitions
are written again. Anything else that is found on it needs `erase`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from thimble.contract.deploy import InstallRequest, OldState
from thimble.core.decision import Accept, Deny, Ignore
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import MIB, show_size
from thimble.medium import layout
from thimble.medium.layout import Partition

BOOT_MIB = 512
STATE_MIB = 1024
LARGEST = "largest"
_OURS = (layout.GRUB, layout.BOOT, layout.DOCUMENT, layout.STATE)


class PartFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as found. `kind` as storage tells contents; `datastore`: one of ours, with things in it."""

    device: str
    name: str = ""
    start: int = 0
    size: int = 0
    kind: str = ""
    label: str = ""
    datastore: bool = False


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as found. `installed`: the build its boot partition starts, empty when it starts none."""

    device: str
    size_bytes: int = 0
    sector_bytes: int = 512
    serial: str = ""
    model: str = ""
    removable: bool = False
    in_use: bool = False
    kind: str = ""
    datastore: bool = False  # on the whole of it, without partitions
    parts: tuple[PartFacts, ...] = ()
    installed: str = ""
    problem: str = ""

    def words(self) -> str:
        named = ", ".join(
            word for word in (self.model, f"serial {self.serial}" if self.serial else "") if word
        )
        return f"{self.device} ({show_size(self.size_bytes)}{', ' + named if named else ''})"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`booted`: the disk we were started from, if any; `mirrored`: a disk can join the array of our state.

    `named`: what the request's names mean here, as devices.
    """

    disks: tuple[DiskFacts, ...]
    booted: str = ""
    members: tuple[str, ...] = ()
    mirrored: bool = False
    build: str = ""
    version: str = ""
    lost_vms: tuple[str, ...] = ()  # on a datastore in RAM
    bios: bool = False  # this machine was started by one
    named: dict[str, str] = {}
    erasable: frozenset[str] = frozenset()  # devices whose content may be lost, beside `erase`

    def disk(self, device: str) -> DiskFacts | None:
        return next((disk for disk in self.disks if disk.device == device), None)


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """New partitions on the whole disk."""

    disk: DiskFacts
    parts: tuple[Partition, ...]

    def describe(self) -> str:
        found = contents(self.disk)
        return f"makes new partitions on {self.disk.words()}" + (f", losing {found}" if found else "")


class Renew(msgspec.Struct, frozen=True, kw_only=True):
    """The boot partitions of an installation that is there; its datastore stays, and its state if asked."""

    disk: DiskFacts
    keep_state: bool

    def describe(self) -> str:
        kept = (
            "its datastore and its state stay" if self.keep_state else "its datastore stays, its state goes"
        )
        return f"renews the installation on {self.disk.words()}: {kept}"


Target: TypeAlias = Fresh | Renew


class InstallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`join`: the targets become mirrors of the installation we run from."""

    targets: tuple[Target, ...]
    join: bool = False


Decision: TypeAlias = Accept[InstallPlan] | Ignore | Deny


def install(request: InstallRequest, facts: Facts) -> Decision:
    """How to carry `request` out."""
    wanted = [(name, getattr(request, name)) for name in ("disk", "mirror") if getattr(request, name)]
    if not wanted:
        return Deny((Reason(message="say which disk to install on", path="$.disk"),))
    join = not request.disk
    reasons: list[Reason] = []
    if join and not facts.mirrored:
        reasons.append(
            Reason(
                message="only an installed host can get a mirror, and this one runs from something else",
                code=Code.CONFLICT,
                path="$.mirror",
            )
        )
    found: list[tuple[str, DiskFacts]] = []
    for field, name in wanted:
        disk = facts.disk(facts.named.get(name, ""))
        if disk is None:
            reasons.append(_unknown(name, f"$.{field}", facts))
        elif any(disk.device == other.device for _, other in found):
            reasons.append(Reason(message="a disk cannot be its own mirror", path="$.mirror"))
        else:
            found.append((field, disk))
            reasons += [
                Reason(message=m, code=c, path=f"$.{field}") for c, m in against(disk, request, facts)
            ]
    if reasons:
        return Deny(tuple(reasons))
    if not join and facts.build and all(disk.installed == facts.build for _, disk in found):
        return Ignore(f"{facts.version} is installed on {found[0][1].device} already")
    targets = tuple(_target(disk, request, mirror=field == "mirror") for field, disk in found)
    return Accept(InstallPlan(targets=targets, join=join))


def against(disk: DiskFacts, request: InstallRequest, facts: Facts) -> list[tuple[Code, str]]:
    """Why this disk cannot be taken."""
    if disk.problem:
        return [(Code.FAILED, disk.problem)]
    if disk.device in (facts.booted, *facts.members):
        return [(Code.IN_USE, f"this host runs from {disk.device}: update it instead")]
    if disk.in_use:
        return [(Code.IN_USE, f"{disk.words()} is in use: something of it is mounted")]
    found: list[tuple[Code, str]] = []
    try:
        parts(disk)
    except Problem as problem:
        found.append((Code.INVALID, f"{disk.words()}: {problem.detail}"))
    if facts.bios and not bios_starts(disk):
        what = f"{disk.words()} has sectors of {disk.sector_bytes} bytes, and a BIOS cannot start from it"
        found.append((Code.UNSUPPORTED, f"{what}: set the firmware to UEFI, and install again"))
    if holds_datastore(disk) and not is_ours(disk):
        found.append((Code.CONFLICT, f"{disk.words()} holds a datastore, and that is never erased"))
    elif contents(disk) and not may_erase(disk, request, facts) and not is_ours(disk):
        found.append((Code.CONFLICT, f"{disk.words()} holds {contents(disk)}; ask for erase to lose that"))
    return found


def bios_starts(disk: DiskFacts) -> bool:
    """GRUB's first pieces count in sectors of 512 bytes, and so does nearly every BIOS."""
    return disk.sector_bytes == layout.SECTOR


def may_erase(disk: DiskFacts, request: InstallRequest, facts: Facts) -> bool:
    return request.erase or disk.device in facts.erasable


def is_ours(disk: DiskFacts) -> bool:
    """Is it partitioned as an installation is?"""
    names = tuple(part.name for part in disk.parts)
    return names[:4] == _OURS and names[4:] in ((), (layout.DATA,))


def is_complete(disk: DiskFacts) -> bool:
    """Its boot partition is made last: where that is none, an installation was cut short before."""
    return disk.parts[1].kind == "fat"


def holds_datastore(disk: DiskFacts) -> bool:
    return disk.datastore or any(part.datastore for part in disk.parts)


def contents(disk: DiskFacts) -> str:
    """What would be lost, in words; empty for a blank disk."""
    if not disk.parts:
        return disk.kind
    named = [
        " ".join(word for word in (part.name or part.label, part.kind and f"({part.kind})") if word)
        for part in disk.parts
    ]
    return f"{len(named)} partitions: " + ", ".join(name or "one without a name" for name in named)


def parts(disk: DiskFacts) -> tuple[Partition, ...]:
    """How an installation divides it. Raises `Problem` INVALID when it is too small."""
    return layout.partitions(boot_mib=BOOT_MIB, state_mib=STATE_MIB, disk_bytes=disk.size_bytes, raid=True)


def largest(disks: tuple[DiskFacts, ...], facts_booted: tuple[str, ...]) -> str:
    """The largest disk inside the machine that nobody uses; empty if there is none or two are alike."""
    free = [
        disk
        for disk in disks
        if not (disk.removable or disk.in_use or disk.problem or disk.device in facts_booted)
    ]
    size = max((disk.size_bytes for disk in free), default=0)
    best = sorted(disk.device for disk in free if disk.size_bytes == size)
    return best[0] if best else ""


def effects(plan: InstallPlan, request: InstallRequest) -> tuple[str, ...]:
    """The plan in words."""
    words = [target.describe() for target in plan.targets]
    if plan.join:
        words.append("copies the boot partition, and keeps it and the state in step from now on")
        return tuple(words)
    for target in plan.targets:
        if isinstance(target, Fresh) and len(target.parts) > len(_OURS):
            words.append(f"makes a datastore of {show_size(target.parts[-1].size)} on {target.disk.device}")
    if not (isinstance(plan.targets[0], Renew) and plan.targets[0].keep_state):
        words.append("copies this host's state: users, keys, switches, certificate, name")
    by = "UEFI and BIOS" if all(bios_starts(target.disk) for target in plan.targets) else "UEFI"
    words.append(f"writes the image and its boot loaders, for {by}")
    if request.reboot:
        words.append("reboots the host")
    return tuple(words)


def warnings(facts: Facts) -> tuple[str, ...]:
    if not facts.lost_vms:
        return ()
    return (f"VMs on a datastore in memory do not come along: {', '.join(facts.lost_vms)}",)


def _target(disk: DiskFacts, request: InstallRequest, *, mirror: bool) -> Target:
    if is_ours(disk) and (holds_datastore(disk) or (is_complete(disk) and not request.erase)):
        return Renew(disk=disk, keep_state=request.state is OldState.KEEP and not mirror)
    return Fresh(disk=disk, parts=parts(disk))


def _unknown(name: str, path: str, facts: Facts) -> Reason:
    there = "; ".join(disk.words() for disk in facts.disks) or "none"
    return Reason(message=f"there is no disk {name!r} here; disks: {there}", code=Code.NOT_FOUND, path=path)


def image_fits(file_bytes: int, boot_mib: int = BOOT_MIB) -> list[Reason]:
    """Two of them have to fit beside each other."""
    room = (boot_mib - 8) * MIB
    if 2 * file_bytes <= room:
        return []
    message = f"the image has {show_size(file_bytes)}, and two of them do not fit into {show_size(room)}"
    return [Reason(message=message, code=Code.NO_SPACE, path="$.image")]
