"""Virtual machines on the wire.

`VmSpec` says once for each field when a change of it takes effect; rules, changes, the command line's help
and the API's description derive from it.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from thimble.contract.common import In, Listed, Out, Secret


class Applies(StrEnum):
    """When a change of a field of a VM takes effect."""

    AT_ONCE = "at once"
    DEVICE = "by hot plug where the machine can, else at the next cold start"
    COLD = "at the next cold start"
    NEVER = "fixed when the VM is created"


AT_ONCE, DEVICE, COLD, FIXED = Applies.AT_ONCE, Applies.DEVICE, Applies.COLD, Applies.NEVER

Count = Annotated[int, Meta(ge=1)]


class Machine(StrEnum):
    Q35 = "q35"
    MICROVM = "microvm"  # small guests, direct kernel boot, virtio-mmio, no PCI


class Firmware(StrEnum):
    UEFI = "uefi"
    BIOS = "bios"
    DIRECT = "direct"  # QEMU loads kernel and initrd itself


class DiskFormat(StrEnum):
    QCOW2 = "qcow2"
    RAW = "raw"


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    SATA = "sata"
    NVME = "nvme"


class NicModel(StrEnum):
    VIRTIO = "virtio"
    E1000E = "e1000e"


class CrashPolicy(StrEnum):
    """What follows when QEMU dies or the guest panics though the intent is `running`."""

    RESTART = "restart"  # with back-off
    STOP = "stop"


class HostShutdown(StrEnum):
    """What becomes of a running VM when the host reboots or goes off."""

    SAVE = "save"  # its memory goes to disk; it goes on when the host is back
    SHUTDOWN = "shutdown"  # the guest is asked; powered off when it does not obey in time
    KILL = "kill"  # powered off at once


class Intent(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


class PowerState(StrEnum):
    """What is. `saved`: off, with its memory on disk; `crashed`: QEMU is gone though nobody asked;
    `failed`: a step of create or start failed.
    """

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SAVING = "saving"
    SAVED = "saved"
    CRASHED = "crashed"
    FAILED = "failed"
    DELETING = "deleting"


class DiskSpec(In, frozen=True, kw_only=True):
    """A disk: an existing `volume`, or a new one of `size_bytes`, empty or a copy of `image`.

    `volume` and `image` are written `datastore/name`; a bare name means the VM's datastore.
    """

    name: str = ""  # given by us (`disk0`, …) when empty
    volume: str | None = None
    image: str | None = None
    size_bytes: Annotated[int, Meta(ge=1)] | None = None
    format: DiskFormat = DiskFormat.QCOW2
    bus: DiskBus = DiskBus.VIRTIO
    read_only: bool = False


class NicSpec(In, frozen=True, kw_only=True):
    """A network card on a port of `switch`."""

    name: str = ""  # `nic0`, …
    switch: str
    mac: str | None = None
    model: NicModel = NicModel.VIRTIO


class CdromSpec(In, frozen=True, kw_only=True):
    """A CD-ROM drive; `image` None is an empty tray."""

    name: str = ""  # `cd0`, …
    image: str | None = None


class DirectBoot(In, frozen=True, kw_only=True):
    """For firmware `direct`: images holding a bzImage and an initrd, and the kernel command line."""

    kernel: str
    initrd: str | None = None
    cmdline: Annotated[str, Secret] = ""


class Autostart(In, frozen=True, kw_only=True):
    """Start with the host: lower `order` first, then wait `delay_s` before the next."""

    enabled: bool = False
    order: Annotated[int, Meta(ge=0, le=9999)] = 100
    delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class SeedMethod(StrEnum):
    CREDENTIALS = "credentials"  # systemd ≥ 256, over SMBIOS type 11
    NOCLOUD = "nocloud"  # cloud-init's NoCloud volume, labelled CIDATA
    BOTH = "both"


class SeedSpec(In, frozen=True, kw_only=True):
    """First-boot data for the guest. Passwords only as crypt(3) hashes."""

    method: SeedMethod = SeedMethod.BOTH
    hostname: str = ""  # the VM's name when empty
    user: str = "root"
    ssh_keys: tuple[str, ...] = ()
    password_hash: Annotated[str, Secret] | None = None
    address: str = ""  # `10.0.0.5/24`; DHCP when empty
    gateway: str = ""
    dns: tuple[str, ...] = ()
    user_data: Annotated[str, Secret] = ""  # whole `#cloud-config` of one's own; wins over the fields above


class VmSpec(In, frozen=True, kw_only=True):
    """What a VM is. Only `name` is needed: 1 vCPU, 512 MiB, UEFI on q35, no disk, no NIC."""

    name: Annotated[str, AT_ONCE]
    description: Annotated[str, Meta(max_length=4096), AT_ONCE] = ""
    datastore: Annotated[str, FIXED] = ""  # of its directory and new disks; empty: the host's default
    vcpus: Annotated[int, Meta(ge=1, le=255), COLD] = 1
    memory_mib: Annotated[int, Meta(ge=16, le=16_777_216), COLD] = 512
    machine: Annotated[Machine, FIXED] = Machine.Q35
    firmware: Annotated[Firmware, COLD] = Firmware.UEFI
    direct: Annotated[DirectBoot | None, COLD] = None
    cpu: Annotated[str, COLD] = "host"  # or a baseline: x86-64-v2, x86-64-v3, or a QEMU model name
    disks: Annotated[tuple[DiskSpec, ...], DEVICE] = ()
    nics: Annotated[tuple[NicSpec, ...], DEVICE] = ()
    cdroms: Annotated[tuple[CdromSpec, ...], DEVICE] = ()
    rng: Annotated[bool, COLD] = True
    balloon: Annotated[bool, COLD] = True
    serial: Annotated[bool, FIXED] = True
    vga: Annotated[bool, COLD] = True
    tablet: Annotated[bool, COLD] = True
    guest_agent: Annotated[bool, COLD] = True
    seed: Annotated[SeedSpec | None, COLD] = None
    autostart: Annotated[Autostart, AT_ONCE] = Autostart()
    on_crash: Annotated[CrashPolicy, AT_ONCE] = CrashPolicy.RESTART
    host_shutdown: Annotated[HostShutdown, AT_ONCE] = HostShutdown.SHUTDOWN


@cache
def applies() -> dict[str, Applies]:
    """When a change of each field of `VmSpec` takes effect; looked up when somebody asks."""
    return {
        field.name: next(note for note in field.type.__metadata__ if isinstance(note, Applies))
        for field in msgspec.structs.fields(VmSpec)
    }


def fields(*when: Applies) -> tuple[str, ...]:
    """The fields of `VmSpec` whose changes take effect `when`, in their order."""
    return tuple(name for name, one in applies().items() if one in when)


class VmCreate(VmSpec, frozen=True, kw_only=True):
    """A new VM."""

    start: bool = False  # start it as part of the same task


class VmChange(In, frozen=True, kw_only=True):
    """What to change: the fields of `VmSpec` that are not fixed; absent ones stay."""

    name: str | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=4096)] | UnsetType = UNSET
    vcpus: Annotated[int, Meta(ge=1, le=255)] | UnsetType = UNSET
    memory_mib: Annotated[int, Meta(ge=16, le=16_777_216)] | UnsetType = UNSET
    cpu: str | UnsetType = UNSET
    firmware: Firmware | UnsetType = UNSET
    direct: DirectBoot | None | UnsetType = UNSET
    disks: tuple[DiskSpec, ...] | UnsetType = UNSET
    nics: tuple[NicSpec, ...] | UnsetType = UNSET
    cdroms: tuple[CdromSpec, ...] | UnsetType = UNSET
    seed: SeedSpec | None | UnsetType = UNSET
    rng: bool | UnsetType = UNSET
    balloon: bool | UnsetType = UNSET
    vga: bool | UnsetType = UNSET
    tablet: bool | UnsetType = UNSET
    guest_agent: bool | UnsetType = UNSET
    autostart: Autostart | UnsetType = UNSET
    on_crash: CrashPolicy | UnsetType = UNSET
    host_shutdown: HostShutdown | UnsetType = UNSET


class DiskView(Out, frozen=True, kw_only=True):
    name: str
    volume: str  # `datastore/name`
    size_bytes: int
    format: DiskFormat
    bus: DiskBus
    read_only: bool
    address: str  # the device's stored PCI (or MMIO slot) address


class NicView(Out, frozen=True, kw_only=True):
    name: str
    switch: str
    mac: str
    model: NicModel
    address: str  # the device's stored address
    ip: tuple[str, ...] = ()  # known from a static lease, the DHCP server or the guest agent


class CdromView(Out, frozen=True, kw_only=True):
    name: str
    image: str | None
    address: str


class VmStatus(Out, frozen=True, kw_only=True):
    """What is; volatile. Times are seconds since the epoch."""

    state: PowerState
    since: float
    why: str = ""  # the reason in words, when the state is not what was asked
    accel: str = ""  # `kvm` or `tcg` while it runs
    pid: int | None = None
    started: float | None = None
    last_output: Annotated[str, Secret] = ""  # tail of serial and QEMU's own words, after a crash
    restarts: int = 0
    pending: tuple[str, ...] = ()  # changes waiting for a cold start, in words


class Vm(Out, frozen=True, kw_only=True):
    """A VM as clients see it: what was asked, what is intended, what is."""

    id: str
    rev: int  # for If-Match
    name: str
    description: str
    datastore: str
    vcpus: int
    memory_mib: int
    machine: Machine
    firmware: Firmware
    direct: DirectBoot | None
    cpu: str
    disks: tuple[DiskView, ...]
    nics: tuple[NicView, ...]
    cdroms: tuple[CdromView, ...]
    rng: bool
    balloon: bool
    serial: bool
    vga: bool
    tablet: bool
    guest_agent: bool
    seed: SeedSpec | None
    autostart: Autostart
    on_crash: CrashPolicy
    host_shutdown: HostShutdown = HostShutdown.SHUTDOWN
    machine_type: str = ""  # the versioned one QEMU has; empty before the first start
    intent: Intent
    status: VmStatus
    allowed: tuple[str, ...]  # verbs possible now: start, stop, kill, …


class VmSummary(Out, frozen=True, kw_only=True):
    """One row of the list."""

    id: str
    rev: int
    name: str
    vcpus: int
    memory_mib: int
    intent: Intent
    state: PowerState
    why: str
    ip: tuple[str, ...]
    allowed: tuple[str, ...]


class VmList(Listed, frozen=True, kw_only=True):
    vms: tuple[VmSummary, ...]


class StartRequest(In, frozen=True, kw_only=True):
    """A saved VM goes on where it was; with `discard_saved` it boots afresh, and what was saved is gone."""

    discard_saved: bool = False


class StopRequest(In, frozen=True, kw_only=True):
    """Graceful stop: ask the guest, wait `timeout_s`; then `force` or leave it running and say so."""

    timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 120.0
    force: bool = False


class DeleteRequest(In, frozen=True, kw_only=True):
    """Deletes the VM and the volumes made for it, unless `keep_volumes`."""

    keep_volumes: bool = False


class ConsoleLog(Out, frozen=True, kw_only=True):
    """The last serial output, decoded with replacement characters."""

    text: str
    truncated: bool
