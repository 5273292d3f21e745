"""VMs as clients see them. Pure."""

from __future__ import annotations

import msgspec

from thimble.contract.host import Role
from thimble.contract.vm import (
    CdromView,
    DiskView,
    NicView,
    SeedSpec,
    Vm,
    VmSpec,
    VmStatus,
    VmSummary,
)
from thimble.vm.record.spec import VmRecord, volume_ref

#: Stands for secrets in answers; sent back unchanged it keeps the old value.
HIDDEN = "(hidden)"

#: Fields shown just as they were asked for.
_AS_ASKED = tuple(
    name
    for name in VmSpec.__struct_fields__
    if name in Vm.__struct_fields__ and name not in ("datastore", "disks", "nics", "cdroms", "seed")
)


def view(
    id: str,
    home: str,
    record: VmRecord,
    status: VmStatus,
    allowed: tuple[str, ...],
    *,
    role: Role = Role.ADMIN,
) -> Vm:
    """The VM as a client of `role` may see it: what guests write on their consoles is not for viewers."""
    spec, vm = record.spec, record.definition
    at = vm.addresses
    if role is Role.VIEWER:
        status = msgspec.structs.replace(status, last_output="")
    return Vm(
        **{name: getattr(spec, name) for name in _AS_ASKED},
        id=id, rev=record.generation, datastore=home,
        disks=tuple(
            DiskView(
                name=disk.name, volume=volume_ref(home, id, disk), size_bytes=disk.size_bytes,
                format=disk.format, bus=disk.bus, read_only=disk.read_only,
                address=at.get(f"disk-{disk.name}", ""),
            )
            for disk in vm.disks
        ),
        nics=tuple(
            NicView(
                name=nic.name, switch=nic.switch, mac=nic.mac, model=nic.model,
                address=at.get(f"nic-{nic.name}", ""), ip=(nic.ip,) if nic.ip else (),
            )
            for nic in vm.nics
        ),
        cdroms=tuple(
            CdromView(name=cdrom.name, image=cdrom.image, address=at.get(f"cd-{cdrom.name}", ""))
            for cdrom in vm.cdroms
        ),
        seed=shown_seed(spec.seed, role), machine_type=vm.machine_type,
        intent=record.noted.intent, status=status, allowed=allowed,
    )  # fmt: skip


def summary(id: str, record: VmRecord, status: VmStatus, allowed: tuple[str, ...]) -> VmSummary:
    """One row of the list: cheap, from memory only."""
    spec = record.spec
    return VmSummary(
        id=id, rev=record.generation, name=spec.name, vcpus=spec.vcpus, memory_mib=spec.memory_mib,
        intent=record.noted.intent, state=status.state, why=status.why,
        ip=tuple([card.ip for card in record.assigned.nics.values() if card.ip]), allowed=allowed,
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
