"""Disks are found again by names that do not move, and only when there is no doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.sys import disks
from thimble.sys.disks import Disk, resolve

DISKS = (
    Disk(device="/dev/sda", serial="S1", wwn="5000c500a1b2c3d4"),
    Disk(device="/dev/sdb", serial="TWIN"),
    Disk(device="/dev/sdc", serial="TWIN"),
)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("serial:S1", "/dev/sda"),
        ("serial: s1 ", "/dev/sda"),
        ("wwn:0x5000C500A1B2C3D4", "/dev/sda"),
        ("wwn:naa.5000c500a1b2c3d4", "/dev/sda"),
        ("serial:TWIN", ""),
        ("serial:S2", ""),
        ("serial:", ""),
        ("/dev/no-such-disk", ""),
        ("/dev/null", "/dev/null"),
        ("largest", ""),
    ],
)
def test_a_name_means_one_disk_or_none(text: str, device: str) -> None:
    assert resolve(text, DISKS) == device


def test_a_path_is_followed_to_the_device(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    assert resolve(str(link), DISKS) == ""
    assert resolve("/dev/stdin/../null", DISKS) in ("", "/dev/null")


def test_the_kernels_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(name: str, **files: bytes) -> None:
        for path, data in files.items():
            where = tmp_path / name / path.replace("__", "/")
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(data)

    put("sda", size=b"2048\n", removable=b"1\n", device__model=b"Stick  \n", device__wwid=b"naa.5000c5\n")
    put("sda", device__vpd_pg80=b"\0\x80\0\x06 AB12 ", sda1__partition=b"1\n")
    put("nvme0n1", size=b"4096\n", wwid=b"eui.0025385a\n", device__serial=b"NV1  \n")
    put("vda", size=b"8\n", serial=b"v-1\n")
    put("sr0", size=b"8\n")
    put("sdz", size=b"0\n")
    monkeypatch.setattr(disks, "_SYS", tmp_path)
    nvme, sda, vda = disks.all_disks()
    assert (sda.serial, sda.wwn, sda.model, sda.size_bytes) == ("AB12", "5000c5", "Stick", 1 << 20)
    assert sda.removable and sda.partitions == ("/dev/sda1",)
    assert (nvme.serial, nvme.wwn, nvme.lasting_name) == ("NV1", "0025385a", "serial:NV1")
    assert (vda.device, vda.serial, vda.wwn) == ("/dev/vda", "v-1", "")
