"""What the agent knows of its boot, and what it counts on the medium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thimble.host import state_disk
from thimble.host.pid1 import BootFacts, DocumentFacts, Init, Medium
from thimble.host.wear import Writes, before, whole


def written(run: Path, **facts: object) -> Init:
    (run / "boot.json.new").write_text(json.dumps(facts))
    (run / "boot.json.new").rename(run / "boot.json")
    return Init(run)


def test_hosted_there_are_no_facts(tmp_path: Path) -> None:
    init = Init(tmp_path)
    assert (init.boot, init.document, init.searched) == (None, None, False)


def test_what_pid_1_learns_later_is_known_later(tmp_path: Path) -> None:
    init = written(tmp_path, boot=None, searched=False, warnings=["one"])
    assert (init.boot, init.searched, init.warnings) == (None, False, ("one",))
    medium = {"disk": "/dev/vda", "esp": "/dev/vda2", "kind": "disk"}
    facts = {
        "firmware": "uefi",
        "secure_boot": True,
        "slot": "b",
        "trial": True,
        "build": "f00",
        "medium": medium,
    }
    written(tmp_path, boot=facts, searched=True, document={"path": "/x", "source": "/dev/vda3 (THIMBLE)"})
    assert init.boot == BootFacts(
        firmware="uefi",
        secure_boot=True,
        slot="b",
        trial=True,
        build="f00",
        medium=Medium(disk="/dev/vda", esp="/dev/vda2", kind="disk"),
    )
    assert init.document == DocumentFacts(path="/x", source="/dev/vda3 (THIMBLE)")
    assert init.searched


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """vda with vda4, vdb with vdb4, and the mirror md_state over both."""
    sys = tmp_path / "sys"
    for disk in ("vda", "vdb"):
        (sys / disk).mkdir(parents=True)
        part = sys / disk / f"{disk}4"
        part.mkdir()
        (part / "partition").write_text("4")
        (sys / f"{disk}4").symlink_to(part)
        stat(sys, disk, 0)
    (sys / "md_state/slaves").mkdir(parents=True)
    for part in ("vdb4", "vda4"):
        (sys / "md_state/slaves" / part).symlink_to(sys / part)
    return sys


def stat(sys: Path, disk: str, sectors: int) -> None:
    (sys / disk / "stat").write_text(f"  10 0 99 1 20 0 {sectors} 5 0 0 0 0 0 0 0 0 0\n")


def test_a_partition_and_a_mirror_lie_on_a_disk(disks: Path) -> None:
    assert [whole(disks, name) for name in ("vda4", "vdb", "md_state")] == ["vda", "vdb", "vda"]


def test_writes_are_counted_since_boot_and_for_an_hour(tmp_path: Path, disks: Path) -> None:
    writes = Writes(written(tmp_path, state={"kind": "partition", "device": "/dev/md_state"}), disks)
    for minute, sectors in ((0, 10), (1, 12), (30, 12), (61, 20)):
        stat(disks, "vda", sectors)
        writes.sample(minute * 60.0)
    seen = writes.view(61 * 60.0)
    assert seen is not None
    assert (seen.disk, seen.since_boot_bytes, seen.last_hour_bytes) == ("/dev/vda", 20 * 512, 8 * 512)


def test_within_the_first_hour_all_is_of_the_last_hour(tmp_path: Path, disks: Path) -> None:
    medium = {"disk": "/dev/vdb", "esp": "/dev/vdb2", "kind": "disk"}
    writes = Writes(written(tmp_path, boot={"medium": medium}), disks)
    stat(disks, "vdb", 5)
    seen = writes.view(100.0)
    assert seen is not None
    assert (seen.disk, seen.last_hour_bytes) == ("/dev/vdb", 5 * 512)


def test_without_a_medium_nothing_is_counted(tmp_path: Path, disks: Path) -> None:
    writes = Writes(written(tmp_path, state={"kind": "ram"}, boot={"medium": None}), disks)
    writes.sample(1.0)
    assert writes.view(2.0) is None


def test_the_newest_sample_before_the_hour_counts() -> None:
    from collections import deque

    assert before(deque([(0.0, 5), (60.0, 7), (120.0, 9)]), 100.0) == 7
    assert before(deque(), 100.0) == 0


def test_a_state_that_can_be_written_needs_no_words(tmp_path: Path) -> None:
    assert state_disk.warnings(tmp_path) == ()
    assert "cannot be read" in state_disk.warnings(tmp_path / "none")[0]
