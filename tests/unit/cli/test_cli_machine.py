"""The machine on a terminal: what is shown, and what is left out where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.cli import machine_view as view
from thimble.contract import hardware as wire
from thimble.contract.hardware import Level

HARDWARE = wire.Hardware(
    system=wire.System(vendor="Supermicro", product="SYS-1", serial="S123"),
    firmware=wire.Bios(kind="uefi", version="3.4"),
    cpus=wire.Cpus(
        model="Xeon",
        packages=2,
        cores=16,
        threads=32,
        features=("vmx",),
        vulnerabilities={"mds": "Vulnerable", "l1tf": "Not affected"},
    ),
    memory=wire.Memory(
        total_bytes=1 << 34,
        ecc="multi-bit ECC",
        modules=(
            wire.MemoryModule(slot="A1", size_bytes=1 << 34, kind="DDR4", speed=3200),
            wire.MemoryModule(slot="B1"),
        ),
    ),
    pci=(
        wire.PciDevice(
            address="0000:00:03.0",
            class_id="0200",
            kind="Ethernet",
            vendor="8086",
            device="1521",
            driver="igb",
            iommu_group=12,
        ),
    ),
    disks=(
        wire.DiskInfo(
            name="serial:S1",
            device="/dev/sda",
            model="WD",
            size_bytes=1 << 40,
            transport="sata",
            smart=wire.Smart(passed=True, temperature=31.0, worn=3, media_errors=2, power_on_hours=100),
        ),
    ),
    nics=(
        wire.NicInfo(mac="3c:ec:ef:00:00:01", device="eth0", link=True, speed_mbps=10000, use="management"),
    ),
)


def test_the_inventory_is_shown_with_tables() -> None:
    shown = view.hardware(HARDWARE, pci=False, names={})
    assert "Supermicro SYS-1" in shown and "vulnerable to  mds" in shown and "0000:00:03.0" not in shown
    assert "A1    16 GiB  DDR4  3200" in shown and "B1" not in shown
    assert "well, 31 °C, 3 % worn, 2 media errors, 100 h on" in shown
    assert "3c:ec:ef:00:00:01  eth0    10 Gbit/s" in shown and "management" in shown


def test_pci_devices_have_names_where_this_computer_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tmp_path / "pci.ids"
    ids.write_text(
        "# x\n8086  Intel\n\t1521  I350\n\t\t15d9 0652  Board\n10de  NVIDIA\nC 02  Network\n\t00  Ethernet\n"
    )
    monkeypatch.setattr(view, "_PCI_IDS", (tmp_path / "none", ids))
    assert view.hardware(HARDWARE, pci=True, names=view.pci_names()).endswith(
        "8086:1521  igb     12     Intel I350"
    )
    monkeypatch.setattr(view, "_PCI_IDS", ())
    assert view.hardware(HARDWARE, pci=True, names=view.pci_names()).endswith("8086:1521  igb     12")


def test_health_is_a_word_and_its_reasons() -> None:
    well = wire.Health(level=Level.OK, checked=1.0)
    assert view.health(well, now=2.0) == "health: ok"
    hot = wire.Finding(
        component="sensor x", level=Level.CRITICAL, reason="99 °C", since=40.0, hint="Look at fans."
    )
    assert view.health(
        wire.Health(level=Level.CRITICAL, checked=1.0, findings=(hot,)), now=100.0
    ).splitlines() == [
        "health: critical",
        "  critical: sensor x: 99 °C (for 1 min)",
        "      Look at fans.",
    ]


def test_sensors_without_a_reading_say_why() -> None:
    broken = wire.Sensor(
        name="temp1", chip="it87", kind="temperature", value=None, unit="°C", why="Input/output error"
    )
    bmc = wire.Bmc(
        version="3.10",
        ipmi="2.0",
        manufacturer=10876,
        product=1,
        address="10.0.0.7",
        events_total=1,
        events=(
            wire.BmcEvent(id=1, time=0.0, sensor="PSU1", what="failed", asserted=True, level=Level.CRITICAL),
        ),
    )
    shown = view.sensors(wire.Sensors(sensors=(broken,), bmc=bmc, problems=("BMC is slow",)))
    for words in ("–", "Input/output error", "IPMI 2.0", "10.0.0.7", "PSU1", "warning: BMC is slow"):
        assert words in shown
    assert view.sensors(wire.Sensors()) == "no sensors found"


def test_the_clock_is_shown_with_its_servers() -> None:
    server = wire.TimeSource(
        address="192.0.2.1", state="selected", stratum=2, reach=8, offset_s=0.0005, error_s=0.001
    )
    found = wire.Time(
        now=0.0,
        synchronized=True,
        managed=True,
        source="192.0.2.1",
        stratum=3,
        offset_s=-0.0012,
        error_s=0.02,
        sources=(server,),
    )
    shown = view.time(found)
    assert "192.0.2.1, stratum 3" in shown and "-1.200 ms" in shown and "8 of 8" in shown
    lost = wire.Time(now=0.0, synchronized=False, managed=True, why="no time server has been heard yet")
    assert "not synchronized: no time server" in view.time(lost)


def test_a_log_line_names_its_level_when_it_matters() -> None:
    line = wire.LogLine(time=0.5, level=wire.LogLevel.ERROR, source="kernel", text="ata1: failed")
    assert view.log_line(line) == "1970-01-01 00:00:00.500 kernel error: ata1: failed"
    line = wire.LogLine(time=0.5, level=wire.LogLevel.INFO, source="boot", text="ready")
    assert view.log_line(line) == "1970-01-01 00:00:00.500 boot: ready"
