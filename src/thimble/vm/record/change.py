"""Changes of a VM: what the record becomes, and how a running QEMU can follow. Pure.

`plan` compares what runs with the new record: effects that QEMU takes while it runs, in order, and in words
what waits for a cold start. Each effect says what it does and what the running record is after it.
Invariant: planning again after all effects yields no effect.
"""

from __future__ import annotations

from functools import cache

import msgspec
from msgspec import UNSET

from thimble.contract.vm import (
    Applies,
    DiskBus,
    DiskSpec,
    Machine,
    NicSpec,
    VmChange,
    VmCreate,
    VmSpec,
    fields,
)
from thimble.core.problem import Problem, Reason
from thimble.vm.record import assign, layout
from thimble.vm.record.spec import Card, Definition, Disk, Nic, Running, VmRecord

replace = msgspec.structs.replace


class AddDisk(msgspec.Struct, frozen=True):
    disk: Disk
    address: str

    def describe(self) -> str:
        return f"plugs in disk {self.disk.name} at {self.address}"

    def after(self, running: Definition) -> Definition:
        addresses = running.addresses | {f"disk-{self.disk.name}": self.address}
        return replace(running, disks=(*running.disks, self.disk), addresses=addresses)


class RemoveDisk(msgspec.Struct, frozen=True):
    disk: Disk

    def describe(self) -> str:
        return f"unplugs disk {self.disk.name}"

    def after(self, running: Definition) -> Definition:
        disks = tuple(disk for disk in running.disks if disk.name != self.disk.name)
        return replace(running, disks=disks, addresses=_without(running, f"disk-{self.disk.name}"))


class AddNic(msgspec.Struct, frozen=True):
    nic: Nic
    address: str

    def describe(self) -> str:
        return f"plugs in NIC {self.nic.name} ({self.nic.switch}) at {self.address}"

    def after(self, running: Definition) -> Definition:
        addresses = running.addresses | {f"nic-{self.nic.name}": self.address}
        return replace(running, nics=(*running.nics, self.nic), addresses=addresses)


class RemoveNic(msgspec.Struct, frozen=True):
    nic: Nic

    def describe(self) -> str:
        return f"unplugs NIC {self.nic.name}"

    def after(self, running: Definition) -> Definition:
        nics = tuple(nic for nic in running.nics if nic.name != self.nic.name)
        return replace(running, nics=nics, addresses=_without(running, f"nic-{self.nic.name}"))


class ChangeMedium(msgspec.Struct, frozen=True):
    name: str
    image: str | None

    def describe(self) -> str:
        return f"puts {self.image} into {self.name}" if self.image else f"empties {self.name}"

    def after(self, running: Definition) -> Definition:
        cdroms = tuple(
            replace(cdrom, image=self.image) if cdrom.name == self.name else cdrom for cdrom in running.cdroms
        )
        return replace(running, cdroms=cdroms)


Effect = AddDisk | RemoveDisk | AddNic | RemoveNic | ChangeMedium


class Plan(msgspec.Struct, frozen=True):
    hot: tuple[Effect, ...]
    pending: tuple[str, ...]


def _without(record: Definition, device: str) -> dict[str, str]:
    return {name: address for name, address in record.addresses.items() if name != device}


@cache
def cold() -> tuple[str, ...]:
    """Fields that QEMU only takes at its start."""
    return fields(Applies.COLD)


def plan(now: Running, wanted: Definition) -> Plan:
    """How a QEMU that is `now` gets to `wanted`."""
    running = now.record
    hot: list[Effect] = []
    pending = [
        _words(field, running, wanted)
        for field in cold()
        if getattr(running, field) != getattr(wanted, field)
    ]
    pluggable = running.machine is Machine.Q35
    _plan_disks(now, wanted, hot, pending, pluggable=pluggable)
    _plan_nics(now, wanted, hot, pending, pluggable=pluggable)
    old = {cdrom.name: cdrom for cdrom in running.cdroms}
    new = {cdrom.name: cdrom for cdrom in wanted.cdroms}
    hot += [ChangeMedium(n, new[n].image) for n in new if n in old and new[n].image != old[n].image]
    pending += [f"adds CD-ROM drive {name}" for name in new if name not in old]
    pending += [f"removes CD-ROM drive {name}" for name in old if name not in new]
    return Plan(tuple(hot), tuple(pending))


def _plan_disks(
    now: Running, wanted: Definition, hot: list[Effect], pending: list[str], *, pluggable: bool
) -> None:
    old = {disk.name: disk for disk in now.record.disks}
    new = {disk.name: disk for disk in wanted.disks}
    for name, disk in old.items():
        if new.get(name) == disk:
            continue
        if pluggable and disk.bus is not DiskBus.SATA:
            hot.append(RemoveDisk(disk))
        else:
            pending.append(f"removes disk {name}")
    for name, disk in new.items():
        if old.get(name) == disk:
            continue
        address = wanted.addresses[f"disk-{name}"]
        clean = name not in old or RemoveDisk(old[name]) in hot
        if pluggable and disk.bus is not DiskBus.SATA and clean and _reachable(now, address):
            hot.append(AddDisk(disk, address))
        else:
            pending.append(f"adds disk {name}")


def _plan_nics(
    now: Running, wanted: Definition, hot: list[Effect], pending: list[str], *, pluggable: bool
) -> None:
    old = {nic.name: nic for nic in now.record.nics}
    new = {nic.name: nic for nic in wanted.nics}
    for name, nic in old.items():
        if new.get(name) != nic:
            if pluggable:
                hot.append(RemoveNic(nic))
            else:
                pending.append(f"removes NIC {name}")
    for name, nic in new.items():
        if old.get(name) != nic:
            address = wanted.addresses[f"nic-{name}"]
            if pluggable and _reachable(now, address):
                hot.append(AddNic(nic, address))
            else:
                pending.append(f"adds NIC {name}")


def _reachable(now: Running, address: str) -> bool:
    """Does the running machine have the root port of `address`?"""
    number = layout.port(address)
    return number is not None and number < now.ports


def _words(field: str, old: Definition, new: Definition) -> str:
    name = field.replace("_mib", "").replace("_", " ")
    if field in ("direct", "seed"):
        return f"{name} changed"
    before, after = getattr(old, field), getattr(new, field)
    if isinstance(before, bool):
        return f"{name} {'on' if after else 'off'}"
    unit = " MiB" if field == "memory_mib" else ""
    return f"{name} {before} → {after}{unit}"


def waiting(now: Running, old: VmRecord, want: VmSpec) -> tuple[str, ...]:
    """What of `want` a QEMU that is `now` only takes at its next cold start, in words.

    `want` is complete; MACs and sizes it does not name do not matter here. Empty when devices do not fit:
    whoever carries the change out says so.
    """
    given = old.assigned
    known = {nic.name: nic for nic in old.definition.nics}
    cards = {nic.name: _card(nic, known.get(nic.name)) for nic in want.nics}
    try:
        new = assign.placed(
            VmRecord(spec=merged(old.spec, want), assigned=replace(given, nics=cards), noted=old.noted)
        )
    except Problem:
        return ()
    return plan(now, new.definition).pending


def _card(want: NicSpec, old: Nic | None) -> Card:
    mac = want.mac or (old.mac if old else "")
    same = old is not None and (old.switch, old.mac) == (want.switch, mac)
    return Card(mac=mac, ip=old.ip if old and same else "")


def merged(old: VmSpec, want: VmSpec) -> VmSpec:
    """The spec to keep: of a disk that stays, only bus and read-only can change."""
    known = {disk.name: disk for disk in old.disks}
    disks = tuple(
        replace(known[disk.name], bus=disk.bus, read_only=disk.read_only) if disk.name in known else disk
        for disk in want.disks
    )
    return replace(assign.plain(want), disks=disks)


def complete(record: VmRecord, datastore: str) -> VmCreate:
    """The VM as a request that leaves nothing open: with its MACs, sizes, and where it is."""
    vm = record.definition
    fields = {name: getattr(record.spec, name) for name in VmSpec.__struct_fields__}
    fields["disks"] = tuple(disk_spec(disk) for disk in vm.disks)
    fields["nics"] = tuple(NicSpec(name=n.name, switch=n.switch, mac=n.mac, model=n.model) for n in vm.nics)
    return VmCreate(**fields | {"datastore": datastore})


def asked(record: VmRecord, change: VmChange, datastore: str) -> VmCreate:
    """The whole spec that `change` leads to, so that one set of rules checks creates and changes."""
    given = {
        name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET
    }
    return replace(complete(record, datastore), **given)


def disk_spec(disk: Disk) -> DiskSpec:
    return DiskSpec(
        name=disk.name, volume=disk.volume or None, image=disk.image or None,
        size_bytes=disk.size_bytes or None,
        format=disk.format, bus=disk.bus, read_only=disk.read_only,
    )  # fmt: skip


def disk_reasons(old: tuple[Disk, ...], new: tuple[DiskSpec, ...], own: dict[str, str]) -> list[Reason]:
    """Why kept disks cannot become what is asked. `own`: disk → how its own volume is called by clients."""
    known = {disk.name: disk for disk in old}
    reasons = []
    for n, spec in enumerate(new):
        disk = known.get(spec.name)
        if disk is None:
            continue
        path = f"$.disks[{n}]"
        if spec.volume is not None and spec.volume not in (disk.volume, own.get(disk.name)):
            reasons.append(
                Reason(
                    message="another volume needs another disk name",
                    path=f"{path}.volume",
                )
            )
        if spec.size_bytes is not None and spec.size_bytes != disk.size_bytes:
            reasons.append(
                Reason(message="the size of a disk cannot be changed yet", path=f"{path}.size_bytes")
            )
        if spec.image is not None and spec.image != disk.image and not disk.volume:
            reasons.append(
                Reason(message="the image is only read when the disk is made", path=f"{path}.image")
            )
    return reasons
