"""What the machine is made of, read from the kernel's files (sysfs, procfs) below `root`.

May wait for a device: call it in a thread (`probes`). A part that fails is named in `problems`, the others
stand. Nothing is cached here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from thimble.contract import hardware as wire
from thimble.host import devices, smbios
from thimble.sys.sysfs import entries, number, word

T = TypeVar("T")

#: CPU flags an operator of VMs asks for, in this order.
FEATURES = (
    "vmx", "svm", "ept", "npt", "vpid", "avic", "vnmi", "aes", "sha_ni", "avx", "avx2", "avx512f", "amx_tile",
    "x2apic", "la57", "sev", "sev_es", "sev_snp", "tdx_host_platform", "sgx", "smep", "smap", "constant_tsc",
    "nonstop_tsc",
)  # fmt: skip
#: What makers leave in SMBIOS.
_PLACEHOLDERS = frozenset(
    (
        *("to be filled by o.e.m.", "not specified", "default string", "none", "n/a", "not available"),
        *("system serial number", "system product name", "system manufacturer", "0123456789"),
    )
)


def hardware(root: Path = Path("/"), *, use: dict[str, str] | None = None) -> wire.Hardware:
    """Everything. `use`: what a NIC's permanent MAC is used for."""
    problems: list[str] = []

    def part(name: str, look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except Exception as error:
            problems.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
            return otherwise

    no_cpus = wire.Cpus(model="", packages=0, cores=0, threads=0)
    return wire.Hardware(
        system=part("SMBIOS", lambda: system(root), wire.System()),
        firmware=part("the firmware", lambda: firmware(root), wire.Bios(kind="")),
        cpus=part("the CPUs", lambda: cpus(root), no_cpus),
        memory=part("the memory", lambda: memory(root), wire.Memory(total_bytes=0)),
        numa=part("the NUMA nodes", lambda: numa(root), ()),
        pci=part("PCI", lambda: devices.pci(root), ()),
        disks=part("the disks", lambda: devices.disks(root), ()),
        nics=part("the network cards", lambda: devices.nics(root, use or {}), ()),
        problems=tuple(problems),
    )


def _dmi(root: Path, name: str) -> str:
    found = word(root / "sys/class/dmi/id" / name)
    return "" if found.lower() in _PLACEHOLDERS else found


def system(root: Path) -> wire.System:
    return wire.System(
        vendor=_dmi(root, "sys_vendor"),
        product=_dmi(root, "product_name"),
        version=_dmi(root, "product_version"),
        serial=_dmi(root, "product_serial"),
        uuid=_dmi(root, "product_uuid"),
        board_vendor=_dmi(root, "board_vendor"),
        board=_dmi(root, "board_name"),
        board_serial=_dmi(root, "board_serial"),
        chassis_serial=_dmi(root, "chassis_serial"),
        asset_tag=_dmi(root, "chassis_asset_tag"),
    )


def firmware(root: Path) -> wire.Bios:
    return wire.Bios(
        kind="uefi" if (root / "sys/firmware/efi").is_dir() else "bios",
        vendor=_dmi(root, "bios_vendor"),
        version=_dmi(root, "bios_version"),
        date=_dmi(root, "bios_date"),
    )


def cpus(root: Path) -> wire.Cpus:
    blocks = [_facts(block) for block in (root / "proc/cpuinfo").read_text().strip().split("\n\n")]
    first = blocks[0] if blocks else {}
    packages = {block.get("physical id", "0") for block in blocks}
    cores = {(block.get("physical id", "0"), block.get("core id", str(n))) for n, block in enumerate(blocks)}
    flags = set(first.get("flags", "").split()) | set(first.get("vmx flags", "").split())
    here = root / "sys/devices/system/cpu/vulnerabilities"
    return wire.Cpus(
        model=" ".join(first.get("model name", "").split()),
        packages=len(packages),
        cores=len(cores),
        threads=len(blocks),
        microcode=first.get("microcode", ""),
        features=tuple(name for name in FEATURES if name in flags),
        vulnerabilities={path.name: word(path) for path in entries(here)},
    )


def _facts(block: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def memory(root: Path) -> wire.Memory:
    facts = _facts((root / "proc/meminfo").read_text())
    try:
        table = (root / "sys/firmware/dmi/tables/DMI").read_bytes()
    except OSError:
        table = b""
    corrected, uncorrected = memory_errors(root)
    return wire.Memory(
        total_bytes=int(facts["MemTotal"].split()[0]) * 1024,
        ecc=smbios.ecc(table),
        modules=smbios.modules(table),
        corrected=corrected,
        uncorrected=uncorrected,
    )


def memory_errors(root: Path) -> tuple[int | None, int | None]:
    """(corrected, uncorrected) since boot, as EDAC counts; None where no driver does."""
    controllers = [
        path for path in entries(root / "sys/devices/system/edac/mc") if path.name.startswith("mc")
    ]
    if not controllers:
        return None, None
    return (
        sum(number(path / "ce_count") or 0 for path in controllers),
        sum(number(path / "ue_count") or 0 for path in controllers),
    )


def numa(root: Path) -> tuple[wire.NumaNode, ...]:
    found = []
    for path in entries(root / "sys/devices/system/node"):
        if not path.name.startswith("node") or not path.name[4:].isdigit():
            continue
        kib = next((line.split()[3] for line in _lines(path / "meminfo") if " MemTotal:" in line), "0")
        node = wire.NumaNode(id=int(path.name[4:]), cpus=word(path / "cpulist"), memory_bytes=int(kib) * 1024)
        found.append(node)
    return tuple(sorted(found, key=lambda node: node.id))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
