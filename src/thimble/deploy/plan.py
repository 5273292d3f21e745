"""What an installation would do to which disk, and every blocker. Pure.

A disk that holds a datastore of Thimble is never partitioned anew, whoever asks: at most its boot partitions
are written again. Anything else that is found on it needs `erase`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from thimble.contract.deploy import InstallRequest, OldState
from thimble.core.decision import Decision, blocked, nothing
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import MIB, show_size
from thimble.deploy.disk_facts import (
    OURS,
    DiskFacts,
    bios_starts,
    contents,
    holds_datastore,
    is_complete,
    is_ours,
)
from thimble.medium import layout
from thimble.medium.layout import Partition

BOOT_MIB = 512
STATE_MIB = 1024
REFUSAL = "this cannot be installed"


class InstallFacts(msgspec.Struct, frozen=True, kw_only=True):
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


def install(request: InstallRequest, facts: InstallFacts) -> Decision[InstallPlan]:
    """How to carry `request` out."""
    wanted = [(name, getattr(request, name)) for name in ("disk", "mirror") if getattr(request, name)]
    if not wanted:
        return blocked(Reason(message="say which disk to install on", path="$.disk"), refusal=REFUSAL)
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
                Reason(message=m, code=c, path=f"$.{field}") for c, m in blockers(disk, request, facts)
            ]
    if reasons:
        return blocked(*reasons, refusal=REFUSAL)
    if not join and facts.build and all(disk.installed == facts.build for _, disk in found):
        return nothing(f"{facts.version} is installed on {found[0][1].device} already")
    targets = tuple(_target(disk, request, mirror=field == "mirror") for field, disk in found)
    plan = InstallPlan(targets=targets, join=join)
    return Decision(plan=plan, effects=effects(plan, request), warnings=warnings(facts))


def blockers(disk: DiskFacts, request: InstallRequest, facts: InstallFacts) -> list[tuple[Code, str]]:
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


def may_erase(disk: DiskFacts, request: InstallRequest, facts: InstallFacts) -> bool:
    return request.erase or disk.device in facts.erasable


def parts(disk: DiskFacts) -> tuple[Partition, ...]:
    """How an installation divides it. Raises `Problem` INVALID when it is too small."""
    return layout.partitions(boot_mib=BOOT_MIB, state_mib=STATE_MIB, disk_bytes=disk.size_bytes, raid=True)


def effects(plan: InstallPlan, request: InstallRequest) -> tuple[str, ...]:
    """The plan in words."""
    words = [target.describe() for target in plan.targets]
    if plan.join:
        words.append("copies the boot partition, and keeps it and the state in step from now on")
        return tuple(words)
    for target in plan.targets:
        if isinstance(target, Fresh) and len(target.parts) > len(OURS):
            words.append(f"makes a datastore of {show_size(target.parts[-1].size)} on {target.disk.device}")
    if not (isinstance(plan.targets[0], Renew) and plan.targets[0].keep_state):
        words.append("copies this host's state: users, keys, switches, certificate, name")
    by = "UEFI and BIOS" if all(bios_starts(target.disk) for target in plan.targets) else "UEFI"
    words.append(f"writes the image and its boot loaders, for {by}")
    if request.reboot:
        words.append("reboots the host")
    return tuple(words)


def warnings(facts: InstallFacts) -> tuple[str, ...]:
    if not facts.lost_vms:
        return ()
    return (f"VMs on a datastore in memory do not come along: {', '.join(facts.lost_vms)}",)


def _target(disk: DiskFacts, request: InstallRequest, *, mirror: bool) -> Target:
    if is_ours(disk) and (holds_datastore(disk) or (is_complete(disk) and not request.erase)):
        return Renew(disk=disk, keep_state=request.state is OldState.KEEP and not mirror)
    return Fresh(disk=disk, parts=parts(disk))


def _unknown(name: str, path: str, facts: InstallFacts) -> Reason:
    there = "; ".join(disk.words() for disk in facts.disks) or "none"
    return Reason(message=f"there is no disk {name!r} here; disks: {there}", code=Code.NOT_FOUND, path=path)


def image_fits(file_bytes: int, boot_mib: int = BOOT_MIB) -> list[Reason]:
    """Two of them have to fit beside each other."""
    room = (boot_mib - 8) * MIB
    if 2 * file_bytes <= room:
        return []
    message = f"the image has {show_size(file_bytes)}, and two of them do not fit into {show_size(room)}"
    return [Reason(message=message, code=Code.NO_SPACE, path="$.image")]
