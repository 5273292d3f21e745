"""Servers that cannot be are refused with all reasons; what the command line writes is read."""

from __future__ import annotations

import pytest

from thimble.core.problem import Problem
from thimble.lab.spec import (
    STATE_LABEL,
    Bus,
    LabDisk,
    LabFirmware,
    LabNic,
    ServerSpec,
    check,
    parse_disk,
    parse_nic,
    parse_size,
)


def paths(spec: ServerSpec) -> list[str]:
    with pytest.raises(Problem) as caught:
        check(spec)
    return [reason.path for reason in caught.value.reasons]


def test_a_plain_server_is_accepted() -> None:
    check(ServerSpec(kernel="/vmlinuz"))
    check(ServerSpec(firmware=LabFirmware.UEFI, efi="/thimble.efi"))


def test_every_reason_is_named_at_once() -> None:
    bad = ServerSpec(name="Ä b", cpus=0, memory_mib=1, disks=(LabDisk(),))
    assert paths(bad) == ["$.name", "$.cpus", "$.memory_mib", "$.kernel", "$.disks[0]"]


def test_firmware_needs_something_to_start() -> None:
    assert paths(ServerSpec(firmware=LabFirmware.UEFI)) == ["$.efi"]
    assert paths(ServerSpec(firmware=LabFirmware.BIOS, disks=(LabDisk(size_bytes=1),))) == ["$.disks"]


def test_what_no_machine_has_is_refused() -> None:
    cd = LabDisk(file="/x.iso", cd=True, bus=Bus.VIRTIO)
    assert paths(ServerSpec(kernel="/k", disks=(cd,))) == ["$.disks[0].bus"]
    assert paths(ServerSpec(kernel="/k", secure_boot=True)) == ["$.secure_boot"]
    assert paths(ServerSpec(kernel="/k", nics=(LabNic(wire="w", boot="/x"),))) == ["$.nics[0].boot"]


def test_a_disk_is_either_made_or_given() -> None:
    assert paths(ServerSpec(kernel="/k", disks=(LabDisk(size_bytes=1, file="/f"),))) == ["$.disks[0]"]


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("20G", 20 << 30), ("512m", 512 << 20), ("1TiB", 1 << 40)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1X", "-1", "1.5G"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(Problem, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("10G", LabDisk(size_bytes=10 << 30)),
        ("state:8G", LabDisk(size_bytes=8 << 30, label=STATE_LABEL)),
        ("nvme:state:8G", LabDisk(size_bytes=8 << 30, bus=Bus.NVME, label=STATE_LABEL)),
        ("/d/x.qcow2", LabDisk(file="/d/x.qcow2", format="qcow2")),
        ("ahci:./x.img", LabDisk(file="./x.img", bus=Bus.AHCI)),
        ("cd:/x.iso", LabDisk(file="/x.iso", bus=Bus.AHCI, cd=True, read_only=True)),
        ("usb:cd:/x.iso", LabDisk(file="/x.iso", bus=Bus.USB, cd=True, read_only=True)),
        ("usb:keep:/x.img", LabDisk(file="/x.img", bus=Bus.USB, keep=True)),
    ],
)
def test_disks_are_read(text: str, disk: LabDisk) -> None:
    assert parse_disk(text) == disk


def test_ports_are_read() -> None:
    assert parse_nic("user") == LabNic()
    assert parse_nic("user:443,22") == LabNic(forwards=(443, 22))
    assert parse_nic("wire:blue,model=e1000e") == LabNic(wire="blue", model="e1000e")
    for text in ("wire:", "user:https", "bridge:x"):
        with pytest.raises(Problem, match="is not a port"):
            parse_nic(text)
