"""An update from the check to its proof, on boot partitions in directories: what is kept, told and said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from deploy_world import BIOS, UEFI, made, starts, stick

from thimble.contract.common import Task, TaskState
from thimble.contract.deploy import Guests, OutcomeState, Reboot, SlotState, UpdateRequest
from thimble.core.problem import Code, Problem
from thimble.deploy import esp, probe, slots
from thimble.deploy.devices import Devices
from thimble.deploy.image import Image
from thimble.deploy.policy import Restart
from thimble.deploy.slots import Expect
from thimble.deploy.trial import Proof
from thimble.deploy.update import Updates
from thimble.host.pid1 import BootFacts, Medium
from thimble.state.events import Events
from thimble.state.tasks import Progress

BEFORE = Expect(state="partition", datastores=("data",), gateway=True)


class FakeInit:
    """PID 1, of whom only the words are kept."""

    present, searched = True, True
    state = ("partition", "/dev/none")

    def __init__(self, boot: BootFacts) -> None:
        self.words: dict[str, str] = {}
        self.boot = boot
        self.told: list[str] = []

    def tell(self, verb: str, **more: object) -> None:
        self.told.append(verb)


class FakeKeys:
    async def signer(self, image: Path, *, signed: bool) -> str:
        return "tests"


class World:
    """One boot of a host whose boot partition is `root`; `wrong` is what its proof finds."""

    def __init__(self, root: Path, base: Path, image: Image, slot: str, firmware: str) -> None:
        medium = Medium(disk="/dev/none", esp=str(root), kind="disk")
        self.root = root
        self.boot = BootFacts(firmware=firmware, slot=slot, build=image.build, medium=medium)
        self.init: Any = FakeInit(self.boot)
        self.wrong = ""
        self.asked: list[Expect] = []
        self.events = Events(base=1, clock=lambda: 1.0)
        devices = Devices(base / "run", lambda: self.init.state)
        keys: Any = FakeKeys()
        self.updates = Updates(run=base / "run", init=self.init, devices=devices, keys=keys,
                               expect=self._expect, stop_guests=self._stop)  # fmt: skip
        self.proof = Proof(state=base / "state", durable=False, init=self.init, devices=devices,
                           events=self.events, prove=self._prove)  # fmt: skip

    async def _expect(self) -> Expect:
        return BEFORE

    async def _stop(self, timeout: float, guests: object) -> None:
        self.init.told.append("guests")

    async def _prove(self, expect: Expect) -> str:
        self.asked.append(expect)
        return self.wrong

    def update(self, new: Image, **options: Any) -> None:
        request = UpdateRequest(image="upload", **options)

        async def work() -> None:
            progress = Progress(Task(id="t", verb="deploy.update", subject="host", state=TaskState.RUNNING),
                                lambda _: None, lambda _: None)  # fmt: skip
            found = await self.updates.check(new.path, request, self.boot)
            slot = await self.updates.write(found, self.boot, progress)
            trial = await self.updates.offer(slot, "update", self.boot, Reboot.FIRMWARE, progress)
            self.proof.offered(trial)
            how = Restart(vms=Guests.POLICY, reboot=Reboot.FIRMWARE, guest_timeout_s=1.0)
            await self.updates.restart(slot, self.boot, how, progress)

        asyncio.run(work())

    def begin(self) -> None:
        """The agent's start; one that asked for a reboot waits for it for ever."""

        async def work() -> None:
            begun = asyncio.ensure_future(self.proof.begin())
            while not begun.done() and "reboot" not in self.init.told:
                await asyncio.sleep(0.01)
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
            if begun.done() and not begun.cancelled() and begun.exception():
                raise begun.exception() or AssertionError

        asyncio.run(work())


@pytest.fixture
def old(tmp_path: Path) -> Image:
    return made(tmp_path / "old.efi", kernel=b"old")


@pytest.fixture
def new(tmp_path: Path) -> Image:
    return made(tmp_path / "new.efi", version="0.2.0", kernel=b"new" * 999)


@pytest.fixture
def boots(tmp_path: Path, old: Image, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Each call is a boot, with a boot id of its own."""
    root = stick(tmp_path / "esp", old)
    count = 0

    def boot(image: Image, slot: str = "a", firmware: str = UEFI) -> World:
        nonlocal count
        count += 1
        name = f"boot-{count}"
        monkeypatch.setattr(probe, "boot_id", lambda: name)
        monkeypatch.setattr(probe, "size_of", lambda _: 1 << 30)
        return World(root, tmp_path, image, slot, firmware)

    return boot


@pytest.mark.parametrize("firmware", [UEFI, BIOS])
def test_a_good_update_is_confirmed_and_pid_1_hears_of_it(
    boots: Callable[..., World], old: Image, new: Image, firmware: str
) -> None:
    first = boots(old, "a", firmware)
    first.update(new)
    assert first.init.told == ["guests", "reboot"]
    assert first.proof.last is not None and first.proof.last.state is OutcomeState.PENDING
    first.begin()
    assert first.proof.last.state is OutcomeState.PENDING, "in the same boot it is still to come"
    assert starts(first.root, firmware) == "b"
    second = boots(new, "b", firmware)
    second.begin()
    assert second.asked == [BEFORE] and second.init.told == ["confirmed", "say"]
    assert second.proof.last is not None and second.proof.last.state is OutcomeState.CONFIRMED
    assert starts(first.root, BIOS) == starts(first.root, UEFI) == "b"
    third = boots(new, "b", firmware)
    third.begin()
    assert third.asked == [] and third.init.told == []


@pytest.mark.parametrize("firmware", [UEFI, BIOS])
def test_a_bad_update_says_why_and_the_old_slot_knows_it(
    boots: Callable[..., World], old: Image, new: Image, firmware: str
) -> None:
    boots(old, "a", firmware).update(new)
    assert starts(boots(old).root, firmware) == "b"
    second = boots(new, "b", firmware)
    second.wrong = "the gateway does not answer, and did before"
    second.begin()
    assert second.init.told == ["say", "reboot"]
    assert starts(second.root, firmware) == "a"
    third = boots(old, "a", firmware)
    third.begin()
    assert third.proof.last is not None and third.proof.last.state is OutcomeState.FAILED
    (warning,) = third.proof.warnings()
    assert warning == (
        f"the update to 0.2.0 (build {new.build}) did not get confirmed: "
        "the gateway does not answer, and did before"
    )
    assert [slot.state for slot in slots.states(esp.read(third.root), "a")] == [
        SlotState.GOOD,
        SlotState.BAD,
    ]


def test_an_update_that_never_spoke_is_told_as_such(
    boots: Callable[..., World], old: Image, new: Image
) -> None:
    boots(old).update(new)
    last = boots(old)
    while starts(last.root, UEFI) != "a":
        pass
    last.begin()
    assert last.proof.last is not None and "did not get as far as saying why" in last.proof.last.why
    again = boots(old)
    again.begin()
    assert again.proof.warnings(), "until the next one goes well"


def test_a_confirmation_that_was_cut_off_is_finished(
    boots: Callable[..., World], old: Image, new: Image
) -> None:
    boots(old).update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    ops = slots.confirm(esp.read(second.root), "b", UEFI)
    esp.apply(second.root, ops[:1])
    third = boots(new, "b")
    third.begin()
    assert third.proof.last is not None and third.proof.last.state is OutcomeState.CONFIRMED
    assert starts(third.root, BIOS) == starts(third.root, UEFI) == "b"


def test_an_end_that_was_not_noted_is_told_by_what_runs(
    boots: Callable[..., World], old: Image, new: Image
) -> None:
    """The power goes after the confirmation, before its note."""
    boots(old).update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    esp.apply(second.root, slots.confirm(esp.read(second.root), "b", UEFI))
    third = boots(new, "b")
    assert third.proof.last is not None and third.proof.last.state is OutcomeState.PENDING
    third.begin()
    assert third.proof.last.state is OutcomeState.CONFIRMED


def refusal(work: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


def test_what_would_change_nothing_or_go_backwards_is_refused(
    boots: Callable[..., World], old: Image, new: Image
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


def test_a_cd_is_not_updated(boots: Callable[..., World], old: Image, new: Image) -> None:
    world = boots(old)
    world.boot = BootFacts(build=old.build, medium=Medium(disk="/dev/sr0", esp="", kind="cd"))
    problem = refusal(lambda: world.update(new))
    assert "started from a CD" in problem.detail and "Install it on a disk" in problem.hint


def test_rolling_back_needs_a_good_slot(boots: Callable[..., World], old: Image, new: Image) -> None:
    world = boots(old)
    work: Callable[[World], Awaitable[Any]] = lambda w: w.updates.candidate(w.boot)  # noqa: E731
    assert "slot b is empty" in refusal(lambda: asyncio.run(work(world))).detail  # type: ignore[arg-type]
    world.update(new)
    second = boots(new, "b")
    assert starts(second.root, UEFI) == "b"
    second.begin()
    slot, manifest = asyncio.run(second.updates.candidate(second.boot))
    assert (slot, manifest.build) == ("a", old.build)
