"""The driver table finds what depmod's aliases say, and loads it in an order that works."""

from __future__ import annotations

import fnmatch
import marshal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.boot.devices.driver_table import compile_table
from thimble.boot.devices.modalias import LATER, NETWORK, STORAGE, DriverTable, glob_matches, rank

DEP = """\
kernel/drivers/net/igb/igb.ko.xz: kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz kernel/drivers/dca/dca.ko.xz
kernel/drivers/i2c/algos/i2c-algo-bit.ko.xz:
kernel/drivers/dca/dca.ko.xz:
kernel/drivers/ata/ahci.ko.xz: kernel/drivers/ata/libata.ko.xz
kernel/drivers/ata/libata.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/acpi/button.ko.xz:
kernel/drivers/usb/storage/usb-storage.ko.xz:
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias pci:v00008086d00001533sv*sd*bc*sc*i* igb
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias pci:v00008086d00009999sv*sd*bc*sc*i* not_in_the_image
alias virtio:d00000002v* virtio_blk
alias acpi*:PNP0C0C:* button
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage
alias usb:v0644p0000d0[0-1]1[5-9]dc*dsc*dp*ic08isc*ip*in* usb_storage
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias of:N*T*Csomething button
"""
SOFTDEP = "softdep ext4 pre: crypto-crc32c\nsoftdep jbd2 pre: crypto-crc32c\nsoftdep igb post: dca\n"


@pytest.fixture
def table() -> DriverTable:
    return DriverTable(marshal.loads(marshal.dumps(compile_table(DEP, ALIAS, SOFTDEP))))


def test_a_pci_device_finds_its_driver_by_vendor_and_device(table: DriverTable) -> None:
    assert table.drivers_for("pci:v00008086d00001533sv00008086sd00000001bc02sc00i00") == ["igb"]


def test_a_pci_device_finds_its_driver_by_class(table: DriverTable) -> None:
    assert table.drivers_for("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01") == ["ahci"]


def test_any_of_an_acpi_devices_identifiers_counts(table: DriverTable) -> None:
    assert table.drivers_for("acpi:XXX0001:PNP0C0C:") == ["button"]


def test_a_device_nobody_knows_has_no_driver(table: DriverTable) -> None:
    assert table.drivers_for("pci:v0000DEADd0000BEEFsv00000000sd00000000bc12sc00i00") == []
    assert table.drivers_for("nosuchbus:x") == []


def test_a_driver_missing_from_the_image_is_not_offered(table: DriverTable) -> None:
    assert table.drivers_for("pci:v00008086d00009999sv00000000sd00000000bc12sc00i00") == []


def test_one_driver_named_by_two_aliases_is_offered_once(table: DriverTable) -> None:
    assert table.drivers_for("usb:v0644p0000d0115dc00dsc00dp00ic08isc06ip50in00") == ["usb_storage"]


def test_dependencies_and_soft_dependencies_come_first(table: DriverTable) -> None:
    order = table.load_order(["ext4", "igb"])
    assert order.index("crc32c_generic") < order.index("jbd2") < order.index("ext4")
    assert order.index("i2c_algo_bit") < order.index("igb")
    assert len(order) == len(set(order))


def test_names_resolve_as_modprobe_does(table: DriverTable) -> None:
    assert table.resolve("usb-storage") == ["usb_storage"]
    assert table.resolve("fs-ext4") == ["ext4"]
    assert table.resolve("virtio:d00000002v00001AF4") == ["virtio_blk"]
    assert table.resolve("nothing") == []


def test_a_table_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="reads 2"):
        DriverTable({"format": 1})


@pytest.mark.parametrize(
    ("modalias", "expected"),
    [
        ("virtio:d00000002v00001AF4", STORAGE),
        ("virtio:d00000001v00001AF4", NETWORK),
        ("pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", NETWORK),
        ("pci:v00001000d00000097sv00001000sd00003090bc01sc07i00", STORAGE),
        ("pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", STORAGE),
        ("pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00", LATER),
        ("acpi:PNP0C0C:", LATER),
    ],
)
def test_disks_come_before_nics_before_the_rest(modalias: str, expected: int) -> None:
    assert rank(modalias) == expected


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_globs_match_as_fnmatch_does(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@pytest.mark.parametrize("text", ["d0115x", "d0019", "d0114", "d0215", "d011"])
def test_character_classes_match_as_fnmatch_does(text: str) -> None:
    assert glob_matches("d0[0-1]1[5-9]*", text) == fnmatch.fnmatchcase(text, "d0[0-1]1[5-9]*")
