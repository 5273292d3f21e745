"""Update and rollback from the request to the trial boot's end, on boot partitions in directories."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from deploy_world import BIOS, UEFI, FakeHealth, FakeInit, context, finished, made, starts, stick

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.deploy import (
    Guests,
    Outcome,
    OutcomeState,
    Reboot,
    RollbackRequest,
    SlotState,
    UpdateRequest,
)
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Code, Problem
from thimble.deploy import esp, slots, sysfs, this_boot
from thimble.deploy.boot_files import Expect
from thimble.deploy.image import BootImage
from thimble.deploy.service import DeployService
from thimble.host.pid1 import BootFacts, Medium

BEFORE = Expect(state="partition", datastores=("data",), gateway=True)


class World:
    """One boot of a host whose boot partition is `root`; `wrong` is what its trial boot finds."""

    def __init__(self, root: Path, base: Path, image: BootImage, slot: str, firmware: str) -> None:
        medium = Medium(disk="/dev/none", esp=str(root), kind="disk")
        self.root = root
        self.init = FakeInit(BootFacts(firmware=firmware, slot=slot, build=image.build, medium=medium))
        self.health = FakeHealth(BEFORE)
        self.deploy = context(base, self.init, health=self.health)
        self.service = DeployService(self.deploy)

    @property
    def last(self) -> Outcome | None:
        return self.deploy.trial.last

    def update(self, new: BootImage, **options: Any) -> None:
        """The whole verb. Raises its `Problem`, or its task's."""
        uploaded = self.deploy.images.uploaded
        uploaded.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(new.path, uploaded)
        request = UpdateRequest(image="upload", **({"reboot": Reboot.FIRMWARE} | options))
        finished(self.deploy, lambda: self.service.update(Call(input=request)))

    def rollback(self) -> None:
        request = RollbackRequest(reboot=Reboot.FIRMWARE)
        finished(self.deploy, lambda: self.service.rollback(Call(input=request)))

    def begin(self) -> None:
        """The agent's start; one that asked for a reboot waits for it for ever."""

        async def work() -> None:
            rebooting = self.init.rebooting = asyncio.Event()
            begun = asyncio.ensure_future(self.service.begin())
            asked = asyncio.ensure_future(rebooting.wait())
            await asyncio.wait({begun, asked}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            asked.cancel()
            if not begun.done():
                assert rebooting.is_set(), "it neither ended nor asked for a reboot"
                begun.cancel()
            with suppress(asyncio.CancelledError):
                await begun

        asyncio.run(work())


@pytest.fixture
def old(tmp_path: Path) -> BootImage:
    return made(tmp_path / "old.efi", kernel=b"old")


@pytest.fixture
def new(tmp_path: Path) -> BootImage:
    return made(tmp_path / "new.efi", version="0.2.0", kernel=b"new" * 999)


@pytest.fixture
def boots(tmp_path: Path, old: BootImage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Each call is a boot, with a boot id of its own."""
    root = stick(tmp_path / "esp", old)
    count = 0

    def boot(image: BootImage, slot: str = "a", firmware: str = UEFI) -> World:
        nonlocal count
        count += 1
        name = f"boot-{count}"
        monkeypatch.setattr(this_boot, "boot_id", lambda: name)
        monkeypatch.setattr(sysfs, "size_of", lambda _: 1 << 30)
        return World(root, tmp_path, image, slot, firmware)

    return boot


@pytest.mark.parametrize("firmware", [UEFI, BIOS])
def test_a_good_update_is_confirmed_and_pid_1_hears_of_it(
    boots: Callable[..., World], old: BootImage, new: BootImage, firmware: str
) -> None:
    first = boots(old, "a", firmware)
    first.update(new)
    assert first.init.told == ["guests", "reboot"]
    assert first.last is not None and first.last.state is OutcomeState.PENDING
    first.begin()
    assert first.last.state is OutcomeState.PENDING, "in the same boot it is still to come"
    assert starts(first.root, firmware) == "b"
    second = boots(new, "b", firmware)
    second.begin()
    assert second.health.asked == [BEFORE] and second.init.told == ["confirmed", "say"]
    assert second.last is not None and second.last.state is OutcomeState.CONFIRMED
    assert starts(first.root, BIOS) == starts(first.root, UEFI) == "b"
    third = boots(new, "b", firmware)
    third.begin()
    assert third.health.asked == [] and third.init.told == []


@pytest.mark.parametrize("firmware", [UEFI, BIOS])
def test_a_bad_update_says_why_and_the_old_slot_knows_it(
    boots: Callable[..., World], old: BootImage, new: BootImage, firmware: str
) -> None:
    boots(old, "a", firmware).update(new)
    assert starts(boots(old).root, firmware) == "b"
    second = boots(new, "b", firmware)
    second.health.wrong = "the gateway does not answer, and did before"
    second.begin()
    assert second.init.told == ["say", "reboot"]
    assert starts(second.root, firmware) == "a"
    third = boots(old, "a", firmware)
    third.begin()
    assert third.last is not None and third.last.state is OutcomeState.FAILED
    (warning,) = third.service.warnings()
    assert warning == (
        f"the update to 0.2.0 (build {new.build}) did not get confirmed: "
        "the gateway does not answer, and did before"
    )
    assert [slot.state for slot in slots.states(esp.read(third.root), "a")] == [
        SlotState.GOOD,
        SlotState.BAD,
    ]


def test_an_update_that_never_spoke_is_told_as_such(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    boots(old).update(new)
    last = boots(old)
    while starts(last.root, UEFI) != "a":
        pass
    last.begin()
    assert last.last is not None and "did not get as far as saying why" in last.last.why
    again = boots(old)
    again.begin()
    assert again.service.warnings(), "until the next one goes well"


def test_a_confirmation_that_was_cut_off_is_finished(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    boots(old).update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    ops = slots.confirm(esp.read(second.root), "b", UEFI)
    esp.apply(second.root, ops[:1])
    third = boots(new, "b")
    third.begin()
    assert third.last is not None and third.last.state is OutcomeState.CONFIRMED
    assert starts(third.root, BIOS) == starts(third.root, UEFI) == "b"


def test_an_end_that_was_not_noted_is_told_by_what_runs(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    """The power goes after the confirmation, before its note."""
    boots(old).update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    esp.apply(second.root, slots.confirm(esp.read(second.root), "b", UEFI))
    third = boots(new, "b")
    assert third.last is not None and third.last.state is OutcomeState.PENDING
    third.begin()
    assert third.last.state is OutcomeState.CONFIRMED


def refusal(work: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


def test_what_would_change_nothing_or_go_backwards_is_refused(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    world = boots(old)
    problem = refusal(lambda: world.update(old))
    assert problem.code is Code.CONFLICT and "is running already" in problem.reasons[0].message
    older = made(old.path.with_name("older.efi"), version="0.0.9", kernel=b"older")
    problem = refusal(lambda: world.update(older))
    assert "0.0.9 is older than 0.1.0" in problem.reasons[0].message
    before = esp.read(world.root)
    assert starts(world.root, UEFI) == "a" and esp.read(world.root) == before
    world.update(older, allow_older=True)
    assert starts(world.root, UEFI) == "b"


def test_a_cd_is_not_updated(boots: Callable[..., World], old: BootImage, new: BootImage) -> None:
    world = boots(old)
    world.init.boot = BootFacts(build=old.build, medium=Medium(disk="/dev/sr0", esp="", kind="cd"))
    problem = refusal(lambda: world.update(new))
    assert "started from a CD" in problem.detail and "Install it on a disk" in problem.hint


def test_rolling_back_needs_a_good_slot(boots: Callable[..., World], old: BootImage, new: BootImage) -> None:
    world = boots(old)
    problem = refusal(world.rollback)
    assert problem.code is Code.CONFLICT and "slot b is empty" in problem.detail and problem.hint
    world.update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    second.begin()
    second.init.told.clear()
    second.rollback()
    assert second.init.told == ["guests", "reboot"]
    assert second.last is not None and (second.last.kind, second.last.build) == ("rollback", old.build)
    assert starts(second.root, UEFI) == "a"


def told(world: World, call: Call[Any], verb: str = "update") -> DryRun:
    answer: DryRun = asyncio.run(getattr(world.service, verb)(call))
    assert isinstance(answer, DryRun)
    return answer


def test_a_dry_run_tells_what_the_act_does_and_changes_nothing(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    world = boots(old)
    before = esp.read(world.root)
    world.deploy.images.uploaded.parent.mkdir(parents=True)
    shutil.copyfile(new.path, world.deploy.images.uploaded)
    request = UpdateRequest(image="upload", vms=Guests.SAVE, reboot=Reboot.FIRMWARE)
    found = told(world, Call(input=request, dry_run=True))
    assert found.possible and [effect.what for effect in found.effects] == [
        f"writes 0.2.0 (build {new.build}) into the slot that does not run",
        "saves the VMs and reboots into it; goes back unless it is good",
    ]
    found = told(world, Call(input=UpdateRequest(image="https://h/x.efi"), dry_run=True))
    assert found.possible and found.effects[0].what == "fetches https://h/x.efi, and checks it"
    found = told(world, Call(input=UpdateRequest(), dry_run=True))
    assert not found.possible and "no image is named" in found.blockers[0].message
    found = told(world, Call(input=RollbackRequest(), dry_run=True), "rollback")
    assert not found.possible and "slot b is empty" in found.blockers[0].message
    assert esp.read(world.root) == before and world.init.told == [] and world.last is None


def test_while_one_is_at_work_another_is_refused(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    world = boots(old)

    async def story() -> None:
        async with world.deploy.turn("deploy.install"):
            call = Call(input=UpdateRequest(image="https://h/x.efi"))
            with pytest.raises(Problem, match="deploy.install is at work") as caught:
                await world.service.update(call)
            assert caught.value.code is Code.CONFLICT and "thimble task list" in caught.value.hint
            found = await world.service.update(Call(input=call.input, dry_run=True))
            assert isinstance(found, DryRun) and not found.possible
            with pytest.raises(Problem, match="at work"):
                async with world.deploy.turn("deploy.rollback"):
                    raise AssertionError("it was not its turn")
        async with world.deploy.turn("deploy.rollback"):
            pass

    asyncio.run(story())


@pytest.mark.parametrize(
    ("vms", "how"),
    [(Guests.POLICY, None), (Guests.SAVE, HostShutdown.SAVE), (Guests.SHUTDOWN, HostShutdown.SHUTDOWN)],
)
def test_vms_go_down_as_the_request_says(
    boots: Callable[..., World], old: BootImage, new: BootImage, vms: Guests, how: HostShutdown | None
) -> None:
    world = boots(old)
    world.update(new, vms=vms, guest_timeout_s=7.0)
    assert world.init.stopped == [(7.0, how)]


def test_an_update_for_the_next_reboot_leaves_the_vms_alone(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    world = boots(old)
    world.update(new, reboot=Reboot.NONE)
    assert world.init.told == [] and starts(world.root, UEFI) == "b"


def test_when_the_host_does_not_go_down_after_all_the_vms_may_run_again(
    boots: Callable[..., World], old: BootImage, new: BootImage
) -> None:
    world = boots(old)
    world.init.deaf_to = ("reboot",)
    assert refusal(lambda: world.update(new)).code is Code.UNAVAILABLE
    assert world.init.told == ["guests", "reboot"] and world.init.stopped == []
    assert starts(world.root, UEFI) == "b", "the next reboot starts it"
