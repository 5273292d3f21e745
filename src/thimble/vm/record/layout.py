"""Where each device sits. Addresses are given once and stored, so that the guest's names for its disks and
NICs (`enp1s0`, `/dev/disk/by-path/…`) stay when other devices come and go. Pure.

    00:0N.0       fixed places: vga 01, usb 02, channels 03, rng 04, balloon 05, panic 0a; not hot-pluggable
    NN:00.0       alone behind root port NN-1 (1 … 32): disks, NICs, seed; hot-pluggable
    00:1f.2/P     port P (0 … 5) of the SATA controller: CD-ROMs from 0, SATA disks
    usb/1         the tablet
    mmio/N        microvm: virtio-mmio transport N (0 … 7)

Root ports 0 … `ports()`-1 always all exist, so bus numbers never shift; `SPARE` ones wait for hot plug.
"""

from __future__ import annotations

from thimble.contract.vm import DiskBus, Machine
from thimble.core.problem import Code, Problem
from thimble.vm.record.spec import Definition

#: Free root ports beyond the highest used one.
SPARE = 4
PORTS_MAX = 32
SATA_MAX = 6
MMIO_MAX = 8

_FIXED = {
    "vga": "00:01.0",
    "usb": "00:02.0",
    "channels": "00:03.0",
    "rng": "00:04.0",
    "balloon": "00:05.0",
    "panic": "00:0a.0",
}
_FIRST_PORT_SLOT = 6
_SATA = "00:1f.2/"
_MMIO = "mmio/"


def devices(vm: Definition) -> list[tuple[str, str]]:
    """(device, kind of place it needs), in the order in which places are given."""
    micro = vm.machine is Machine.MICROVM
    found: list[tuple[str, str]] = [] if micro else [("panic", "fixed")]
    if vm.vga and not micro:
        found.append(("vga", "fixed"))
    if vm.tablet and not micro:
        found += [("usb", "fixed"), ("tablet", "usb")]
    if vm.guest_agent:
        found.append(("channels", "fixed"))
    if vm.rng:
        found.append(("rng", "fixed"))
    if vm.balloon:
        found.append(("balloon", "fixed"))
    found += [(f"disk-{d.name}", "sata" if d.bus is DiskBus.SATA else "port") for d in vm.disks]
    found += [(f"nic-{nic.name}", "port") for nic in vm.nics]
    found += [(f"cd-{cdrom.name}", "sata") for cdrom in vm.cdroms]
    if wants_seed_disk(vm):
        found.append(("seed", "port"))
    return [(name, "mmio") for name, _ in found] if micro else found


def wants_seed_disk(vm: Definition) -> bool:
    """Does the VM carry a NoCloud volume?"""
    return vm.seed is not None and vm.seed.method != "credentials"


def assign(vm: Definition) -> dict[str, str]:
    """Addresses for all devices of `vm`: known ones stay, new ones get the lowest free.

    Raises `Problem` INVALID when there is no room.
    """
    wanted = devices(vm)
    kept = {
        name: vm.addresses[name]
        for name, kind in wanted
        if name in vm.addresses and _kind(vm.addresses[name]) == kind
    }
    taken = set(kept.values())
    result = {}
    for name, kind in wanted:
        address = kept.get(name) or next((a for a in _places(name, kind) if a not in taken), None)
        if address is None:
            raise Problem(Code.INVALID, f"there is no free place for {name}", hint=_ROOM[kind])
        taken.add(address)
        result[name] = address
    return result


_ROOM = {
    "port": f"A VM has room for {PORTS_MAX} disks and NICs together.",
    "sata": f"There are {SATA_MAX} SATA ports; use bus virtio.",
    "mmio": f"A microvm has {MMIO_MAX} devices; use machine q35, or leave out rng, balloon or guest_agent.",
}


def _places(name: str, kind: str) -> list[str]:
    if kind == "fixed":
        return [_FIXED[name]]
    if kind == "usb":
        return ["usb/1"]
    if kind == "sata":
        return [f"{_SATA}{port}" for port in range(SATA_MAX)]
    if kind == "mmio":
        return [f"{_MMIO}{slot}" for slot in range(MMIO_MAX)]
    return [f"{port + 1:02x}:00.0" for port in range(PORTS_MAX)]


def _kind(address: str) -> str:
    if address.startswith(_SATA):
        return "sata"
    if address.startswith(_MMIO):
        return "mmio"
    if address.startswith("usb/"):
        return "usb"
    return "fixed" if address.startswith("00:") else "port"


def port(address: str) -> int | None:
    """The number of the root port behind which `address` is; None when it is elsewhere."""
    return int(address[:2], 16) - 1 if _kind(address) == "port" else None


def ports(vm: Definition) -> int:
    """How many root ports the machine gets."""
    used = [number for address in vm.addresses.values() if (number := port(address)) is not None]
    return min(PORTS_MAX, max(used, default=-1) + 1 + SPARE)


def port_place(number: int) -> tuple[int, int]:
    """(slot, function) of root port `number` on the root complex."""
    return _FIRST_PORT_SLOT + number // 8, number % 8


def bus(address: str) -> dict[str, object]:
    """QEMU's `bus` and `addr` properties for a device at `address`."""
    match _kind(address):
        case "fixed":
            return {"bus": "pcie.0", "addr": "0x" + address[3:5].lstrip("0")}
        case "port":
            return {"bus": f"rp{port(address)}", "addr": "0x0"}
        case "sata":
            return {"bus": "ide." + address[len(_SATA) :]}
        case "usb":
            return {"bus": "usb.0", "port": address[4:]}
        case _:
            return {"bus": "virtio-mmio-bus." + address[len(_MMIO) :]}
