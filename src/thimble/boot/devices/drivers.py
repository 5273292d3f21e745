"""Loads drivers: at boot for present devices (coldplug), later for new ones (hotplug).

Everything here runs in job children: a driver's probe may take as long as its hardware likes.
"""

from __future__ import annotations

import marshal
import os

from .. import linux
from .modalias import LATER, NETWORK, STORAGE, DriverTable, rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Buses whose devices may lead to disks and NICs; the others (acpi, platform, …) are walked after readiness.
_EARLY_BUSES = ("pci", "virtio", "scsi", "usb", "vmbus", "xen", "nd", "cxl", "mdio_bus", "ccw", "auxiliary")
_SKIPPED_BUSES = ("memory", "cpu", "workqueue", "clockevents", "clocksource", "event_source", "node")

# What virtual machines need, whatever hardware there is.
KVM = {"svm": "kvm_amd", "vmx": "kvm_intel"}
GUESTS = ("tun", "vhost_net", "vhost_vsock")
# Loaded after readiness: filters of the NAT switches, buttons, guest facilities.
NETFILTER = (
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_compat",
    "nft_limit",
    "nft_log",
    "nft_numgen",
    "nft_hash",
    "nft_fib",
    "nft_fib_inet",
    "nft_meta_bridge",
    "nft_reject_bridge",
    "nf_conntrack_bridge",
    "8021q",
)
INPUT = ("evdev", "button")


def modules_directory() -> str:
    """Where the modules of the running kernel are."""
    return f"/usr/lib/modules/{os.uname().release}"


def load_table() -> DriverTable:
    """Reads the driver table of the image."""
    with open(f"{modules_directory()}/thimble.drivers", "rb") as file:
        return DriverTable(marshal.load(file))


def load(table: DriverTable, names: Iterable[str], loaded: set[str] | None = None) -> list[str]:
    """Loads modules with all they need; returns the problems (a missing device is none)."""
    loaded = set() if loaded is None else loaded
    problems: list[str] = []
    for name in table.load_order(names):
        if name in loaded:
            continue
        loaded.add(name)
        if os.path.exists(f"/sys/module/{name}"):
            continue
        try:
            linux.load_module(f"{modules_directory()}/{table.modules[name][0]}")
        except OSError as error:
            if error.errno not in (19, 6, 95):  # ENODEV, ENXIO, EOPNOTSUPP: the hardware is not there
                problems.append(f"{name}: {error.strerror}")
    return problems


def kvm_module(cpuinfo: str) -> str:
    """The KVM module for this CPU, or nothing without vmx and svm."""
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            flags = line.split()
            return next((module for flag, module in KVM.items() if flag in flags), "")
    return ""


def modaliases(up_to: int) -> set[str]:
    """The modaliases of all devices on the buses that matter up to this rank."""
    found: set[str] = set()
    try:
        buses = [bus for bus in os.listdir("/sys/bus") if bus not in _SKIPPED_BUSES]
    except OSError:
        return found
    for bus in buses:
        if up_to < LATER and bus not in _EARLY_BUSES:
            continue
        directory = f"/sys/bus/{bus}/devices"
        for device in os.listdir(directory):
            try:
                fd = os.open(f"{directory}/{device}/modalias", os.O_RDONLY)
            except OSError:
                continue
            try:
                found.add(os.read(fd, 4096).decode("utf-8", "replace").strip())
            except OSError:
                pass
            os.close(fd)
    return found


def coldplug(table: DriverTable, ranks: tuple[int, ...]) -> list[str]:
    """Loads the drivers of all devices of these ranks, again and again as new devices appear behind them."""
    seen: set[str] = set()
    loaded: set[str] = set()
    problems: list[str] = []
    while True:
        new = {alias for alias in modaliases(max(ranks)) if rank(alias) in ranks} - seen
        if not new:
            return problems
        seen |= new
        wanted = [module for alias in sorted(new) for module in table.drivers_for(alias)]
        problems += load(table, wanted, loaded)


def load_for(table: DriverTable, aliases: Iterable[str]) -> list[str]:
    """Loads the drivers of new devices."""
    return load(table, sorted({module for alias in aliases for module in table.drivers_for(alias)}))


def load_named(names: Iterable[str]) -> list[str]:
    """Loads modules by any name modprobe would take; returns the problems, including unknown names."""
    table = load_table()
    problems: list[str] = []
    for name in names:
        modules = table.resolve(name)
        problems += load(table, modules) if modules else [f"{name}: not in the image"]
    return problems


__all__ = [
    "GUESTS",
    "INPUT",
    "LATER",
    "NETFILTER",
    "NETWORK",
    "STORAGE",
    "coldplug",
    "kvm_module",
    "load",
    "load_for",
    "load_named",
    "load_table",
    "modaliases",
]
