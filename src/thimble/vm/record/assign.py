"""From a checked spec to a record: gives what is given once (uid, MACs, addresses). Chance is handed in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from thimble.contract.vm import NicSpec, VmSpec
from thimble.core.ids import mac_address
from thimble.vm.record import layout
from thimble.vm.record.spec import Assigned, Card, Noted, VmRecord

replace = msgspec.structs.replace

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


def created(
    spec: VmSpec,
    *,
    uid: int,
    now: float,
    entropy: Callable[[int], bytes],
    cards: dict[str, Card],
    sizes: dict[str, int],
    noted: Noted,
) -> VmRecord:
    """A new VM's record. `sizes`: of its disks, in bytes. Raises `Problem` when its devices do not fit."""
    given = Assigned(
        uuid=new_uuid(entropy(16)), uid=uid, created=now, addresses={}, nics=cards, disks=sizes
    )  # fmt: skip
    return placed(VmRecord(spec=plain(spec), assigned=given, noted=noted))


def placed(record: VmRecord) -> VmRecord:
    """The same with an address for each device. Raises `Problem` when they do not fit."""
    addresses = layout.assign(record.definition)
    return replace(record, assigned=replace(record.assigned, addresses=addresses))


def plain(spec: VmSpec) -> VmSpec:
    """What of a request is kept: not where it lives, which is told by where its record is."""
    fields = {name: getattr(spec, name) for name in VmSpec.__struct_fields__}
    return VmSpec(**fields | {"datastore": ""})


def cards(
    wanted: tuple[NicSpec, ...],
    old: VmRecord | None,
    macs: set[str],
    ips: set[str],
    entropy: Callable[[int], bytes],
    address_for: AddressFor,
) -> dict[str, Card]:
    """MAC and IP for each NIC; known ones keep theirs. `macs`, `ips`: those of all other VMs."""
    known = {nic.name: nic for nic in old.definition.nics} if old else {}
    result = {}
    for want in wanted:
        before = known.get(want.name)
        mac = want.mac or (before.mac if before else "")
        while not mac or (mac in macs and not want.mac):
            mac = mac_address(entropy(3))
        same = before is not None and (before.mac, before.switch) == (mac, want.switch)
        ip = before.ip if before and same else address_for(want.switch, mac, ips)
        macs.add(mac)
        ips.add(ip)
        result[want.name] = Card(mac=mac, ip=ip)
    return result
