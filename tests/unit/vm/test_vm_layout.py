"""Addresses: given once, kept for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace
from vm_examples import definition

from thimble.contract.vm import CdromSpec, DiskSpec, Firmware, Machine
from thimble.core.problem import Problem
from thimble.core.units import GIB
from thimble.vm.record import layout
from thimble.vm.record.spec import Disk

NAMES = some.lists(some.sampled_from([f"disk{n}" for n in range(12)]), unique=True, max_size=12)


@given(some.lists(NAMES, min_size=1, max_size=6), some.booleans())
def test_a_device_keeps_its_address_as_long_as_it_is_there(history: list[list[str]], vga: bool) -> None:
    vm = definition()
    for names in history:
        disks = tuple(Disk(name=name, size_bytes=GIB) for name in names)
        changed = replace(vm, disks=disks, vga=vga)
        after = layout.assign(changed)
        for name, address in vm.addresses.items():
            if name in after:
                assert after[name] == address
        assert len(set(after.values())) == len(after)
        assert set(after) == {name for name, _ in layout.devices(changed)}
        vm = replace(changed, addresses=after)
        assert layout.assign(vm) == after


def test_there_are_spare_ports_for_hot_plug() -> None:
    vm = definition(disks=(DiskSpec(size_bytes=GIB),))
    assert layout.ports(vm) == 1 + layout.SPARE


def test_what_does_not_fit_is_refused_with_what_to_do() -> None:
    with pytest.raises(Problem, match="no free place for cd-cd6") as caught:
        definition(cdroms=tuple(CdromSpec() for _ in range(7)))
    assert "SATA" in caught.value.hint


def test_a_microvm_has_mmio_slots_only() -> None:
    vm = definition(machine=Machine.MICROVM, firmware=Firmware.DIRECT, disks=(DiskSpec(size_bytes=GIB),))
    assert vm.addresses == {
        "channels": "mmio/0",
        "rng": "mmio/1",
        "balloon": "mmio/2",
        "disk-disk0": "mmio/3",
    }


@pytest.mark.parametrize(
    ("address", "properties"),
    [
        ("00:0a.0", {"bus": "pcie.0", "addr": "0xa"}),
        ("0a:00.0", {"bus": "rp9", "addr": "0x0"}),
        ("00:1f.2/3", {"bus": "ide.3"}),
        ("usb/1", {"bus": "usb.0", "port": "1"}),
        ("mmio/7", {"bus": "virtio-mmio-bus.7"}),
    ],
)
def test_an_address_is_a_place_on_a_bus(address: str, properties: dict[str, str]) -> None:
    assert layout.bus(address) == properties
