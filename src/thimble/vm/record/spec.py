"""What Thimble keeps of a VM, in three parts with three writers, and what QEMU is made from. Pure.

    spec      what was asked, made complete (names); only `vm.create` and `vm.change` write it
    assigned  uid, UUID, device addresses, MACs, IPs, true sizes, machine type: given once, kept for life
    noted     intent, saved, phase: what has become of it

    VmRecord(spec, assigned, noted) ──► Definition: the machine as QEMU is to have it

`generation` counts the changes of spec; it is the `rev` that clients see. The file's own revision also counts
what is noted. A record alone suffices to build the VM's command line again.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from thimble.contract.vm import (
    CdromSpec,
    DirectBoot,
    DiskBus,
    DiskFormat,
    DiskSpec,
    Firmware,
    Intent,
    Machine,
    NicModel,
    NicSpec,
    SeedSpec,
    VmSpec,
)
from thimble.storage.homes import disk_file

#: The names of a saved VM's file: whole; being written; loaded, never to be loaded again. See `saved_file`.
STATE_FILE = "saved.state"
STATE_NEW = "saved.state.new"
STATE_USED = "resumed.state"


class Phase(StrEnum):
    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class Disk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`volume` is `datastore/name` of a volume of its own; empty: the VM's, in the VM's directory."""

    name: str
    volume: str = ""
    image: str = ""  # what an own volume was copied from
    size_bytes: int = 0
    format: DiskFormat = DiskFormat.QCOW2
    bus: DiskBus = DiskBus.VIRTIO
    read_only: bool = False

    @property
    def file(self) -> str:
        """The name of an own volume's file in the VM's directory."""
        return disk_file(self.name, self.format)


class Nic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    switch: str
    mac: str
    model: NicModel = NicModel.VIRTIO
    ip: str = ""  # static address on a NAT switch


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as QEMU is to have it: `layout` places its devices, `render` writes its command line.

    It is kept beside the memory of a saved VM; what such a file has more (of older versions) is passed over.
    """

    name: str
    vcpus: int
    memory_mib: int
    machine: Machine
    firmware: Firmware
    direct: DirectBoot | None
    cpu: str
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    cdroms: tuple[CdromSpec, ...]
    rng: bool
    balloon: bool
    serial: bool
    vga: bool
    tablet: bool
    guest_agent: bool
    seed: SeedSpec | None
    uuid: str
    uid: int
    addresses: dict[str, str]
    machine_type: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a NIC was given. `ip`: its static address on a NAT switch."""

    mac: str
    ip: str = ""


class Assigned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`addresses`: device → address, see `layout`. `created`: seconds since the epoch.

    `disks`: name → size in bytes, once it is known. `machine_type`: QEMU's versioned name for the machine,
    told by it at the first start; a microvm has none.
    """

    uuid: str
    uid: int
    created: float
    addresses: dict[str, str]
    nics: dict[str, Card]
    disks: dict[str, int]
    machine_type: str = ""


class Noted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has become of a VM. `saved`: its memory ought to be in `saved.state` beside the record."""

    intent: Intent = Intent.STOPPED
    phase: Phase = Phase.CREATING
    saved: bool = False
    keep_volumes: bool = False  # of the delete that is under way
    start: bool = False  # of the create that is under way
    key: str = ""  # idempotency key of the create, and the digest of its body
    digest: str = ""


class VmRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The durable record. `spec.datastore` is empty: it is where the record is."""

    spec: VmSpec
    assigned: Assigned
    noted: Noted
    generation: int = 1

    @property
    def definition(self) -> Definition:
        """What QEMU is made from."""
        given = self.assigned
        return Definition(
            **{name: getattr(self.spec, name) for name in _SHARED},
            disks=tuple(_disk(disk, given.disks.get(disk.name, 0)) for disk in self.spec.disks),
            nics=tuple(_nic(nic, given.nics.get(nic.name)) for nic in self.spec.nics),
            uuid=given.uuid,
            uid=given.uid,
            addresses=given.addresses,
            machine_type=given.machine_type,
        )


_SHARED = tuple(
    name
    for name in Definition.__struct_fields__
    if name in VmSpec.__struct_fields__ and name not in ("disks", "nics")
)


def _disk(spec: DiskSpec, size: int) -> Disk:
    return Disk(
        name=spec.name, volume=spec.volume or "", image=spec.image or "",
        size_bytes=size or spec.size_bytes or 0, format=spec.format, bus=spec.bus, read_only=spec.read_only,
    )  # fmt: skip


def _nic(spec: NicSpec, card: Card | None) -> Nic:
    mac, ip = (card.mac, card.ip) if card else (spec.mac or "", "")
    return Nic(name=spec.name, switch=spec.switch, mac=mac, model=spec.model, ip=ip)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a running QEMU was started as, and has become by hot plug; volatile, in the run directory."""

    record: Definition
    ports: int  # root ports it was born with
    accel: str
    started: float


def volume_ref(home: str, id: str, disk: Disk) -> str:
    """How clients and the storage service name the disk's volume."""
    return disk.volume or f"{home}/{id}.{disk.name}"
