"""Every change of a boot partition, cut off at every point: what starts is whole, and the right slot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_world import BIOS, UEFI, apply, made, starts, stick, whole

from thimble.contract.deploy import SlotState
from thimble.deploy import esp, mirror, slots
from thimble.deploy.boot_files import Delete, Op, Put, PutImage, Trial
from thimble.deploy.image import BootImage
from thimble.medium import loader

BOTH = pytest.mark.parametrize("firmware", [BIOS, UEFI])


@pytest.fixture
def old(tmp_path: Path) -> BootImage:
    return made(tmp_path / "old.efi", kernel=b"old kernel")


@pytest.fixture
def new(tmp_path: Path) -> BootImage:
    return made(tmp_path / "new.efi", version="0.2.0", kernel=b"new kernel" * 900)


def trial_of(root: Path, image: BootImage, old: BootImage) -> Trial:
    return Trial(
        kind="update",
        slot="b",
        number=slots.next_number(esp.read(root)),
        manifest=image.manifest,
        before=old.manifest,
        begun=1.0,
        boot="first",
    )


def update(root: Path, image: BootImage, old: BootImage, firmware: str) -> tuple[Op, ...]:
    """All that an update does to a boot partition whose slot a runs."""
    there = esp.read(root)
    before = (*slots.clear(there, "b"), *slots.fill("b", image.manifest, image.menu("b")))
    return (*before, *slots.offer(there, trial_of(root, image, old), firmware))


def cuts(root: Path, ops: tuple[Op, ...], image: BootImage, scratch: Path) -> Iterator[tuple[Path, int]]:
    """Copies of `root` as a power cut leaves them: between any two operations, and within each."""
    for count in range(len(ops) + 1):
        for torn in (False, True) if count < len(ops) else (False,):
            copy = scratch / f"cut-{count}-{torn}"
            shutil.copytree(root, copy)
            apply(copy, ops[:count], image)
            if torn:
                tear(copy, ops[count], image)
            yield copy, count


def tear(root: Path, op: Op, image: BootImage) -> None:
    """Half of an operation. What is overwritten in place fits into a sector, and a sector is whole or not."""
    target = root / op.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(op, PutImage):
        target.write_bytes(image.path.read_bytes()[: image.file_bytes // 2])
    elif isinstance(op, Put) and not target.exists():
        target.write_bytes(b"")


@BOTH
def test_a_new_medium_starts_its_slot(tmp_path: Path, old: BootImage, firmware: str) -> None:
    root = stick(tmp_path / "esp", old)
    assert starts(root, firmware) == "a"
    a, b = slots.states(esp.read(root), "a")
    assert (a.state, a.build, a.running) == (SlotState.GOOD, old.build, True)
    assert b.state is SlotState.EMPTY


@BOTH
def test_an_update_is_tried_three_times_and_then_the_old_slot_is_back(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    root = stick(tmp_path / "esp", old)
    apply(root, update(root, new, old, firmware), new)
    assert [starts(root, firmware) for _ in range(5)] == ["b", "b", "b", "a", "a"]
    there = esp.read(root)
    assert there.trial is not None and there.trial.before.build == old.build
    apply(root, slots.settle(there, "a", firmware))
    settled = esp.read(root)
    assert settled.trial is None
    assert [slot.state for slot in slots.states(settled, "a")] == [SlotState.GOOD, SlotState.BAD]
    assert not slots.settle(settled, "a", firmware), "settled once is settled"
    assert starts(root, BIOS) == starts(root, UEFI) == "a"


@BOTH
def test_a_confirmed_update_stays(tmp_path: Path, old: BootImage, new: BootImage, firmware: str) -> None:
    root = stick(tmp_path / "esp", old)
    apply(root, update(root, new, old, firmware), new)
    assert starts(root, firmware) == "b"
    apply(root, slots.confirm(esp.read(root), "b", firmware))
    there = esp.read(root)
    assert [slot.state for slot in slots.states(there, "b")] == [SlotState.GOOD, SlotState.GOOD]
    assert [starts(root, how) for how in (BIOS, UEFI, BIOS, UEFI)] == ["b"] * 4
    assert not slots.settle(there, "b", firmware)


@BOTH
def test_an_update_cut_off_anywhere_starts_the_old_slot_or_tries_the_whole_new_one(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    root = stick(tmp_path / "esp", old)
    ops = update(root, new, old, firmware)
    for copy, count in cuts(root, ops, new, tmp_path):
        slot = starts(copy, firmware)
        assert slot == ("b" if count == len(ops) else "a"), f"cut at {count}: {ops[min(count, len(ops) - 1)]}"
        other = starts(copy, UEFI if firmware == BIOS else BIOS)
        assert other in "ab" and other, "the other firmware starts something whole as well"
        if slot == "a":
            again(copy, new, old, firmware)


def again(root: Path, new: BootImage, old: BootImage, firmware: str) -> None:
    """After a cut the host settles, and the same update succeeds."""
    apply(root, slots.settle(esp.read(root), "a", firmware))
    assert starts(root, BIOS) == starts(root, UEFI) == "a"
    apply(root, slots.leftovers(esp.read(root)))
    apply(root, update(root, new, old, firmware), new)
    assert starts(root, firmware) == "b"


@BOTH
def test_a_second_update_cut_off_anywhere_never_starts_a_torn_slot(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    """Slot b holds an older good one, which is overwritten while a runs."""
    root = stick(tmp_path / "esp", old)
    apply(root, update(root, new, old, firmware), new)
    apply(root, slots.confirm(esp.read(root), "b", firmware))
    there = esp.read(root)
    back = Trial(kind="rollback", slot="a", number=slots.next_number(there), manifest=old.manifest,
                 before=new.manifest, begun=2.0, boot="second")  # fmt: skip
    apply(root, slots.offer(there, back, firmware))
    assert starts(root, firmware) == "a", "rolled back, on trial"
    apply(root, slots.confirm(esp.read(root), "a", firmware))
    third = made(tmp_path / "third.efi", version="0.3.0", kernel=b"third" * 700)
    ops = update(root, third, old, firmware)
    for copy, count in cuts(root, ops, third, tmp_path):
        assert starts(copy, firmware) == ("b" if count == len(ops) else "a")


@BOTH
def test_a_confirmation_cut_off_anywhere_starts_the_new_slot(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    root = stick(tmp_path / "esp", old)
    apply(root, update(root, new, old, firmware), new)
    assert starts(root, firmware) == "b"
    ops = slots.confirm(esp.read(root), "b", firmware)
    for copy, _ in cuts(root, ops, new, tmp_path):
        assert starts(copy, firmware) == "b", "a trial with tries left, or confirmed"
        apply(copy, slots.confirm(esp.read(copy), "b", firmware))
        assert [starts(copy, BIOS), starts(copy, UEFI), starts(copy, firmware)] == ["b"] * 3


@BOTH
def test_what_is_refused_starts_no_more_and_says_why(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    root = stick(tmp_path / "esp", old)
    apply(root, update(root, new, old, firmware), new)
    assert starts(root, firmware) == "b"
    ops = slots.refuse(esp.read(root), "b", "the gateway does not answer")
    for copy, _ in cuts(root, ops, new, tmp_path):
        last = ""
        for _ in range(loader.TRIES):
            last = starts(copy, firmware)
        assert last == "a"
    apply(root, ops)
    assert starts(root, firmware) == "a"
    there = esp.read(root)
    assert there.trial is not None and there.trial.why == "the gateway does not answer"


def test_leftovers_are_what_nothing_refers_to(tmp_path: Path, old: BootImage) -> None:
    root = stick(tmp_path / "esp", old)
    for name in ("thimble/b.efi.new", "FSCK0000.REC", "loader/entries/thimble-b+3.conf"):
        (root / name).write_bytes(b"")
    assert slots.leftovers(esp.read(root)) == (
        Delete(path="FSCK0000.REC"),
        Delete(path="loader/entries/thimble-b+3.conf"),
        Delete(path="thimble/b.efi.new"),
    )


@BOTH
def test_a_mirror_follows_whatever_it_missed_and_a_cut_leaves_it_startable_or_unfinished(
    tmp_path: Path, old: BootImage, new: BootImage, firmware: str
) -> None:
    truth, other = stick(tmp_path / "esp", old), stick(tmp_path / "mirror", old)
    assert not mirror.differences(esp.read(truth), esp.read(other))
    apply(truth, update(truth, new, old, firmware), new)
    assert starts(truth, firmware) == "b"
    apply(truth, slots.confirm(esp.read(truth), "b", firmware))
    assert mirror.differences(esp.read(truth), esp.read(other))
    ops = mirror.follow(esp.read(truth), esp.read(other))
    for copy, _ in cuts(other, ops, new, tmp_path):
        slot = starts(copy, firmware)
        assert not slot or whole(copy, slot)
        apply(copy, mirror.follow(esp.read(truth), esp.read(copy)), new)
        assert not mirror.differences(esp.read(truth), esp.read(copy))
    apply(other, ops, new)
    assert starts(other, BIOS) == starts(other, UEFI) == "b"
    assert mirror.follow(esp.read(truth), esp.read(other)) == ()


def test_an_empty_partition_becomes_a_mirror(tmp_path: Path, old: BootImage) -> None:
    truth, other = stick(tmp_path / "esp", old), tmp_path / "mirror"
    other.mkdir()
    apply(other, mirror.follow(esp.read(truth), esp.read(other)), old)
    assert starts(other, BIOS) == starts(other, UEFI) == "a"
    assert (other / "EFI/BOOT/BOOTX64.EFI").read_bytes() == b"boot"
