"""Memory modules from SMBIOS tables: as firmware writes them, and as it should not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.host import smbios


def module(size: int, *, extended: int = 0, speed: int = 3200, kind: int = 0x1A, words: bytes = b"") -> bytes:
    head = struct.pack("<HHHHHBBBB", 0x1000, 0xFFFE, 72, 64, size, 9, 0, 1, 2)
    body = head + struct.pack("<BHHBBBBBIH", kind, 0x80, speed, 3, 4, 5, 6, 2, extended, 2933)
    texts = words or b"DIMM_A1\0NODE 0\0Samsung\0S3R1AL\0Not Specified\0M393A2K40 \0"
    return struct.pack("<BBH", 17, 4 + len(body), 0x1100) + body + texts + b"\0"


ARRAY = struct.pack("<BBHBBBIHH", 16, 15, 0x1000, 3, 3, 6, 0, 0xFFFE, 2) + b"\0\0"
END = b"\x7f\x04\xfe\xfe\0\0"


def test_a_module_is_read_with_maker_and_speed() -> None:
    one, empty = smbios.modules(ARRAY + module(16384) + module(0) + END)
    assert (one.slot, one.bank, one.size_bytes, one.kind) == ("DIMM_A1", "NODE 0", 16 << 30, "DDR4")
    assert (one.vendor, one.serial, one.part) == ("Samsung", "S3R1AL", "M393A2K40")
    assert (one.speed, one.configured_speed) == (3200, 2933)
    assert (empty.slot, empty.size_bytes, empty.kind, empty.vendor) == ("DIMM_A1", 0, "", "")
    assert smbios.ecc(ARRAY + END) == "multi-bit ECC"


@pytest.mark.parametrize(
    ("size", "extended", "expected"),
    [(0x7FFF, 65536, 64 << 30), (0x8200, 0, 512 << 10), (0xFFFF, 0, 0), (512, 0, 512 << 20)],
)
def test_sizes_are_read_in_every_unit(size: int, extended: int, expected: int) -> None:
    assert smbios.modules(module(size, extended=extended) + END)[0].size_bytes == expected


def test_a_management_controller_is_seen() -> None:
    assert smbios.has_controller(struct.pack("<BBH", 38, 4, 0x2600) + b"\0\0" + END)
    assert not smbios.has_controller(ARRAY + END)


def test_what_follows_the_end_is_not_read() -> None:
    assert smbios.modules(END + module(16384)) == ()


@given(st.binary(max_size=200), st.integers(0, 120))
def test_broken_tables_are_no_error(noise: bytes, cut: int) -> None:
    whole = ARRAY + module(16384) + END
    for table in (noise, whole[:cut], whole[:cut] + noise):
        smbios.modules(table), smbios.ecc(table), smbios.has_controller(table)
