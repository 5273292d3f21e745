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
from thimble.vm.record.spec import Nic, VmRecord, volume_ref

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
        value = record.value
        self.uids.add(value.uid)
        self.uuids.add(value.uuid)
        self.names.add(value.name)
        self.macs |= {nic.mac for nic in value.nics}
        self.ips |= {nic.ip for nic in value.nics if nic.ip}
        self.volumes |= {volume_ref(record.root, record.id, disk): record.id for disk in value.disks}


def refusal(record: Record[VmRecord], taken: Taken) -> str:
    """Why this record is not used; empty when it can be."""
    value = record.value
    reasons = [
        *name_reasons(record.id, "its directory"),
        *name_reasons(value.name, "$.name"),
        *rules.check_names("disks", [disk.name for disk in value.disks]),
        *rules.check_names("nics", [nic.name for nic in value.nics]),
        *rules.check_names("cdroms", [cdrom.name for cdrom in value.cdroms]),
        *rules.check_macs([nic.mac for nic in value.nics]),
    ]
    if reasons:
        return f"{reasons[0].path}: {reasons[0].message}"
    for nic in value.nics:
        if nic.ip and subnet.number_of(nic.ip) is None:
            return f"{nic.ip!r} is not an IPv4 address"
    for disk in value.disks:
        if disk.volume and disk.volume in taken.volumes:
            return f"the volume {disk.volume} is used by {taken.volumes[disk.volume]}"
    return ""


def settled(
    value: VmRecord, taken: Taken, entropy: Callable[[int], bytes], address_for: AddressFor
) -> VmRecord:
    """`value` with new ones for what is taken; itself when nothing is."""
    sound = UID_FIRST <= value.uid <= UID_LAST and value.uid not in taken.uids
    return replace(
        value,
        name=_free_name(value.name, taken.names),
        uid=value.uid if sound else free_uid(taken.uids),
        uuid=new_uuid(entropy(16)) if value.uuid in taken.uuids else value.uuid,
        nics=tuple(_settled_nic(nic, taken, entropy, address_for) for nic in value.nics),
    )


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name[: NAME_MAX - 1 - len(str(number))]}-{number}"
    return free


def _settled_nic(nic: Nic, taken: Taken, entropy: Callable[[int], bytes], address_for: AddressFor) -> Nic:
    mac, ip = nic.mac, nic.ip
    while mac in taken.macs:
        mac = mac_address(entropy(3))
    if ip in taken.ips:
        try:
            ip = address_for(nic.switch, mac, taken.ips)
        except Problem:
            ip = ""  # there is no such switch here, or it is full
    return replace(nic, mac=mac, ip=ip)


def differences(old: VmRecord, new: VmRecord) -> str:
    """For the log."""
    lines = [f"{f} {getattr(old, f)} is {getattr(new, f)} now" for f in ("name", "uid", "uuid")
             if getattr(old, f) != getattr(new, f)]  # fmt: skip
    for before, nic in zip(old.nics, new.nics, strict=True):
        if before != nic:
            lines.append(f"{nic.name} has {nic.mac} {nic.ip} now, not {before.mac} {before.ip}")
    return ", ".join(lines)


def hand_over(directory: Path, value: VmRecord) -> None:
    """Give the VM's own files to its new user. Raises OSError."""
    os.chown(directory, 0, value.uid, follow_symlinks=False)
    for disk in value.disks:
        path = directory / disk.file
        if not disk.volume and files.regular(path, directory):
            os.chown(path, value.uid, value.uid, follow_symlinks=False)
