"""PCI devices, disks and network cards, read from sysfs below `root`. May wait for a device."""

from __future__ import annotations

import re
from pathlib import Path

from thimble.contract import hardware as wire
from thimble.sys import disks as disk_names
from thimble.sys import ethtool, smart
from thimble.sys.sysfs import entries, link_name, number, word

#: PCI class (and subclass) in words; pci.ids would be 1.3 MB.
_KINDS = {
    "00": "unclassified", "01": "storage", "0101": "IDE", "0104": "RAID", "0106": "SATA", "0107": "SAS",
    "0108": "NVMe", "02": "network", "0200": "Ethernet", "0207": "InfiniBand", "03": "display",
    "04": "multimedia", "05": "memory", "06": "bridge", "0600": "host bridge", "0601": "ISA bridge",
    "0604": "PCI bridge", "07": "communication", "08": "system", "0806": "IOMMU", "09": "input",
    "0b": "processor", "0c": "serial bus", "0c03": "USB", "0c05": "SMBus", "0c07": "IPMI",
    "10": "encryption", "11": "signal processing", "12": "accelerator", "ff": "unassigned",
}  # fmt: skip
_ROOT = Path("/")


def pci(root: Path = _ROOT) -> tuple[wire.PciDevice, ...]:
    """Every function of every device, by address."""
    return tuple(_pci(path) for path in entries(root / "sys/bus/pci/devices"))


def _pci(path: Path) -> wire.PciDevice:
    code = _id(path / "class", 6)
    node, group = number(path / "numa_node"), link_name(path / "iommu_group")
    sub = (_id(path / "subsystem_vendor"), _id(path / "subsystem_device"))
    return wire.PciDevice(
        address=path.name,
        class_id=code[:4],
        kind=_KINDS.get(code[:4]) or _KINDS.get(code[:2], ""),
        vendor=_id(path / "vendor"),
        device=_id(path / "device"),
        subsystem=":".join(sub) if any(part.strip("0") for part in sub) else "",
        driver=link_name(path / "driver"),
        iommu_group=int(group) if group.isdigit() else None,
        numa_node=node if node is not None and node >= 0 else None,
    )


def _id(path: Path, digits: int = 4) -> str:
    return word(path).removeprefix("0x").rjust(digits, "0")


def disks(root: Path = _ROOT) -> tuple[wire.DiskInfo, ...]:
    """Every whole disk, as the kernel knows it; the disks themselves are not asked."""
    return tuple(_disk(root, one) for one in disk_names.all_disks(root / "sys/block"))


def _disk(root: Path, one: disk_names.Disk) -> wire.DiskInfo:
    name = Path(one.device).name
    here = root / "sys/block" / name
    return wire.DiskInfo(
        name=one.lasting_name,
        device=one.device,
        model=" ".join(filter(None, (_vendor(here), one.model))),
        serial=one.serial,
        wwn=one.wwn,
        size_bytes=one.size_bytes,
        sector_bytes=number(here / "queue/logical_block_size") or 512,
        physical_sector_bytes=number(here / "queue/physical_block_size") or 512,
        rotational=number(here / "queue/rotational") == 1,
        removable=one.removable,
        read_only=number(here / "ro") == 1,
        transport=transport(here),
        locate=locate_file(root, name) is not None,
    )


#: Disks that say something of themselves.
TELLING = ("nvme", "sata", "sas", "mmc")


def health(root: Path, disk: wire.DiskInfo) -> wire.Smart | None:
    """What a disk says of itself; None when it says nothing. May wait for it long."""
    if disk.transport == "mmc":
        return _worn_flash(root / "sys/block" / Path(disk.device).name / "device")
    return smart.ask(disk.device, disk.transport) if root == _ROOT else None


def _worn_flash(device: Path) -> wire.Smart | None:
    """eMMC 5: two estimates in tenths of its life, 0x0B being over; pre_eol_info 3: no reserve left."""
    tenths = [int(text, 16) for text in word(device / "life_time").split() if text.startswith("0x")]
    if not tenths or not max(tenths):
        return None
    over = max(tenths) >= 0x0B or number(device / "pre_eol_info") == 3
    return wire.Smart(
        passed=not over, worn=min(max(tenths) * 10, 100), critical=("its life is over",) if over else ()
    )


def _vendor(here: Path) -> str:
    """SCSI keeps it apart; "ATA" there says nothing."""
    found = word(here / "device/vendor")
    return "" if found == "ATA" or found.startswith("0x") else found


def transport(here: Path) -> str:
    """How a disk is attached, from where it hangs in the device tree."""
    name = here.name
    for prefix, kind in (("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc"), ("pmem", "pmem")):
        if name.startswith(prefix):
            return kind
    way = str(here.resolve())
    for mark, kind in (("/usb", "usb"), ("/ata", "sata"), ("/end_device-", "sas"), ("/session", "iscsi"),
                       ("/rport-", "fc"), ("/virtio", "virtio")):  # fmt: skip
        if mark in way:
            return kind
    return "scsi" if name.startswith("sd") else ""


def locate_file(root: Path, disk: str) -> Path | None:
    """The light of the slot a disk is in: SCSI enclosure services."""
    for link in entries(root / "sys/block" / disk / "device"):
        if link.name.startswith("enclosure_device:") and (link / "locate").exists():
            return link / "locate"
    return None


def nics(root: Path = _ROOT, use: dict[str, str] | None = None) -> tuple[wire.NicInfo, ...]:
    """Every network card: what has a device behind it."""
    found = [_nic(root, path, use or {}) for path in entries(root / "sys/class/net") if _is_card(path)]
    return tuple(sorted(found, key=lambda nic: (_order(nic.pci), nic.port, nic.device)))


def _is_card(path: Path) -> bool:
    return (path / "device").exists() and word(path / "type") == "1"


def _nic(root: Path, path: Path, use: dict[str, str]) -> wire.NicInfo:
    address = word(path / "address")
    mac = (ethtool.permanent_mac(path.name) if root == _ROOT else "") or address
    speed = number(path / "speed")
    return wire.NicInfo(
        mac=mac,
        device=path.name,
        address=address,
        driver=link_name(path / "device/driver"),
        link=number(path / "carrier") == 1,
        speed_mbps=speed if speed and speed > 0 else None,
        pci=_bus_address(path / "device"),
        port=word(path / "phys_port_name") or (word(path / "dev_port") if number(path / "dev_port") else ""),
        onboard=number(path / "device/acpi_index") or number(path / "device/index"),
        use=use.get(mac, "") or use.get(address, ""),
    )


def _bus_address(device: Path) -> str:
    """The PCI address of a card, also of one behind virtio or USB."""
    for part in reversed(device.resolve().parts):
        if re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", part):
            return part
    return ""


def _order(address: str) -> tuple[str, ...]:
    return tuple(re.split(r"[:.]", address)) if address else ("~",)
