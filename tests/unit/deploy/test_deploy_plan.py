"""Which disks are taken, which never, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from thimble.contract.deploy import InstallRequest, OldState
from thimble.core.decision import Decision
from thimble.core.units import GIB, MIB
from thimble.deploy import plan
from thimble.deploy.disk_facts import DiskFacts, PartFacts, largest
from thimble.deploy.plan import Fresh, InstallFacts, InstallPlan, Renew
from thimble.medium import layout

BLANK = DiskFacts(device="/dev/vda", size_bytes=20 * GIB, serial="one", model="Disk")
WINDOWS = replace(BLANK, parts=(PartFacts(device="/dev/vda1", name="Basic data partition", kind="ntfs"),))
OURS = replace(
    BLANK,
    parts=tuple(
        PartFacts(device=f"/dev/vda{n + 1}", name=name, kind=kind, datastore=name == layout.DATA)
        for n, (name, kind) in enumerate(
            [(layout.GRUB, "unknown data"), (layout.BOOT, "fat"), (layout.DOCUMENT, "fat"),
             (layout.STATE, "a RAID member"), (layout.DATA, "ext4")]
        )
    ),
    installed="build1",
)  # fmt: skip
EMPTIED = replace(OURS, parts=(*OURS.parts[:4], replace(OURS.parts[4], datastore=False)))
UNFINISHED = replace(
    EMPTIED, installed="", parts=(EMPTIED.parts[0], replace(EMPTIED.parts[1], kind=""), *EMPTIED.parts[2:])
)
CARRIED = replace(BLANK, kind="ext4", datastore=True)


def decided(
    disk: DiskFacts, *, booted: str = "", build: str = "build2", **asked: Any
) -> Decision[InstallPlan]:
    request = InstallRequest(disk="serial:one", **asked)
    return plan.install(request, facts(disk, booted=booted, build=build))


def facts(*disks: DiskFacts, booted: str = "", build: str = "build2", mirrored: bool = False) -> InstallFacts:
    named = {f"serial:{disk.serial}": disk.device for disk in disks}
    return InstallFacts(
        disks=disks, booted=booted, build=build, version="0.1.0", named=named, mirrored=mirrored
    )


def accepted(decision: Decision[InstallPlan]) -> InstallPlan:
    assert decision.possible and decision.plan is not None, decision
    return decision.plan


def why(decision: Decision[InstallPlan]) -> str:
    assert decision.plan is None and not decision.effects and decision.refusal == "this cannot be installed"
    return "; ".join(reason.message for reason in decision.blockers)


def test_a_disk_with_big_sectors_is_refused_under_a_bios_and_started_by_uefi_alone() -> None:
    big = replace(BLANK, sector_bytes=4096)
    request = InstallRequest(disk="serial:one")
    assert "set the firmware to UEFI" in why(plan.install(request, replace(facts(big), bios=True)))
    assert plan.install(request, facts(big)).effects[-1].endswith("boot loaders, for UEFI")
    assert decided(BLANK).effects[-1].endswith("for UEFI and BIOS")


def test_a_blank_disk_is_divided_in_five() -> None:
    (target,) = accepted(decided(BLANK)).targets
    assert isinstance(target, Fresh)
    assert [part.name for part in target.parts] == [
        layout.GRUB, layout.BOOT, layout.DOCUMENT, layout.STATE, layout.DATA,
    ]  # fmt: skip
    said = decided(BLANK, reboot=True).effects
    assert said[0] == "makes new partitions on /dev/vda (20 GiB, Disk, serial one)"
    assert "makes a datastore of 18.5 GiB on /dev/vda" in said and said[-1] == "reboots the host"


def test_what_is_on_a_disk_is_lost_only_when_that_was_asked() -> None:
    assert "holds 1 partitions: Basic data partition (ntfs); ask for erase" in why(decided(WINDOWS))
    (target,) = accepted(decided(WINDOWS, erase=True)).targets
    assert "losing 1 partitions: Basic data partition (ntfs)" in target.describe()


@pytest.mark.parametrize("erase", [False, True])
def test_a_datastore_is_never_erased(erase: bool) -> None:
    assert "holds a datastore, and that is never erased" in why(decided(CARRIED, erase=erase))
    (target,) = accepted(decided(OURS, erase=erase)).targets
    assert isinstance(target, Renew) and target.keep_state


def test_an_installation_found_keeps_its_state_unless_that_is_replaced() -> None:
    (target,) = accepted(decided(EMPTIED)).targets
    assert isinstance(target, Renew) and target.keep_state
    (target,) = accepted(decided(EMPTIED, state=OldState.REPLACE)).targets
    assert isinstance(target, Renew) and not target.keep_state
    (target,) = accepted(decided(EMPTIED, erase=True)).targets
    assert isinstance(target, Fresh)


def test_an_installation_cut_short_is_begun_anew_without_a_question() -> None:
    (target,) = accepted(decided(UNFINISHED)).targets
    assert isinstance(target, Fresh)


def test_the_same_build_again_is_nothing_to_do() -> None:
    decision = decided(OURS, build="build1")
    assert decision.possible and decision.plan is None and not decision.effects
    assert "installed on /dev/vda already" in decision.note


@pytest.mark.parametrize(
    ("disk", "booted", "said"),
    [
        (BLANK, "/dev/vda", "this host runs from /dev/vda"),
        (replace(BLANK, in_use=True), "", "is in use"),
        (replace(BLANK, size_bytes=GIB), "", "too small"),
        (replace(BLANK, problem="cannot be read"), "", "cannot be read"),
    ],
)
def test_disks_that_cannot_be_taken(disk: DiskFacts, booted: str, said: str) -> None:
    assert said in why(decided(disk, booted=booted, erase=True))


def test_an_unknown_disk_is_answered_with_those_there_are() -> None:
    decision = plan.install(InstallRequest(disk="serial:two"), facts(BLANK))
    assert "there is no disk 'serial:two' here; disks: /dev/vda (20 GiB, Disk, serial one)" in why(decision)


def test_a_mirror_joins_only_an_installed_host() -> None:
    other = replace(BLANK, device="/dev/vdb", serial="two")
    request = InstallRequest(mirror="serial:two")
    assert "only an installed host" in why(plan.install(request, facts(OURS, other, booted="/dev/vda")))
    found = accepted(plan.install(request, facts(OURS, other, booted="/dev/vda", mirrored=True)))
    assert found.join and found.targets[0].disk.device == "/dev/vdb"


def test_no_disk_is_its_own_mirror() -> None:
    request = InstallRequest(disk="serial:one", mirror="serial:one")
    assert "cannot be its own mirror" in why(plan.install(request, facts(BLANK)))


def test_the_largest_disk_is_one_inside_the_machine_that_nobody_uses() -> None:
    stick = replace(BLANK, device="/dev/sdb", size_bytes=90 * GIB, removable=True)
    busy = replace(BLANK, device="/dev/sdc", size_bytes=80 * GIB, in_use=True)
    mine = replace(BLANK, device="/dev/sdd", size_bytes=70 * GIB)
    assert largest((BLANK, stick, busy, mine), ("/dev/sdd",)) == "/dev/vda"


def test_two_images_have_to_fit() -> None:
    assert not plan.image_fits(200 * MIB)
    assert "do not fit" in plan.image_fits(300 * MIB)[0].message


def test_vms_that_would_be_lost_are_a_warning() -> None:
    found = plan.install(InstallRequest(disk="serial:one"), replace(facts(BLANK), lost_vms=("web1", "db")))
    assert found.possible and found.warnings == ("VMs on a datastore in memory do not come along: web1, db",)
