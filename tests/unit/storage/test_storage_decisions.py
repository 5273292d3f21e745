from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from thimble.contract.storage import DatastoreCreate, DatastoreKind
from thimble.core.problem import Code
from thimble.storage import contents, formats, rules
from thimble.storage.contents import LABEL, STATE_LABEL, Contents
from thimble.storage.disks import DeviceFacts
from thimble.storage.kinds import disk
from thimble.storage.qemu_img import Meter


@given(st.binary(max_size=2000), st.binary(max_size=512))
def test_no_file_confuses_the_inspection(head: bytes, tail: bytes) -> None:
    found = formats.inspect(head, tail)
    assert found.driver in ("raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc")


@given(st.binary(max_size=200))
def test_a_qcow2_that_names_another_file_is_always_refused(rest: bytes) -> None:
    head = b"QFI\xfb\0\0\0\3" + b"\0\0\0\0\0\0\1\0" + rest.ljust(200, b"\0")
    assert "backing file" in formats.inspect(head, b"").refused


def vmdk(text: str, *, capacity: int = 2048, tables: int = 21, footer: bytes = b"") -> str:
    """What is said against a sparse VMDK with this descriptor."""
    head = b"KDMV" + struct.pack("<IIQQQQIQQQ", 1, 3, capacity, 128, 1, 20, 512, 0, tables, 0)
    whole = head.ljust(512, b"\0") + text.encode().ljust(20 * 512, b"\0")
    return formats.inspect(whole, footer or bytes(1024)).refused


def test_a_vmdk_that_names_another_file_is_always_refused() -> None:
    good, extent = 'createType="monolithicSparse"\n', 'RW 8 FLAT "/etc/shadow" 0\n'
    assert vmdk(good) == ""
    assert vmdk('createType="monolithicFlat"\n' + extent)
    assert vmdk('createType="monolithicFlat"\n' + extent + good, capacity=0)  # QEMU takes the first
    assert vmdk('x createType="monolithicFlat"\n' + good)
    assert vmdk(good, capacity=0)
    assert vmdk(good + 'parentFileNameHint="/etc/shadow"\n')


def test_a_vmdk_whose_footer_has_another_descriptor_is_refused() -> None:
    def footer(capacity: int, place: int) -> bytes:
        return b"KDMV" + struct.pack("<IIQQ", 3, 3, capacity, 128) + struct.pack("<Q", place) + bytes(988)

    at_end, good = 0xFFFF_FFFF_FFFF_FFFF, 'createType="streamOptimized"\n'
    assert vmdk(good, tables=at_end, footer=footer(2048, 1)) == ""
    assert vmdk(good, tables=at_end, footer=footer(2048, 30))
    assert vmdk(good, tables=at_end, footer=footer(0, 1))
    assert vmdk(good, tables=at_end)


@given(st.binary(max_size=5000))
def test_what_is_not_blank_is_something(data: bytes) -> None:
    assert (contents.identify(data, b"").kind == "") == (not any(data))


def test_well_known_contents_are_named() -> None:
    gpt = bytes(510) + b"\x55\xaaEFI PART"
    mbr = bytes(446) + b"\x80" + bytes(63) + b"\x55\xaa"
    assert contents.identify(gpt, b"").kind == "a GPT partition table"
    assert contents.identify(mbr, b"").kind == "a partition table"
    assert contents.identify(b"LUKS\xba\xbe", b"").kind == "LUKS encryption"
    assert contents.identify(bytes(100), b"EFI PART" + bytes(504)).kind == "the rest of a GPT partition table"


def _disk(*, format: bool = False, erase: bool = False) -> DatastoreCreate:
    return DatastoreCreate(name="d", kind=DatastoreKind.DISK, device="/dev/sdb", format=format, erase=erase)


kinds = st.sampled_from(["", "ext4", "xfs", "unknown data", "a GPT partition table"])
labels = st.sampled_from(["", LABEL, STATE_LABEL, "root"])


@given(kinds, labels, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 1 << 40))
def test_nothing_is_ever_lost_unasked(
    kind: str, label: str, in_use: bool, format: bool, erase: bool, size: int
) -> None:
    facts = DeviceFacts(
        device="/dev/sdb", size_bytes=size, contents=Contents(kind, label, "u"), in_use=in_use
    )
    decision = disk.decide(_disk(format=format, erase=erase), facts)
    if decision.plan is None:
        assert decision.blockers
        return
    assert not in_use
    assert label != STATE_LABEL
    if decision.plan.format:
        assert format
        assert erase or not kind
        assert size >= disk.DISK_MIN
    else:
        assert (kind, label) == ("ext4", LABEL)


def test_a_blank_disk_is_formatted_and_mounted_when_asked() -> None:
    facts = DeviceFacts(device="/dev/sdb", size_bytes=1 << 40)
    decision = disk.decide(_disk(format=True), facts)
    assert decision.effects == (
        "makes an ext4 file system on /dev/sdb (1 TiB)",
        "mounts /dev/sdb",
    )
    small = DeviceFacts(device="/dev/sdb", size_bytes=1 << 20)
    refused = disk.decide(_disk(format=True), small)
    assert refused.blockers[0].code is Code.INVALID


@given(st.text(max_size=80))
def test_no_accepted_name_leaves_its_directory(name: str) -> None:
    for check in (rules.volume_name_reasons, rules.image_name_reasons):
        if not check(name, "$"):
            assert "/" not in name
            assert not name.startswith(".")


@given(st.lists(st.integers(0, 10000), min_size=1, max_size=20), st.integers(1, 9))
def test_progress_is_read_in_whatever_pieces_it_comes(hundredths: list[int], cut: int) -> None:
    text = b"".join(b"    (%.2f/100%%)\r" % (h / 100) for h in hundredths)
    seen: list[float] = []
    meter = Meter(seen.append)
    for start in range(0, len(text), cut):
        meter(text[start : start + cut])
    assert seen == [h / 100 / 100 for h in hundredths]
