"""A saved VM: what is kept beside its memory, and whether it can go on here. Pure.

    saved.state    magic │ length of the file, 0 while it is written │ length of the JSON │ JSON: `Saved`
                   ┊ from `offset` on: QEMU's own migration stream

What the file says is checked, not believed: it may have come with a datastore. So a VM goes on with the
devices and files its record names; from the file come only the plain properties it ran with, and the
devices' places.
"""

from __future__ import annotations

import struct

import msgspec

from thimble.contract.vm import DiskBus, Machine
from thimble.core.problem import Code, Reason
from thimble.core.units import MIB
from thimble.vm.record import change, layout
from thimble.vm.record.cpus import HostCpu, change_refusal
from thimble.vm.record.spec import Definition, Running

replace = msgspec.structs.replace

_MAGIC = b"thimble saved VM"
_HEAD = struct.Struct("<16sQQ")
HEAD_SIZE = _HEAD.size
#: First-boot data may be large; beyond this it is not ours.
JSON_MAX = 16 * MIB
_PAGE = 4096
#: What a state takes beside the guest's memory, at most about.
MARGIN = 32 * MIB


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """`running`: what QEMU was; `goes_on`: it ran, and was not paused; `stays`: not wanted back unasked."""

    running: Running
    machine: str
    cpu: HostCpu
    goes_on: bool
    stays: bool
    when: float


def head(saved: Saved, size: int = 0) -> bytes:
    """The first bytes of the file; the stream begins behind them. `size`: of the whole, once it is known."""
    json = msgspec.json.encode(saved)
    filled = _HEAD.pack(_MAGIC, size, len(json)) + json
    return filled + bytes(-len(filled) % _PAGE)


def lengths(start: bytes) -> tuple[int, int] | None:
    """(length of the file, of the JSON) from its first `HEAD_SIZE` bytes; None when it is none of ours."""
    if len(start) < HEAD_SIZE:
        return None
    magic, size, json = _HEAD.unpack(start[:HEAD_SIZE])
    return (size, json) if magic == _MAGIC and json <= JSON_MAX else None


def offset(json: int) -> int:
    """Where the stream begins, for a JSON of that length."""
    return -(-(HEAD_SIZE + json) // _PAGE) * _PAGE


def read(json: bytes) -> Saved | None:
    """None when it cannot be understood."""
    try:
        return msgspec.json.decode(json, type=Saved)
    except msgspec.MsgspecError:
        return None


def blockers(running: Running, vm: Definition) -> list[Reason]:
    """Why what runs cannot be saved."""
    found = []
    if running.record.machine is Machine.MICROVM:
        found.append("a microvm cannot be saved: it has no machine type that lasts")
    if any(disk.bus is DiskBus.NVME for disk in running.record.disks):
        found.append("QEMU cannot save a VM with NVMe disks: use bus virtio")
    if _devices(running.record) != _devices(vm):
        found.append("changes of its disks, NICs or CD-ROMs wait for a cold start: stop it instead")
    return [Reason(message=message, code=Code.UNSUPPORTED) for message in found]


def refusal(saved: Saved, vm: Definition, accel: str, cpu: HostCpu) -> str:
    """Why what was saved cannot go on as `record`, here; empty when it can."""
    was = saved.running
    if was.accel != accel:
        return f"it was saved under {was.accel}, this host has {accel}"
    if was.record.uuid != vm.uuid or _devices(was.record) != _devices(vm):
        return "its devices have changed since"
    if not machine_type_is_sound(saved.machine) or not 0 <= was.ports <= layout.PORTS_MAX:
        return "its saved state is damaged"
    return change_refusal(was.record.cpu, accel, saved.cpu, cpu)


def goes_on_as(saved: Saved, vm: Definition) -> Definition:
    """What QEMU has to be for it: the record, with the plain properties it had while it ran."""
    was = saved.running.record
    plain = {field: getattr(was, field) for field in change.cold()}
    return replace(vm, **plain, addresses=was.addresses, machine_type=saved.machine)


def change_reasons(old: Definition, new: Definition) -> list[Reason]:
    """Why a saved VM cannot be changed so: what its memory knows of has to stay."""
    fields = [field for field in change.cold() if getattr(old, field) != getattr(new, field)]
    if _devices(old) != _devices(new):
        fields.append("its devices")
    return [
        Reason(message=f"it is saved: {field} can be changed when it runs or is stopped", code=Code.CONFLICT)
        for field in fields
    ]


def machine_type_is_sound(name: str) -> bool:
    """Such as `pc-q35-10.0`: it goes onto the command line."""
    major, _, minor = name.removeprefix("pc-q35-").partition(".")
    return name.startswith("pc-q35-") and major.isdecimal() and minor.isdecimal() and name.isascii()


def _devices(vm: Definition) -> tuple[object, ...]:
    return vm.disks, vm.nics, vm.cdroms
