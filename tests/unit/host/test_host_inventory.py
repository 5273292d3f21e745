"""The inventory, read from a sample tree of sysfs and procfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.contract.hardware import DiskInfo
from thimble.core.problem import Code, Problem
from thimble.host import devices, inventory, locate_led

CPUINFO = """\
processor\t: {n}
model name\t: Intel(R)  Xeon(R)   Gold
microcode\t: 0x2b000603
physical id\t: {package}
core id\t\t: {core}
flags\t\t: fpu vmx aes avx2
vmx flags\t: vnmi ept vpid

"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two packages of two cores with two threads, one SATA disk in an enclosure, one card with two ports."""
    cpus = "".join(CPUINFO.format(n=n, package=n % 2, core=n // 2 % 2) for n in range(8))
    node = "Node 0 MemTotal:       16384 kB\nNode 0 MemFree: 1 kB\n"
    pci = "sys/devices/pci0000:00/0000:00:03.0"
    write(
        tmp_path,
        {
            "proc/cpuinfo": cpus,
            "proc/meminfo": "MemTotal:       32768 kB\n",
            "sys/class/dmi/id/sys_vendor": "Supermicro\n",
            "sys/class/dmi/id/product_serial": "S123\n",
            "sys/class/dmi/id/board_serial": "To be filled by O.E.M.\n",
            "sys/class/dmi/id/bios_version": "3.4\n",
            "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected\n",
            "sys/devices/system/node/node0/meminfo": node,
            "sys/devices/system/node/node0/cpulist": "0-7\n",
            "sys/devices/system/edac/mc/mc0/ce_count": "3\n",
            "sys/devices/system/edac/mc/mc0/ue_count": "0\n",
            f"{pci}/class": "0x020000\n",
            f"{pci}/vendor": "0x8086\n",
            f"{pci}/device": "0x1521\n",
            f"{pci}/subsystem_vendor": "0x15d9\n",
            f"{pci}/subsystem_device": "0x1521\n",
            f"{pci}/numa_node": "-1\n",
            f"{pci}/net/eth7/address": "3c:ec:ef:00:00:07\n",
            f"{pci}/net/eth7/type": "1\n",
            f"{pci}/net/eth7/carrier": "1\n",
            f"{pci}/net/eth7/speed": "10000\n",
            f"{pci}/net/eth7/dev_port": "1\n",
            f"{pci}/acpi_index": "2\n",
            "sys/class/net/lo/address": "00:00:00:00:00:00\n",
            "sys/class/net/lo/type": "772\n",
            "sys/devices/pci0/ata1/host0/block/sda/size": "2048\n",
            "sys/devices/pci0/ata1/host0/block/sda/removable": "0\n",
            "sys/devices/pci0/ata1/host0/block/sda/queue/rotational": "1\n",
            "sys/devices/pci0/ata1/host0/block/sda/queue/physical_block_size": "4096\n",
            "sys/devices/pci0/ata1/host0/block/sda/serial": "WD-1\n",
            "sys/devices/pci0/ata1/host0/block/sda/device/model": "WDC WD40\n",
            "sys/devices/pci0/ata1/host0/block/sda/device/vendor": "ATA\n",
            "sys/devices/pci0/ata1/host0/block/sda/device/enclosure_device:Slot 3/locate": "0\n",
        },
    )
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:00:03.0").symlink_to(tmp_path / pci)
    for name, target in (("driver", "drivers/igb"), ("iommu_group", "iommu_groups/12")):
        (tmp_path / target).mkdir(parents=True)
        (tmp_path / pci / name).symlink_to(tmp_path / target)
    (tmp_path / pci / "net/eth7/device").symlink_to(tmp_path / pci)
    (tmp_path / "sys/class/net/eth7").symlink_to(tmp_path / pci / "net/eth7")
    (tmp_path / "sys/block").mkdir()
    (tmp_path / "sys/block/sda").symlink_to(tmp_path / "sys/devices/pci0/ata1/host0/block/sda")
    return tmp_path


def test_the_machine_is_read(machine: Path) -> None:
    found = inventory.hardware(machine, use={"3c:ec:ef:00:00:07": "management"})
    assert found.problems == ()
    assert (found.system.vendor, found.system.serial, found.system.board_serial) == ("Supermicro", "S123", "")
    assert (found.firmware.kind, found.firmware.version) == ("bios", "3.4")
    cpus = found.cpus
    assert (cpus.model, cpus.packages, cpus.cores, cpus.threads) == ("Intel(R) Xeon(R) Gold", 2, 4, 8)
    assert cpus.features == ("vmx", "ept", "vpid", "vnmi", "aes", "avx2")
    assert cpus.vulnerabilities == {"meltdown": "Not affected"}
    assert (found.memory.total_bytes, found.memory.corrected, found.memory.uncorrected) == (32 << 20, 3, 0)
    assert [(node.id, node.cpus, node.memory_bytes) for node in found.numa] == [(0, "0-7", 16 << 20)]


def test_a_pci_device_has_driver_and_group(machine: Path) -> None:
    (one,) = inventory.hardware(machine).pci
    assert (one.address, one.class_id, one.kind) == ("0000:00:03.0", "0200", "Ethernet")
    assert (one.vendor, one.device, one.subsystem) == ("8086", "1521", "15d9:1521")
    assert (one.driver, one.iommu_group, one.numa_node) == ("igb", 12, None)


def test_a_port_is_known_by_what_does_not_move(machine: Path) -> None:
    (one,) = inventory.hardware(machine, use={"3c:ec:ef:00:00:07": "management"}).nics
    assert (one.mac, one.device, one.pci, one.port, one.onboard) == (
        "3c:ec:ef:00:00:07", "eth7", "0000:00:03.0", "1", 2,
    )  # fmt: skip
    assert (one.link, one.speed_mbps, one.driver, one.use) == (True, 10000, "igb", "management")


def test_a_disk_is_known_by_its_serial_number(machine: Path) -> None:
    (one,) = inventory.hardware(machine).disks
    assert (one.name, one.device, one.model, one.transport) == ("serial:WD-1", "/dev/sda", "WDC WD40", "sata")
    assert (one.size_bytes, one.physical_sector_bytes, one.rotational) == (1 << 20, 4096, True)
    assert one.locate


def test_a_part_that_fails_is_told_and_the_others_stand(machine: Path) -> None:
    (machine / "proc/meminfo").write_text("nonsense\n")
    (machine / "proc/cpuinfo").unlink()
    found = inventory.hardware(machine)
    assert [problem.split(" cannot")[0] for problem in found.problems] == ["the CPUs", "the memory"]
    assert found.system.vendor == "Supermicro" and found.disks and found.nics


def test_an_empty_machine_is_no_error(tmp_path: Path) -> None:
    found = inventory.hardware(tmp_path)
    assert (found.pci, found.disks, found.nics, found.numa) == ((), (), (), ())


def test_worn_flash_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"sys/block/mmcblk0/device/life_time": "0x03 0x0b\n"})
    found = devices.health(tmp_path, DiskInfo(name="x", device="/dev/mmcblk0", transport="mmc"))
    assert found is not None and (found.passed, found.worn) == (False, 100)


def test_a_slot_blinks_and_stops(machine: Path) -> None:
    light = locate_led.find("serial:WD-1", machine)
    light.blink(0.01)
    place = machine / "sys/block/sda/device/enclosure_device:Slot 3/locate"
    assert (str(light), place.read_text()) == ("disk serial:WD-1", "0")


@pytest.mark.parametrize("what", ["serial:no", "eth0", "3c:ec:ef:00:00:99", "/dev/null", ""])
def test_what_is_not_there_cannot_blink(machine: Path, what: str) -> None:
    with pytest.raises(Problem) as problem:
        locate_led.find(what, machine)
    assert problem.value.code is Code.NOT_FOUND and "host hardware" in problem.value.hint


def test_a_port_is_found_by_its_mac_in_any_case(machine: Path) -> None:
    assert str(locate_led.find("3C:EC:EF:00:00:07", machine)) == "port 3c:ec:ef:00:00:07"
