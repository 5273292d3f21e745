"""Layout, loader entries and images, as pure values."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.core.problem import Problem
from thimble.medium import layout, loader, uki
from thimble.medium.loader import Choice, Entry

MIB = 1 << 20


def image(
    *, machine: int = 0x8664, names: tuple[str, ...] = (".osrel", ".cmdline", ".linux", ".initrd")
) -> bytes:
    """An EFI program with sections of one sector each, and nothing in them."""
    optional = bytes(112) + bytes(16 * 8)
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40))
    head += b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(names), 0, 0, 0, len(optional), 0) + optional
    for number, name in enumerate(names):
        head += (
            name.encode().ljust(8, b"\0") + struct.pack("<IIII", 500, 0, 512, 1024 + 512 * number) + bytes(16)
        )
    return bytes(head).ljust(1024 + 512 * len(names), b"\0")


def test_an_image_is_read() -> None:
    whole = image()
    read = uki.parse(whole, len(whole))
    assert read.sections[".initrd"] == uki.Section(offset=1024 + 3 * 512, size=500)
    assert not read.signed and not read.has_loader()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no EFI program"),
        (b"\x7fELF" * 300, "no EFI program"),
        (image(machine=0xAA64), "another kind of processor"),
        (image(names=(".text",)), "no .linux, .initrd, .cmdline, .osrel"),
        (image()[:-600], "cut off"),
        (image()[:70], "damaged"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(Problem) as caught:
        uki.parse(data[: uki.HEAD_BYTES], len(data))
    assert why in caught.value.detail


@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(Problem):
        uki.parse(b"MZ" + data, 1 << 30)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("thimble-a.conf", Entry(slot="a")),
        ("thimble-b+3.conf", Entry(slot="b", left=3)),
        ("THIMBLE-B+2-1.CONF", Entry(slot="b", left=2, done=1)),
        ("\\loader\\entries\\thimble-b+0-3.conf", Entry(slot="b", left=0, done=3)),
        ("thimble-c.conf", None),
        ("debian.conf", None),
    ],
)
def test_entry_names_are_understood(name: str, entry: Entry | None) -> None:
    assert loader.parse_entry(name) == entry


@given(st.sampled_from("ab"), st.none() | st.integers(0, 9), st.integers(0, 9))
def test_entry_names_read_back(slot: str, left: int | None, done: int) -> None:
    entry = Entry(slot=slot, left=left, done=0 if left is None else done)
    assert loader.parse_entry(entry.name) == entry


def test_an_entry_carries_its_number() -> None:
    assert loader.entry_number(loader.entry_text("b", number=17, version="1.2")) == 17
    assert loader.entry_number("") == 0


@given(st.sampled_from("ab"), st.sampled_from(["", "a", "b"]), st.integers(0, 3))
def test_the_environment_reads_back_and_varies_in_one_sector(default: str, trial: str, tries: int) -> None:
    choice = Choice(default=default, trial=trial, tries=tries)
    block = loader.environment(choice)
    assert len(block) == 1024 and block[512:] == b"#" * 512
    assert loader.parse_environment(block) == choice


@pytest.mark.parametrize("block", [b"", bytes(1024), b"#" * 1024])
def test_a_damaged_environment_starts_slot_a(block: bytes) -> None:
    assert loader.parse_environment(block) == Choice(default="a")


def test_grub_finds_kernel_and_initrd_within_the_slot() -> None:
    whole = image()
    text = loader.grub_slot("b", uki.parse(whole, len(whole)), 'quiet ip=10.0.0.1::10.0.0.2 x="a b"')
    assert "linux (b)4+1 quiet" in text and "initrd (b)5+1\n" in text and "thimble.slot=b" in text
    assert '\\"a b\\"' in text


def test_partitions_lie_one_after_the_other_and_fill_the_disk() -> None:
    parts = layout.partitions(boot_mib=512, state_mib=1024, disk_bytes=20 << 30, raid=True)
    assert [part.name for part in parts] == [
        layout.GRUB,
        layout.BOOT,
        layout.DOCUMENT,
        layout.STATE,
        layout.DATA,
    ]
    for before, after in pairwise(parts):
        assert before.start + before.size == after.start
    assert 0 <= (20 << 30) - layout.image_bytes(parts) < MIB


def test_a_small_disk_is_refused_and_one_without_room_for_data_is_not() -> None:
    needed = (1 + 1 + 512 + 16 + 1024 + 1) * MIB
    with pytest.raises(Problem, match="too small"):
        layout.partitions(boot_mib=512, state_mib=1024, disk_bytes=needed - 1)
    assert len(layout.partitions(boot_mib=512, state_mib=1024, disk_bytes=needed)) == 4


def test_grubs_pieces_are_told_where_the_others_are() -> None:
    code = layout.mbr_code(bytes(512), 2 * MIB)
    assert len(code) == 440 and struct.unpack_from("<Q", code, 0x5C) == (4096,)
    whole = layout.core(bytes(1000), MIB)
    assert len(whole) == 1024 and struct.unpack_from("<QHH", whole, 0x1F4) == (2049, 1, 0x820)
