"""What a VM may be: completes what was asked, and tells everything that is wrong with it at once. Pure.

What only storage or network can know (does the image exist, is there such a switch) they check themselves.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from thimble.contract.vm import (
    CdromSpec,
    DiskBus,
    DiskSpec,
    Firmware,
    Machine,
    NicModel,
    NicSpec,
    SeedSpec,
    VmSpec,
)
from thimble.core.ids import mac_reasons, name_reasons
from thimble.core.problem import Code, Reason
from thimble.core.units import MIB, show_size
from thimble.vm.record import cpus

DISKS_MAX = 16
NICS_MAX = 8
CDROMS_MAX = 4
_MOST = {"disks": DISKS_MAX, "nics": NICS_MAX, "cdroms": CDROMS_MAX}
#: Below this nothing of interest boots; UEFI needs more.
UEFI_MIB_MIN = 64
replace = msgspec.structs.replace
Spec = TypeVar("Spec", bound=VmSpec)


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules want to know of the machine."""

    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    accel: str
    accel_why: str = ""


def normalise(spec: Spec, datastore: str) -> Spec:
    """`spec` with all names given, MACs in lower case, the datastore named, and no screen on a microvm."""
    micro = spec.machine is Machine.MICROVM
    return replace(
        spec,
        datastore=spec.datastore or datastore,
        disks=name_disks(spec.disks),
        nics=name_nics(spec.nics),
        cdroms=name_cdroms(spec.cdroms),
        vga=spec.vga and not micro,
        tablet=spec.tablet and not micro,
    )


def name_disks(disks: tuple[DiskSpec, ...]) -> tuple[DiskSpec, ...]:
    names = _names([disk.name for disk in disks], "disk")
    return tuple(replace(disk, name=name) for disk, name in zip(disks, names, strict=True))


def name_nics(nics: tuple[NicSpec, ...]) -> tuple[NicSpec, ...]:
    names = _names([nic.name for nic in nics], "nic")
    return tuple(
        replace(nic, name=name, mac=nic.mac and nic.mac.lower().replace("-", ":"))
        for nic, name in zip(nics, names, strict=True)
    )


def name_cdroms(cdroms: tuple[CdromSpec, ...]) -> tuple[CdromSpec, ...]:
    names = _names([cdrom.name for cdrom in cdroms], "cd")
    return tuple(replace(cdrom, name=name) for cdrom, name in zip(cdroms, names, strict=True))


def _names(given: list[str], stem: str) -> list[str]:
    free = (name for n in range(len(given) * 2) if (name := f"{stem}{n}") not in given)
    return [name or next(free) for name in given]


def check(spec: VmSpec, host: HostFacts) -> list[Reason]:
    """Everything that is wrong with a normalised `spec`, each with its path."""
    return [
        *name_reasons(spec.name, "$.name"),
        *_check_size(spec, host),
        *_check_boot(spec),
        *(_check_microvm(spec) if spec.machine is Machine.MICROVM else []),
        *_check_devices(spec),
        *check_macs([nic.mac for nic in spec.nics]),
        *check_seed(spec.seed),
    ]


def _check_size(spec: VmSpec, host: HostFacts) -> list[Reason]:
    reasons = []
    if spec.vcpus > host.cpus:
        reasons.append(
            Reason(
                message=f"{spec.vcpus} vCPUs are more than this host's {host.cpus} CPUs",
                code=Code.INVALID,
                path="$.vcpus",
            )
        )
    if spec.memory_mib * MIB > host.memory_bytes:
        size = show_size(host.memory_bytes)
        reasons.append(
            Reason(
                message=f"{spec.memory_mib} MiB is more than this host's memory, {size}", path="$.memory_mib"
            )
        )
    if spec.firmware is Firmware.UEFI and spec.memory_mib < UEFI_MIB_MIN:
        reasons.append(
            Reason(message=f"UEFI firmware needs at least {UEFI_MIB_MIN} MiB", path="$.memory_mib")
        )
    if why := cpus.refusal(spec.cpu, host.accel):
        code = Code.UNSUPPORTED if cpus.known(spec.cpu) else Code.INVALID
        reasons.append(Reason(message=why, code=code, path="$.cpu"))
    return reasons


def _check_boot(spec: VmSpec) -> list[Reason]:
    if spec.firmware is Firmware.DIRECT and spec.direct is None:
        return [Reason(message="firmware direct needs `direct` with a kernel", path="$.direct")]
    if spec.firmware is not Firmware.DIRECT and spec.direct is not None:
        return [Reason(message="`direct` needs firmware direct", path="$.firmware")]
    if spec.direct and ("\n" in spec.direct.cmdline or "\0" in spec.direct.cmdline):
        return [Reason(message="a kernel command line is one line", path="$.direct.cmdline")]
    if spec.direct and len(spec.direct.cmdline) > 2000:
        return [Reason(message="a kernel command line has at most 2000 characters", path="$.direct.cmdline")]
    return []


def _check_microvm(spec: VmSpec) -> list[Reason]:
    reasons = []
    if spec.firmware is not Firmware.DIRECT:
        reasons.append(Reason(message="a microvm boots only with firmware direct", path="$.firmware"))
    if spec.cdroms:
        reasons.append(Reason(message="a microvm has no CD-ROM drive", path="$.cdroms"))
    for n, disk in enumerate(spec.disks):
        if disk.bus is not DiskBus.VIRTIO:
            reasons.append(Reason(message="a microvm has only virtio disks", path=f"$.disks[{n}].bus"))
    for n, nic in enumerate(spec.nics):
        if nic.model is not NicModel.VIRTIO:
            reasons.append(Reason(message="a microvm has only virtio NICs", path=f"$.nics[{n}].model"))
    return reasons


def _check_devices(spec: VmSpec) -> list[Reason]:
    reasons = [
        *check_names("disks", [disk.name for disk in spec.disks]),
        *check_names("nics", [nic.name for nic in spec.nics]),
        *check_names("cdroms", [cdrom.name for cdrom in spec.cdroms]),
    ]
    volumes: set[str] = set()
    for n, disk in enumerate(spec.disks):
        path = f"$.disks[{n}]"
        if disk.volume and disk.volume in volumes:
            reasons.append(
                Reason(message=f"the volume {disk.volume!r} is given twice", path=f"{path}.volume")
            )
        volumes.add(disk.volume or "")
        if disk.read_only and not disk.volume and not disk.image:
            reasons.append(Reason(message="an empty disk cannot be read-only", path=f"{path}.read_only"))
        if disk.read_only and disk.bus is DiskBus.SATA:
            reasons.append(
                Reason(message="a SATA disk cannot be read-only: use bus virtio", path=f"{path}.bus")
            )
    return reasons


def check_names(field: str, names: list[str]) -> list[Reason]:
    """Everything wrong with the names, and the number, of the devices in `field`."""
    reasons: list[Reason] = []
    if len(names) > _MOST[field]:
        reasons.append(Reason(message=f"at most {_MOST[field]}, these are {len(names)}", path=f"$.{field}"))
    seen: set[str] = set()
    for n, name in enumerate(names):
        path = f"$.{field}[{n}].name"
        reasons += name_reasons(name, path)
        if name in seen:
            reasons.append(Reason(message=f"the name {name!r} is given twice", path=path))
        seen.add(name)
    return reasons


def check_macs(macs: list[str | None]) -> list[Reason]:
    """Everything wrong with the MACs of a VM's NICs; None: one is to be made."""
    reasons: list[Reason] = []
    seen: set[str] = set()
    for n, mac in enumerate(macs):
        path = f"$.nics[{n}].mac"
        if mac is None:
            continue
        found = mac_reasons(mac, path)
        reasons += found
        if not found and mac.lower() in seen:
            reasons.append(Reason(message=f"the MAC {mac} is given twice", path=path))
        seen.add(mac.lower())
    return reasons


def check_seed(seed: SeedSpec | None) -> list[Reason]:
    """Everything wrong with first-boot data."""
    if seed is None:
        return []
    reasons = []
    if seed.hostname:
        reasons += name_reasons(seed.hostname, "$.seed.hostname")
    if not _user_name(seed.user):
        reasons.append(Reason(message=f"{seed.user!r} is not a Linux user name", path="$.seed.user"))
    for n, key in enumerate(seed.ssh_keys):
        if "\n" in key or len(key.split()) < 2:
            reasons.append(
                Reason(
                    message="an SSH key is one line such as `ssh-ed25519 AAAA… me`",
                    path=f"$.seed.ssh_keys[{n}]",
                )
            )
    if seed.password_hash is not None and not _crypt(seed.password_hash):
        reasons.append(
            Reason(message="give the password as a crypt(3) hash such as `$6$…`", path="$.seed.password_hash")
        )
    return [*reasons, *_check_seed_network(seed)]


def _check_seed_network(seed: SeedSpec) -> list[Reason]:
    reasons = []
    if seed.address and not _address(seed.address, prefix=True):
        reasons.append(
            Reason(
                message=f"{seed.address!r} is not an address with prefix such as 10.0.0.5/24",
                path="$.seed.address",
            )
        )
    if seed.gateway and not _address(seed.gateway, prefix=False):
        reasons.append(Reason(message=f"{seed.gateway!r} is not an address", path="$.seed.gateway"))
    if seed.gateway and not seed.address:
        reasons.append(Reason(message="a gateway needs an address", path="$.seed.gateway"))
    for n, server in enumerate(seed.dns):
        if not _address(server, prefix=False):
            reasons.append(Reason(message=f"{server!r} is not an address", path=f"$.seed.dns[{n}]"))
    return reasons


def _user_name(name: str) -> bool:
    return (
        1 <= len(name) <= 32
        and (name[0].isalpha() or name[0] == "_")
        and all(c.isascii() and (c.islower() or c.isdigit() or c in "_-") for c in name)
    )


def _crypt(text: str) -> bool:
    return text == "(hidden)" or (
        text.startswith("$")
        and text.count("$") >= 3
        and text.isascii()
        and text.isprintable()
        and ":" not in text
    )


def _address(text: str, *, prefix: bool) -> bool:
    import ipaddress  # 20 ms under emulation: only when someone gives an address

    try:
        if prefix:
            return "/" in text and bool(ipaddress.ip_interface(text))
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
