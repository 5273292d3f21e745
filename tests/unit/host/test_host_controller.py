"""Bytes of disks, management controllers and chronyd, and what they mean."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from pathlib import Path

import pytest

from thimble.contract.hardware import Level
from thimble.host import ipmi, ntp
from thimble.sys import smart


def nvme_log(warning: int = 0, celsius: int = 38) -> bytes:
    head = struct.pack("<BHBBB", warning, celsius + 273, 100, 10, 3)
    return (
        head.ljust(128, b"\0")
        + (4711).to_bytes(16, "little")
        + bytes(16)
        + (2).to_bytes(16, "little")
        + bytes(336)
    )


def test_an_nvme_log_is_read() -> None:
    found = smart.nvme(nvme_log())
    assert (found.passed, found.temperature, found.worn, found.spare) == (True, 38.0, 3, 100)
    assert (found.power_on_hours, found.media_errors, found.critical) == (4711, 2, ())
    bad = smart.nvme(nvme_log(0b1001))
    assert (bad.passed, bad.critical) == (False, ("its spare blocks run out", "it has become read-only"))


def test_ata_attributes_are_read() -> None:
    data = bytearray(512)
    rows = {9: (90, 12345), 194: (70, 0x0000001E0028), 187: (100, 3), 233: (88, 0)}
    for at, (number, (value, raw)) in zip(range(2, 362, 12), rows.items(), strict=False):
        data[at : at + 12] = struct.pack("<BHBB", number, 0, value, value) + raw.to_bytes(6, "little") + b"\0"
    found = smart.ata(bytes(data), failing=False)
    assert (found.passed, found.temperature, found.worn) == (True, 40.0, 12)
    assert (found.power_on_hours, found.media_errors) == (12345, 3)
    assert smart.ata(bytes(512), failing=True).passed is False


def test_scsi_says_whether_it_fails() -> None:
    assert smart.scsi(bytes((0x2F, 0, 0, 8, 0, 0, 3, 4, 0x5D, 0, 41, 0))).passed is False
    well = smart.scsi(bytes((0x2F, 0, 0, 8, 0, 0, 3, 4, 0, 0, 41, 0)))
    assert (well.passed, well.temperature) == (True, 41.0)
    assert smart.scsi(b"").why


def test_a_device_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    assert smart.ask(str(tmp_path / "none"), "nvme").why == "No such file or directory"
    assert "does not tell" in smart.ask("/dev/null", "nvme").why
    assert "does not tell" in smart.ask("/dev/null", "sata").why


def sensor_record(**more: int) -> bytes:
    raw = bytearray(64)
    raw[3], raw[7], raw[12], raw[13], raw[18], raw[21] = 1, 0x30, 1, 1, 0b011000, 1
    raw[24], raw[36:42] = 1, bytes((100, 95, 80, 0, 0, 0))
    raw[47], raw[48:56] = 0xC0 | 8, b"CPU Temp"
    for name, value in more.items():
        raw[int(name[1:])] = value
    return bytes(raw)


def test_a_sensor_of_the_bmc_is_converted() -> None:
    one = ipmi.analog(sensor_record())
    assert one is not None and one.name == "CPU Temp"
    shown = ipmi.reading(one, bytes((42, 0x40, 0)))
    assert (shown.value, shown.unit, shown.warn, shown.critical, shown.level) == (
        42.0,
        "°C",
        80.0,
        95.0,
        Level.OK,
    )
    assert ipmi.reading(one, bytes((96, 0x40, 0b10000))).level is Level.CRITICAL
    assert ipmi.reading(one, bytes((42, 0x60, 0))).value is None
    assert ipmi.reading(one, b"").why


def test_exponents_and_signs_are_those_of_the_specification() -> None:
    volts = ipmi.analog(sensor_record(_21=4, _24=6, _29=0xD0))  # 6 × raw × 10⁻³
    assert volts is not None and volts.value(200) == 1.2
    cold = ipmi.analog(sensor_record(_20=0x80))
    assert cold is not None and cold.value(0xF6) == -10.0


@pytest.mark.parametrize(
    "record", [b"", bytes(64), sensor_record(_23=7), sensor_record(_21=99), sensor_record(_20=0xC0)]
)
def test_records_of_other_kinds_are_passed_over(record: bytes) -> None:
    assert ipmi.analog(record) is None


def sel(id: int, sensor: int, number: int, kind: int, offset: int) -> bytes:
    return struct.pack(
        "<HBIHBBBBBBB", id, 2, 1_700_000_000, 0x20, 4, sensor, number, kind, offset, 0xFF, 0xFF
    )


def test_an_entry_of_the_event_log_is_told_in_words() -> None:
    found = ipmi.event(sel(7, 0x0C, 0x31, 0x6F, 1), {0x31: "DIMM_A1"})
    assert (found.id, found.time, found.sensor) == (7, 1_700_000_000.0, "DIMM_A1")
    assert (found.what, found.level, found.asserted) == ("uncorrectable memory error", Level.CRITICAL, True)
    hot = ipmi.event(sel(8, 1, 0x32, 0x01, 9), {})
    assert (hot.sensor, hot.what) == ("temperature 50", "above its upper critical limit")
    over = ipmi.event(sel(9, 1, 0x32, 0x81, 9), {})
    assert (over.asserted, over.level, over.what) == (
        False,
        Level.OK,
        "no longer: above its upper critical limit",
    )
    assert ipmi.standing((hot, over)) == () and ipmi.standing((hot,)) == (hot,)
    assert "vendor" in ipmi.event(bytes((1, 0, 0xE0)) + bytes(13), {}).what


def test_chronys_floats_are_read() -> None:
    assert ntp.real(0) == 0.0
    assert ntp.real(0x02000000 | 0x800000) == pytest.approx(0.5)  # exponent 1, coefficient 2²³
    assert ntp.real(0x03800000) < 0


class Chronyd(threading.Thread):
    """Answers as chronyd 4.6 does: one selected server of stratum 2."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.bind(str(path))

    def run(self) -> None:
        while True:
            data, sender = self.line.recvfrom(1024)
            if not sender:
                return
            command, _, number = struct.unpack_from("!HHI", data, 4)
            server = socket.inet_aton("192.0.2.1").ljust(16, b"\0") + struct.pack("!Hxx", 1)
            small = 0xF6000000 | 0x1000000 >> 1  # some float
            reply, body = {
                33: (
                    5,
                    struct.pack("!I", 0xC0000201)
                    + server
                    + struct.pack("!HHIII9I", 3, 0, 0, 0, 0, *[small] * 9),
                ),
                14: (2, struct.pack("!I", 1)),
                15: (3, server + struct.pack("!hHHHHHIIII", 6, 2, 0, 0, 0, 0o377, 5, small, small, small)),
            }[command]
            head = struct.pack("!BBBBHHH6xI8x", 6, 2, 0, 0, command, reply, 0, number)
            self.line.sendto(head + body + bytes(4), sender)


def test_chronyd_is_asked(tmp_path: Path) -> None:
    Chronyd(tmp_path / "chronyd.sock").start()
    found = ntp.ask(1.0, managed=True, path=tmp_path / "chronyd.sock")
    assert (found.synchronized, found.source, found.stratum, found.why) == (True, "192.0.2.1", 3, "")
    (one,) = found.sources
    assert (one.address, one.state, one.stratum, one.reach) == ("192.0.2.1", "selected", 2, 8)
    assert list(tmp_path.iterdir()) == [tmp_path / "chronyd.sock"]


def test_without_chronyd_the_kernel_is_believed(tmp_path: Path) -> None:
    found = ntp.ask(1.0, managed=True, path=tmp_path / "none.sock")
    assert "chronyd does not answer" in found.why and found.error_s is not None
    assert asyncio.run(asyncio.to_thread(ntp.ask, 1.0, managed=False)).why == ""
