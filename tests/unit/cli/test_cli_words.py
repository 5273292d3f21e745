"""What is typed about disks, NICs, forwards, sizes and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.cli.switch import forwarded
from thimble.cli.vm_parse import cdrom, disk, edited, forward, memory_mib, nic, seconds, spec_file
from thimble.contract.network import Forward, Protocol
from thimble.contract.vm import CdromSpec, DiskBus, DiskFormat, DiskSpec, NicModel, NicSpec
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB


@pytest.mark.parametrize(
    ("typed", "spec"),
    [
        ("10G", DiskSpec(size_bytes=10 * GIB)),
        ("size=10G", DiskSpec(size_bytes=10 * GIB)),
        (
            "10G,image=debian.qcow2,bus=sata",
            DiskSpec(size_bytes=10 * GIB, image="debian.qcow2", bus=DiskBus.SATA),
        ),
        ("image=debian.qcow2", DiskSpec(image="debian.qcow2")),
        ("volume=local/data, ro", DiskSpec(volume="local/data", read_only=True)),
        ("1G,format=raw,name=swap", DiskSpec(size_bytes=GIB, format=DiskFormat.RAW, name="swap")),
    ],
)
def test_a_disk_is_a_size_and_options(typed: str, spec: DiskSpec) -> None:
    assert disk(typed) == spec


@pytest.mark.parametrize(
    "typed", ["", "10X", "10G,10G", "10G,colour=red", "10G,bus=scsi", "10G,size=5G,size=6G", "-5G", "0"]
)
def test_a_disk_that_cannot_be_read_is_refused_as_invalid(typed: str) -> None:
    if typed == "":
        assert disk(typed) == DiskSpec()  # the host says what is missing
        return
    with pytest.raises(Problem) as caught:
        disk(typed)
    assert caught.value.code is Code.INVALID


def test_a_nic_is_a_switch_and_options() -> None:
    assert nic("nat") == NicSpec(switch="nat")
    assert nic("uplink,mac=52:54:00:00:00:01,model=e1000e") == NicSpec(
        switch="uplink", mac="52:54:00:00:00:01", model=NicModel.E1000E
    )
    with pytest.raises(Problem, match="switch"):
        nic("mac=52:54:00:00:00:01")


def test_a_cdrom_is_an_image_or_an_empty_tray() -> None:
    assert cdrom("local/debian.iso") == CdromSpec(image="local/debian.iso")
    assert cdrom("") == CdromSpec()


def test_a_forward_is_port_vm_port() -> None:
    assert forward("2222:web1:22") == Forward(port=2222, vm="web1", to_port=22)
    assert forward("53:dns:53/udp") == Forward(port=53, vm="dns", to_port=53, protocol=Protocol.UDP)


@pytest.mark.parametrize(
    "typed", ["", "22", "22:web1", "a:web1:22", "70000:web1:22", "22:web1:22/sctp", "1:2:3:4"]
)
def test_a_forward_that_cannot_be_is_refused(typed: str) -> None:
    with pytest.raises(Problem) as caught:
        forward(typed)
    assert caught.value.code is Code.INVALID


@given(st.text(max_size=30))
def test_no_text_whatever_makes_a_parser_fall(text: str) -> None:
    for parse in (disk, nic, cdrom, forward, memory_mib, seconds):
        try:
            parse(text)
        except Problem as problem:
            assert problem.code is Code.INVALID


def test_memory_is_a_size_or_mib() -> None:
    assert memory_mib("1G") == 1024
    assert memory_mib("512") == 512
    assert memory_mib("512M") == 512


def test_times_have_units() -> None:
    assert [seconds(text) for text in ("90", "90s", "1.5m", "12h", "30d")] == [90, 90, 90, 43200, 2592000]


def test_spec_files_are_toml_or_json() -> None:
    assert spec_file("x.toml", 'name = "web1"') == {"name": "web1"}
    assert spec_file("x.json", '{"name": "web1"}') == {"name": "web1"}
    for name, text in (("x.toml", "name ="), ("x.json", "{"), ("x.json", "[]")):
        with pytest.raises(Problem) as caught:
            spec_file(name, text)
        assert caught.value.code is Code.MALFORMED


def test_devices_are_added_and_removed_by_name() -> None:
    old = (DiskSpec(name="disk0"), DiskSpec(name="disk1"))
    assert edited("disk", old, [], []) is None
    assert edited("disk", old, [DiskSpec(name="disk2")], ["disk0"]) == (old[1], DiskSpec(name="disk2"))
    with pytest.raises(Problem, match="disk9") as caught:
        edited("disk", old, [], ["disk9"])
    assert "disk0, disk1" in caught.value.hint


def test_forwards_are_added_and_dropped_by_port() -> None:
    old = (forward("2222:web1:22"), forward("53:dns:53/udp"))
    assert forwarded(old, ("80:web1:80",), ("53/udp",)) == (old[0], forward("80:web1:80"))
    with pytest.raises(Problem, match="53/tcp"):
        forwarded(old, (), ("53",))
