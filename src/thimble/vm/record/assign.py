"""From a checked spec to a record: gives what is given once (uid, MACs, addresses). Chance is handed in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from thimble.contract.vm import VmCreate
from thimble.core.ids import mac_address
from thimble.vm.record import layout
from thimble.vm.record.spec import Cdrom, Disk, Nic, VmRecord

UID_FIRST = 100_000
UID_LAST = (1 << 31) - 1  # to the kernel, the very last of 32 bits means `no change`

AddressFor = Callable[[str, str, set[str]], str]


def free_uid(used: set[int]) -> int:
    """The lowest free one."""
    uid = UID_FIRST
    while uid in used:
        uid += 1
    return uid


def new_uuid(entropy: bytes) -> str:
    """A random UUID (RFC 9562, version 4) from 16 bytes."""
    number = int.from_bytes(entropy, "big") & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def record(
    spec: VmCreate,
    *,
    uid: int,
    created: float,
    entropy: Callable[[int], bytes],
    nics: tuple[Nic, ...],
    disks: tuple[Disk, ...],
) -> VmRecord:
    """A new VM's record in phase `creating`. Raises `Problem` when its devices do not fit."""
    found = VmRecord(
        name=spec.name, description=spec.description, vcpus=spec.vcpus, memory_mib=spec.memory_mib,
        machine=spec.machine, firmware=spec.firmware, direct=spec.direct, cpu=spec.cpu,
        disks=disks, nics=nics,
        cdroms=tuple(Cdrom(name=c.name, image=c.image) for c in spec.cdroms),
        rng=spec.rng, balloon=spec.balloon, serial=spec.serial, vga=spec.vga, tablet=spec.tablet,
        guest_agent=spec.guest_agent, seed=spec.seed, autostart=spec.autostart, on_crash=spec.on_crash,
        host_shutdown=spec.host_shutdown,
        uuid=new_uuid(entropy(16)), uid=uid, addresses={}, created=created,
        start=spec.start,
    )  # fmt: skip
    return msgspec.structs.replace(found, addresses=layout.assign(found))


def make_nics(
    spec: VmCreate,
    old: tuple[Nic, ...],
    macs: set[str],
    ips: set[str],
    entropy: Callable[[int], bytes],
    address_for: AddressFor,
) -> tuple[Nic, ...]:
    """The NICs of `spec`; known ones keep MAC and IP. `macs`, `ips`: those of all other VMs."""
    known = {nic.name: nic for nic in old}
    result = []
    for want in spec.nics:
        before = known.get(want.name)
        mac = want.mac or (before.mac if before else "")
        while not mac or (mac in macs and not want.mac):
            mac = mac_address(entropy(3))
        if before and before.mac == mac and before.switch == want.switch:
            ip = before.ip
        else:
            ip = address_for(want.switch, mac, ips)
        macs.add(mac)
        ips.add(ip)
        result.append(Nic(name=want.name, switch=want.switch, mac=mac, model=want.model, ip=ip))
    return tuple(result)
