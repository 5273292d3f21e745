"""What PID 1 reads from disks: labels, mirrors, partition GUIDs; which volume holds the document."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thimble.boot.disks import document, raid, statedisk, volume
from thimble.boot.firmware import LoaderFacts, facts, guid, medium, slot
from thimble.sys.raid import superblock

if TYPE_CHECKING:
    from thimble.boot.disks.blocks import BlockDevice


def fat16(label: bytes) -> bytes:
    block = bytearray(512)
    struct.pack_into("<HBHBHHBH", block, 11, 512, 4, 1, 2, 512, 32768, 0xF8, 32)
    block[38] = 0x29
    block[43:54] = label.ljust(11)
    block[510:512] = b"\x55\xaa"
    return bytes(block)


def fat32(label: bytes) -> bytes:
    block = bytearray(512)
    struct.pack_into("<HBHBHHBH", block, 11, 512, 8, 32, 2, 0, 0, 0xF8, 0)
    struct.pack_into("<I", block, 36, 1000)
    struct.pack_into("<I", block, 44, 2)
    block[66] = 0x29
    block[71:82] = label.ljust(11)
    block[510:512] = b"\x55\xaa"
    return bytes(block)


def entry(name: bytes, kind: int) -> bytes:
    return name.ljust(11) + bytes([kind]) + bytes(20)


def test_a_fat16_tells_its_label_and_where_its_root_directory_is() -> None:
    found = volume.fat(fat16(b"THIMBLE"))
    assert found is not None
    assert (found.label, found.root_offset, found.root_bytes) == ("THIMBLE", (1 + 2 * 32) * 512, 512 * 32)


def test_a_fat32_tells_its_label_and_the_first_cluster_of_its_root_directory() -> None:
    found = volume.fat(fat32(b"THIMBLE"))
    assert found is not None
    assert (found.label, found.root_offset, found.root_bytes) == ("THIMBLE", (32 + 2000) * 512, 8 * 512)


def test_the_label_windows_writes_is_found_in_the_root_directory() -> None:
    long_name = entry(b"\x41t\0h\0i\0m\0b", 0x0F)
    deleted = entry(b"\xe5LD", 0x08)
    assert volume.root_label(deleted + long_name + entry(b"THIMBLE", 0x28)) == "THIMBLE"
    assert volume.root_label(entry(b"THIMBLE", 0x10) + bytes(64) + entry(b"LATER", 0x08)) == ""


@pytest.mark.parametrize(
    "start", [b"", bytes(512), bytes(510) + b"\x55\xaa", b"\xeb\x52\x90NTFS    ".ljust(510) + b"\x55\xaa"]
)
def test_what_is_no_fat_is_none(start: bytes) -> None:
    assert volume.fat(start) is None


def test_an_iso_tells_its_volume_id() -> None:
    start = bytes(32768) + b"\x01CD001\x01\0" + b"LINUX".ljust(32) + b"THIMBLE-CD".ljust(32)
    assert volume.iso_label(start) == "THIMBLE-CD"
    assert volume.iso_label(start[:-1]) is None


def raid_member(**given: Any) -> bytes:
    values: dict[str, Any] = {"data_bytes": 1 << 26, "members": 1, "number": 0, "roles": {0: 0}, "events": 7}
    return bytes(4096) + superblock(b"\1" * 16, b"\2" * 16, **{**values, **given})


def test_a_mirrors_superblock_is_read_as_it_was_written() -> None:
    found = volume.raid(raid_member().ljust(volume.SIZE, b"\0"))
    assert found is not None
    assert (found.name, found.uuid, found.members, found.events) == ("thimble-state", "01" * 16, 1, 7)
    assert (found.place, found.places) == (0, [0])


def test_a_spare_has_no_place() -> None:
    found = volume.raid(raid_member(roles={}, members=2, number=1).ljust(volume.SIZE, b"\0"))
    assert found is not None
    assert (found.place, found.places, found.members) == (-1, [], 2)


def test_a_damaged_superblock_is_none() -> None:
    damaged = bytearray(raid_member().ljust(volume.SIZE, b"\0"))
    damaged[4096 + 100] ^= 1
    assert volume.raid(bytes(damaged)) is None


@given(st.binary(max_size=8192))
def test_no_bytes_break_the_readers(start: bytes) -> None:
    for data in (start, bytes(4096) + b"\xfc\x4e\x2b\xa9\1\0\0\0" + start):
        volume.raid(data)
        volume.fat(data)
        volume.iso_label(data)
        volume.root_label(data)


def seen(device: str, **more: Any) -> BlockDevice:
    found: Any = {"device": device, "disk": device.rstrip("0123456789"), "part": "", "kind": "", "label": ""}
    return {**found, "clean": 0, "problem": "", **more}  # type: ignore[typeddict-item]


def half(device: str, place: int, events: int, places: list[int], members: int = 2) -> BlockDevice:
    return seen(
        device,
        kind="raid",
        label="thimble-state",
        uuid="u",
        members=members,
        events=events,
        place=place,
        places=places,
    )


def test_a_whole_mirror_is_used_without_a_word() -> None:
    plan = raid.plan([half("/dev/sda4", 0, 9, [0, 1]), half("/dev/sdb4", 1, 9, [0, 1])])
    assert (plan.use, plan.join, plan.warnings) == (["/dev/sda4", "/dev/sdb4"], [], [])


def test_half_a_mirror_is_used_and_the_other_missed() -> None:
    plan = raid.plan([half("/dev/sdb4", 1, 9, [0, 1])])
    assert plan.use == ["/dev/sdb4"]
    assert plan.warnings == ["the mirror is degraded: /dev/sdb4 runs with 1 of 2 disks"]


def test_a_mirror_of_one_misses_nothing() -> None:
    assert raid.plan([half("/dev/sda4", 0, 9, [0], members=1)]).warnings == []


def test_the_half_that_stayed_behind_is_brought_up_to_date() -> None:
    plan = raid.plan([half("/dev/sda4", 0, 9, [0, 1]), half("/dev/sdb4", 1, 30, [1])])
    assert (plan.use, plan.join) == (["/dev/sdb4"], ["/dev/sda4"])
    assert "out of sync" in plan.warnings[0]


def test_halves_that_both_ran_alone_are_never_mixed() -> None:
    plan = raid.plan([half("/dev/sda4", 0, 30, [0]), half("/dev/sdb4", 1, 30, [1])])
    assert (plan.use, plan.join) == (["/dev/sda4"], [])
    assert "have different changes" in plan.warnings[0]


def test_a_half_that_was_being_filled_is_filled_again() -> None:
    plan = raid.plan([half("/dev/sda4", 0, 9, [0]), half("/dev/sdb4", -1, 9, [0])])
    assert (plan.use, plan.join) == (["/dev/sda4"], ["/dev/sdb4"])


def test_the_members_of_one_mirror_are_one_state_partition_and_none_is_used_by_itself() -> None:
    (one,) = statedisk.candidates(
        [half("/dev/sda4", 0, 9, [0, 1]), half("/dev/sdb4", 1, 9, [0, 1]), seen("/dev/sdc1", kind="ext4")]
    )
    assert (one.device, one.complete()) == ("/dev/sda4+/dev/sdb4", True)


def test_a_mirror_and_a_plain_partition_are_two() -> None:
    found = statedisk.candidates(
        [half("/dev/sda4", 0, 9, [0]), seen("/dev/sdc1", kind="ext4", label="thimble-state")]
    )
    chosen, why = statedisk.choose(found)
    assert chosen is None
    assert why == "more than one partition is labelled thimble-state: /dev/sdc1, /dev/sda4"


def test_a_named_partition_without_a_file_system_is_told() -> None:
    (one,) = statedisk.candidates(
        [seen("/dev/sda4", part="thimble-state", problem="cannot be read: I/O error")]
    )
    assert statedisk.choose([one]) == (None, "/dev/sda4 cannot be read: I/O error")


def doc(device: str, **more: Any) -> BlockDevice:
    return seen(device, kind="fat", label="THIMBLE", **more)


def test_the_one_volume_with_the_label_holds_the_document() -> None:
    found = document.volumes([doc("/dev/sdb1"), seen("/dev/sdc1", kind="fat", label="OTHER")])
    assert document.choose(found, "") == (found[0], "")
    assert len(found) == 1


def test_the_boot_mediums_own_volume_wins() -> None:
    found = [doc("/dev/sda3", part="thimble-doc"), doc("/dev/sdb1")]
    assert document.choose(found, "") == (found[0], "")
    two = [doc("/dev/sda3", part="thimble-doc"), doc("/dev/sdb3", part="thimble-doc")]
    assert document.choose(two, "/dev/sdb") == (two[1], "")


def test_of_two_volumes_none_is_used_and_both_are_named() -> None:
    chosen, wrong = document.choose([doc("/dev/sda1"), doc("/dev/sdb1")], "")
    assert chosen is None
    assert "/dev/sda1, /dev/sdb1" in wrong


def test_a_document_must_be_a_plain_file_of_bearable_size(tmp_path: Any) -> None:
    path = tmp_path / "thimble.toml"
    assert document.read(str(path)) is None
    path.write_text("[host]\n")
    assert document.read(str(path)) == b"[host]\n"
    path.write_bytes(bytes(document.LONGEST + 1))
    with pytest.raises(OSError, match="too large: .* limit"):
        document.read(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        document.read(str(path))
    path.rmdir()
    path.symlink_to("/etc/shadow")
    with pytest.raises(OSError):
        document.read(str(path))


def test_the_network_of_a_document_is_read_or_its_fault_told() -> None:
    assert document.management(b"[management]\nvlan = 7\nx = 2024-01-01\n") == {"vlan": 7, "x": "2024-01-01"}
    assert document.management(b"[host]\n") is None
    assert "line 1" in document.management(b"[host\n")


@pytest.mark.parametrize(
    ("entry", "answer"),
    [
        ("thimble-b+2-1.conf", ("b", True)),
        ("Thimble-A.conf", ("a", False)),
        ("thimble-c.conf", ("", False)),
        ("windows.conf", ("", False)),
        ("", ("", False)),
    ],
)
def test_the_loaders_entry_tells_slot_and_trial(entry: str, answer: tuple[str, bool]) -> None:
    assert slot(entry) == answer


def test_grubs_words_win_over_the_variables_of_an_earlier_boot() -> None:
    left = LoaderFacts("uefi", secure=True, entry="thimble-b+2-1.conf")
    words = {"thimble.slot": "a", "thimble.build": "0123456789abcdef"}
    found = facts(left, "", [], words)
    assert (found["slot"], found["trial"], found["secure_boot"]) == ("a", False, True)
    assert facts(left, "", [], {**words, "thimble.trial": "1"})["trial"] is True
    assert facts(left, "", [], {})["slot"] == "b"


def test_the_medium_is_what_the_loader_names_or_the_only_one_that_looks_like_ours() -> None:
    disks = [seen("/dev/sda2", part="thimble-boot"), seen("/dev/sdb2", part="thimble-boot")]
    assert medium("/dev/sdb2", disks) == {"disk": "/dev/sdb", "esp": "/dev/sdb2", "kind": "disk"}
    assert medium("", disks[:1]) == {"disk": "/dev/sda", "esp": "/dev/sda2", "kind": "disk"}
    assert medium("", disks) is None
    assert medium("", disks, ["/dev/sdb", "/dev/sda"]) == medium("/dev/sda2", disks)
    assert medium("", disks, ["/dev/sdb"]) == medium("/dev/sdb2", disks)
    disc = seen("/dev/sr", kind="iso9660", label="THIMBLE-CD")
    assert medium("", [disc]) == {"disk": "/dev/sr", "esp": "", "kind": "cd"}
    assert medium("", []) is None
    assert medium("", [*disks[:1], disc]) == medium("", [disc]), "a BIOS that started the CD"
    assert medium("", [*disks[:1], disc], (), "a") == medium("", disks[:1]), "the CD only lies in the drive"
    assert medium("/dev/sda2", [*disks, disc]) == medium("", disks[:1])


def test_a_guid_is_written_as_firmware_writes_it() -> None:
    assert guid(bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")) == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    assert guid(b"") == ""


def test_a_full_partition_is_useless_only_if_no_host_kept_its_state_there(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not statedisk.is_unusable(str(tmp_path))
    monkeypatch.setattr(statedisk, "LEAST", 1 << 70)
    assert statedisk.is_unusable(str(tmp_path))
    (tmp_path / "users").mkdir()
    assert not statedisk.is_unusable(str(tmp_path))
