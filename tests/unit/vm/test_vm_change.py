"""Changes: what is hot, what waits, and that nothing is left to do after it was done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace
from vm_examples import definition, record

from thimble.contract.vm import CdromSpec, DiskBus, DiskSpec, Firmware, Machine, VmChange
from thimble.core.units import GIB
from thimble.vm.record import change, layout
from thimble.vm.record.spec import Definition, Disk, Nic, Running


def running(vm: Definition) -> Running:
    return Running(record=vm, ports=layout.ports(vm), accel="tcg", started=0.0)


def laid_out(vm: Definition) -> Definition:
    return replace(vm, addresses=layout.assign(vm))


DISKS = some.lists(
    some.builds(
        Disk, name=some.sampled_from("abcdefgh"), size_bytes=some.just(GIB), bus=some.sampled_from(DiskBus)
    ),
    unique_by=lambda disk: disk.name,
    max_size=5,
)
NICS = some.lists(
    some.builds(
        Nic,
        name=some.sampled_from("xyz"),
        switch=some.sampled_from(["nat", "uplink"]),
        mac=some.just("52:54:00:00:00:01"),
    ),
    unique_by=lambda nic: nic.name,
    max_size=3,
)


@given(DISKS, DISKS, NICS, NICS, some.booleans())
def test_planning_again_after_all_effects_yields_no_effect(
    old_disks: list[Disk], new_disks: list[Disk], old_nics: list[Nic], new_nics: list[Nic], micro: bool
) -> None:
    machine = Machine.MICROVM if micro else Machine.Q35
    small = {"rng": False, "balloon": False, "guest_agent": False}
    base = definition(cdroms=() if micro else (CdromSpec(),), **small)
    base = replace(base, machine=machine, vga=False, tablet=False, addresses={})
    old = laid_out(replace(base, disks=tuple(old_disks), nics=tuple(old_nics)))
    new = laid_out(replace(old, disks=tuple(new_disks), nics=tuple(new_nics)))
    now = running(old)
    first = change.plan(now, new)
    for effect in first.hot:
        assert effect.describe()
        now = replace(now, record=effect.after(now.record))
    second = change.plan(now, new)
    assert second.hot == ()
    assert second.pending == first.pending
    if not first.pending:
        assert set(now.record.disks) == set(new.disks)
        assert set(now.record.nics) == set(new.nics)


def test_a_virtio_disk_is_hot_and_a_sata_disk_waits() -> None:
    old = definition(disks=(DiskSpec(size_bytes=GIB),))
    fast, slow = Disk(name="fast", size_bytes=1), Disk(name="slow", size_bytes=1, bus=DiskBus.SATA)
    plan = change.plan(running(old), laid_out(replace(old, disks=(*old.disks, fast, slow))))
    assert plan.hot == (change.AddDisk(fast, "02:00.0"),)
    assert plan.pending == ("adds disk slow",)


def test_more_disks_than_spare_ports_wait() -> None:
    old = definition()
    many = tuple(Disk(name=f"d{n}", size_bytes=1) for n in range(layout.SPARE + 1))
    plan = change.plan(running(old), laid_out(replace(old, disks=many)))
    assert len(plan.hot) == layout.SPARE
    assert plan.pending == (f"adds disk d{layout.SPARE}",)


def test_a_medium_is_changed_and_a_drive_waits() -> None:
    old = definition(cdroms=(CdromSpec(image="a.iso"),))
    new = laid_out(replace(old, cdroms=(CdromSpec(name="cd0", image="b.iso"), CdromSpec(name="cd1"))))
    plan = change.plan(running(old), new)
    assert plan.hot == (change.ChangeMedium("cd0", "b.iso"),)
    assert plan.pending == ("adds CD-ROM drive cd1",)


def test_memory_and_vcpus_wait_in_words() -> None:
    old = definition()
    new = replace(old, memory_mib=1024, vcpus=2, vga=False, name="other", firmware=Firmware.BIOS)
    assert change.plan(running(old), new) == change.Plan(
        (), ("vcpus 1 → 2", "memory 512 → 1024 MiB", "firmware uefi → bios", "vga off")
    )


def test_absent_fields_stay() -> None:
    old = record(disks=(DiskSpec(size_bytes=GIB),), memory_mib=1024)
    spec = change.asked(old, VmChange(description="new"), "local")
    assert (spec.memory_mib, spec.description, [disk.name for disk in spec.disks]) == (1024, "new", ["disk0"])


def test_a_kept_disk_cannot_become_another() -> None:
    old = definition(disks=(DiskSpec(size_bytes=GIB),)).disks
    asked = (DiskSpec(name="disk0", size_bytes=2 * GIB, volume="local/other"),)
    paths = {reason.path for reason in change.disk_reasons(old, asked, {"disk0": "local/vm-1.disk0"})}
    assert paths == {"$.disks[0].size_bytes", "$.disks[0].volume"}
    assert change.disk_reasons(old, (change.disk_spec(old[0]),), {}) == []
