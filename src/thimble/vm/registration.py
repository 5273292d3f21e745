"""VMs that come with a datastore, maybe one carried here: their records are another host's word, not ours.

A record whose names or addresses could lead out of their places is refused. What may be but belongs to a VM
that was here before (uid, UUID, name, MAC, IP) is given anew. Ids are never changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from thimble.core.ids import NAME_MAX, mac_address, name_reasons
from thimble.core.problem import Problem
from thimble.network import subnet
from thimble.state.store import Record
from thimble.sys import files
from thimble.vm.record import rules
from thimble.vm.record.assign import UID_FIRST, UID_LAST, AddressFor, free_uid, new_uuid
from thimble.vm.record.spec import Card, Definition, Nic, VmRecord, volume_ref

replace = msgspec.structs.replace


class Taken:
    """What the VMs that are here already have."""

    def __init__(self, records: Iterable[Record[VmRecord]]) -> None:
        self.uids: set[int] = set()
        self.uuids: set[str] = set()
        self.names: set[str] = set()
        self.macs: set[str] = set()
        self.ips: set[str] = set()
        self.volumes: dict[str, str] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record[VmRecord]) -> None:
        given, vm = record.value.assigned, record.value.definition
        self.uids.add(given.uid)
        self.uuids.add(given.uuid)
        self.names.add(vm.name)
        self.macs |= {nic.mac for nic in vm.nics}
        self.ips |= {nic.ip for nic in vm.nics if nic.ip}
        self.volumes |= {volume_ref(record.root, record.id, disk): record.id for disk in vm.disks}


def refusal(record: Record[VmRecord], taken: Taken) -> str:
    """Why this record is not used; empty when it can be."""
    vm = record.value.definition
    reasons = [
        *name_reasons(record.id, "its directory"),
        *name_reasons(vm.name, "$.name"),
        *rules.check_names("disks", [disk.name for disk in vm.disks]),
        *rules.check_names("nics", [nic.name for nic in vm.nics]),
        *rules.check_names("cdroms", [cdrom.name for cdrom in vm.cdroms]),
        *rules.check_macs([nic.mac for nic in vm.nics]),
    ]
    if reasons:
        return f"{reasons[0].path}: {reasons[0].message}"
    for nic in vm.nics:
        if nic.ip and subnet.number_of(nic.ip) is None:
            return f"{nic.ip!r} is not an IPv4 address"
    for disk in vm.disks:
        if disk.volume and disk.volume in taken.volumes:
            return f"the volume {disk.volume} is used by {taken.volumes[disk.volume]}"
    return ""


def settled(
    value: VmRecord, taken: Taken, entropy: Callable[[int], bytes], address_for: AddressFor
) -> VmRecord:
    """`value` with new ones for what is taken; itself when nothing is."""
    given = value.assigned
    sound = UID_FIRST <= given.uid <= UID_LAST and given.uid not in taken.uids
    cards = {
        nic.name: _settled_nic(nic, taken, entropy, address_for) for nic in value.definition.nics
    }  # fmt: skip
    nics = tuple(nic if nic.mac is None else replace(nic, mac=cards[nic.name].mac) for nic in value.spec.nics)
    return replace(
        value,
        spec=replace(value.spec, name=_free_name(value.spec.name, taken.names), nics=nics),
        assigned=replace(
            given,
            uid=given.uid if sound else free_uid(taken.uids),
            uuid=new_uuid(entropy(16)) if given.uuid in taken.uuids else given.uuid,
            nics=cards,
        ),
    )


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name[: NAME_MAX - 1 - len(str(number))]}-{number}"
    return free


def _settled_nic(nic: Nic, taken: Taken, entropy: Callable[[int], bytes], address_for: AddressFor) -> Card:
    mac, ip = nic.mac, nic.ip
    while mac in taken.macs:
        mac = mac_address(entropy(3))
    if ip in taken.ips:
        try:
            ip = address_for(nic.switch, mac, taken.ips)
        except Problem:
            ip = ""  # there is no such switch here, or it is full
    return Card(mac=mac, ip=ip)


def differences(before: VmRecord, after: VmRecord) -> str:
    """For the log."""
    old, new = before.definition, after.definition
    lines = [f"{f} {getattr(old, f)} is {getattr(new, f)} now" for f in ("name", "uid", "uuid")
             if getattr(old, f) != getattr(new, f)]  # fmt: skip
    for was, nic in zip(old.nics, new.nics, strict=True):
        if was != nic:
            lines.append(f"{nic.name} has {nic.mac} {nic.ip} now, not {was.mac} {was.ip}")
    return ", ".join(lines)


def hand_over(directory: Path, vm: Definition) -> None:
    """Give the VM's own files to its new user. Raises OSError."""
    os.chown(directory, 0, vm.uid, follow_symlinks=False)
    for disk in vm.disks:
        path = directory / disk.file
        if not disk.volume and files.regular(path, directory):
            os.chown(path, vm.uid, vm.uid, follow_symlinks=False)
