"""What Thimble keeps of a VM: the record, and how clients see it. Pure.

    spec      what was asked, made complete (names, MACs, formats)
    assigned  uid, uuid, addresses of devices, static IPs: given once, kept for life
    intent    running or stopped
    phase     creating ─► ready ─► deleting; what a restarted agent has to finish

Invariant: a record alone suffices to build the VM's command line again. Only `service` writes records.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from thimble.contract.host import Role
from thimble.contract.vm import (
    Autostart,
    CdromView,
    CrashPolicy,
    DirectBoot,
    DiskBus,
    DiskFormat,
    DiskView,
    Firmware,
    HostShutdown,
    Intent,
    Machine,
    NicModel,
    NicView,
    SeedSpec,
    Vm,
    VmStatus,
    VmSummary,
)
from thimble.storage.homes import disk_file

#: Stands for secrets in answers; sent back unchanged it keeps the old value.
HIDDEN = "(hidden)"


#: The names of a saved VM's file: whole; being written; loaded, never to be loaded again. See `statefile`.
STATE_FILE = "saved.state"
STATE_NEW = "saved.state.new"
STATE_USED = "resumed.state"


class Phase(StrEnum):
    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class Disk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`volume` is `datastore/name` of a volume that stands alone; empty: our own, in the VM's directory."""

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


class Cdrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    image: str | None = None


class VmRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The durable record; see the module's docstring. `addresses`: device → address, see `layout`."""

    name: str
    description: str
    vcpus: int
    memory_mib: int
    machine: Machine
    firmware: Firmware
    direct: DirectBoot | None
    cpu: str
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    cdroms: tuple[Cdrom, ...]
    rng: bool
    balloon: bool
    serial: bool
    vga: bool
    tablet: bool
    guest_agent: bool
    seed: SeedSpec | None
    autostart: Autostart
    on_crash: CrashPolicy

    uuid: str
    uid: int
    addresses: dict[str, str]
    created: float

    host_shutdown: HostShutdown = HostShutdown.SHUTDOWN
    machine_type: str = ""  # QEMU's versioned name, told by it at the first start; microvm has none
    saved: bool = False  # its memory ought to be in the file `saved.state` beside this record

    intent: Intent = Intent.STOPPED
    phase: Phase = Phase.CREATING
    keep_volumes: bool = False  # of the delete that is under way
    start: bool = False  # of the create that is under way
    key: str = ""  # idempotency key of the create, and the digest of its body
    digest: str = ""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a running QEMU was started as, and has become by hot plug; volatile, in the run directory."""

    record: VmRecord
    ports: int  # root ports it was born with
    accel: str
    started: float


def volume_ref(home: str, id: str, disk: Disk) -> str:
    """How clients and the storage service name the disk's volume."""
    return disk.volume or f"{home}/{id}.{disk.name}"


def view(
    id: str,
    rev: int,
    home: str,
    record: VmRecord,
    status: VmStatus,
    allowed: tuple[str, ...],
    *,
    role: Role = Role.ADMIN,
) -> Vm:
    """The VM as a client of `role` may see it: what guests write on their consoles is not for viewers."""
    at = record.addresses
    if role is Role.VIEWER:
        status = msgspec.structs.replace(status, last_output="")
    return Vm(
        id=id, rev=rev, name=record.name, description=record.description, datastore=home,
        vcpus=record.vcpus, memory_mib=record.memory_mib, machine=record.machine, firmware=record.firmware,
        direct=record.direct, cpu=record.cpu,
        disks=tuple(
            DiskView(
                name=disk.name, volume=volume_ref(home, id, disk), size_bytes=disk.size_bytes,
                format=disk.format, bus=disk.bus, read_only=disk.read_only,
                address=at.get(f"disk-{disk.name}", ""),
            )
            for disk in record.disks
        ),
        nics=tuple(
            NicView(
                name=nic.name, switch=nic.switch, mac=nic.mac, model=nic.model,
                address=at.get(f"nic-{nic.name}", ""), ip=(nic.ip,) if nic.ip else (),
            )
            for nic in record.nics
        ),
        cdroms=tuple(
            CdromView(name=cdrom.name, image=cdrom.image, address=at.get(f"cd-{cdrom.name}", ""))
            for cdrom in record.cdroms
        ),
        rng=record.rng, balloon=record.balloon, serial=record.serial, vga=record.vga, tablet=record.tablet,
        guest_agent=record.guest_agent, seed=shown_seed(record.seed, role), autostart=record.autostart,
        on_crash=record.on_crash, host_shutdown=record.host_shutdown, machine_type=record.machine_type,
        intent=record.intent, status=status, allowed=allowed,
    )  # fmt: skip


def summary(id: str, rev: int, record: VmRecord, status: VmStatus, allowed: tuple[str, ...]) -> VmSummary:
    """One row of the list: cheap, from memory only."""
    return VmSummary(
        id=id, rev=rev, name=record.name, vcpus=record.vcpus, memory_mib=record.memory_mib,
        intent=record.intent, state=status.state, why=status.why,
        ip=tuple([nic.ip for nic in record.nics if nic.ip]), allowed=allowed,
    )  # fmt: skip


def shown_seed(seed: SeedSpec | None, role: Role) -> SeedSpec | None:
    """The seed without the password's hash, and for viewers without the user's own data."""
    if seed is None:
        return None
    if seed.password_hash is not None:
        seed = msgspec.structs.replace(seed, password_hash=HIDDEN)
    if seed.user_data and role is Role.VIEWER:
        seed = msgspec.structs.replace(seed, user_data=HIDDEN)
    return seed


def kept_seed(new: SeedSpec | None, old: SeedSpec | None) -> SeedSpec | None:
    """`new`, with what a client only saw as hidden taken from `old`."""
    if new is None or old is None:
        return new
    if new.password_hash == HIDDEN:
        new = msgspec.structs.replace(new, password_hash=old.password_hash)
    if new.user_data == HIDDEN:
        new = msgspec.structs.replace(new, user_data=old.user_data)
    return new
