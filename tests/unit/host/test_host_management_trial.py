"""New settings of the management network that are undone unless somebody confirms them over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from first_process import FirstProcess, now

from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.management import ManagementChange
from thimble.core.problem import Code, Problem
from thimble.host.management import ManagementService
from thimble.host.pid1 import Init
from thimble.host.rules import confirm_reasons, trial_reasons
from thimble.state.events import Events

NEW = "10.0.0.6/24"
OUTSIDE = "10.0.0.99"


class Desk:
    """A service and the process it talks to."""

    def __init__(self, tmp_path: Path, **how: Any) -> None:
        self.state, self.run = tmp_path / "state", tmp_path
        self.first = FirstProcess(tmp_path, **how)
        self.events = Events(base=0, clock=lambda: 0.0)
        self.service = self.again()

    def again(self) -> ManagementService:
        """The agent's successor."""
        return ManagementService(self.state, Init(self.run), self.events, durable=False)

    async def change(self, *, dry_run: bool = False, within: int = 60, **fields: Any) -> Any:
        wanted = ManagementChange(confirm_within=within, **fields)
        return await self.service.change(Call(input=wanted, dry_run=dry_run, user="admin"))

    async def confirm(self, *, peer: str = OUTSIDE, since: float | None = None, dry_run: bool = False) -> Any:
        since = now() if since is None else since
        return await self.service.confirm(Call(input=None, peer=peer, since=since, dry_run=dry_run))

    async def undo(self) -> Any:
        return await self.service.undo(Call(input=None))

    @property
    def kept(self) -> bool:
        return (self.state / "management/management.json").exists()

    @property
    def told(self) -> list[str]:
        return [event.kind for event in self.events.since(0)]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(**how: Any) -> Desk:
        desks.append(Desk(tmp_path, **how))
        return desks[-1]

    yield make
    for desk in desks:
        desk.first.close()


def story(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@asynccontextmanager
async def refused(code: Code, word: str) -> AsyncIterator[None]:
    with pytest.raises(Problem) as caught:
        yield
    assert caught.value.code is code and word in caught.value.detail, caught.value.detail


def test_unconfirmed_settings_are_in_force_and_not_in_the_record(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        answer = await desk.change(address=NEW)
        assert (answer.rev, answer.settings.address) == (0, NEW)
        assert answer.pending.previous.address == "dhcp"
        assert 50 < answer.pending.left_s <= 60 and answer.pending.in_force
        assert desk.first.heard[0]["trial"]["address"] == NEW and desk.first.heard[0]["seconds"] == 60
        assert not desk.kept and desk.service.settings.address == "dhcp"
        assert desk.told == ["management.pending"]

    story(work())


def test_a_connection_made_after_the_change_confirms_it(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        await desk.change(address=NEW)
        assert (await desk.confirm(dry_run=True)).possible
        assert not desk.kept
        answer = await desk.confirm()
        assert (answer.rev, answer.settings.address, answer.pending) == (1, NEW, None)
        assert desk.kept and desk.first.heard[-1] == {"verb": "network"}
        assert desk.told == ["management.pending", "management.confirmed"]

    story(work())


def test_a_connection_made_before_the_change_proves_nothing(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk, before = made(), now()
        await desk.change(address=NEW)
        async with refused(Code.CONFLICT, "before the change"):
            await desk.confirm(since=before)
        assert not desk.kept and desk.first.trial is not None

    story(work())


def test_while_the_old_address_still_answers_nothing_is_proven(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made(settles=False)
        await desk.change(address=NEW)
        async with refused(Code.CONFLICT, "not in force yet"):
            await desk.confirm()
        desk.first.settle()
        assert (await desk.confirm()).pending is None

    story(work())


def test_who_is_at_the_console_may_keep_what_nobody_has_reached(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made(settles=False)
        await desk.change(address=NEW)
        await desk.confirm(peer="127.0.0.1", since=0.0)
        assert desk.kept
        (_, confirmed) = desk.events.since(0)
        assert confirmed.detail["over"] == "the host itself"

    story(work())


def test_undo_takes_it_back_at_once(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        await desk.change(address=NEW)
        answer = await desk.undo()
        assert (answer.settings.address, answer.pending, desk.kept) == ("dhcp", None, False)
        assert desk.told == ["management.pending", "management.undone"]
        async with refused(Code.CONFLICT, "wait for it"):
            await desk.undo()
        async with refused(Code.CONFLICT, "wait for it"):
            await desk.confirm()

    story(work())


def test_what_nobody_confirms_is_told_when_it_is_undone(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        await desk.change(address=NEW, within=10)
        assert desk.first.trial is not None
        desk.first.trial = desk.first.trial | {"deadline": now()}
        desk.first.settle()
        async with refused(Code.CONFLICT, "wait for it"):  # the time is up, though PID 1 has not said so
            await desk.confirm()
        desk.service = desk.again()  # an agent that died meanwhile: the next one goes on watching
        desk.service.watch()
        desk.first.undo()
        while len(desk.told) < 2:
            await asyncio.sleep(0.01)
        assert desk.told == ["management.pending", "management.undone"]
        assert desk.service.view().settings.address == "dhcp"

    story(work())


def test_one_change_at_a_time_waits_for_its_confirmation(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        await desk.change(address=NEW)
        for within in (0, 60):
            async with refused(Code.CONFLICT, "confirm it or undo it first"):
                await desk.change(vlan=7, within=within)
        assert not (await desk.change(vlan=7, dry_run=True)).possible

    story(work())


def test_a_revision_that_is_not_the_present_one_is_refused(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        await desk.change(address=NEW)
        for verb in (desk.service.confirm, desk.service.undo):
            async with refused(Code.STALE, "revision 0"):
                await verb(Call(input=None, if_match=4, peer=OUTSIDE, since=now()))

    story(work())


def test_a_dry_run_says_that_it_is_undone(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        told = await desk.change(address=NEW, dry_run=True)
        assert isinstance(told, DryRun) and told.possible and desk.first.heard == []
        assert told.effects[-1].what == "undoes that after 60 s unless it is confirmed"

    story(work())


def test_where_the_kernel_command_line_decides_nothing_can_be_tried(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made(words={"ip": "dhcp"})
        async with refused(Code.CONFLICT, "command line"):
            await desk.change(address=NEW)
        kept = await desk.change(address=NEW, within=0, dry_run=True)
        assert kept.possible and "in force without it" in kept.warnings[0]

    story(work())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"seconds": 9, "decided": False, "nic": ""}, "too short"),
        ({"seconds": 60, "decided": True, "nic": ""}, "`ip=`"),
        ({"seconds": 60, "decided": False, "nic": "52:54:00:00:00:09"}, "no network card"),
    ],
)
def test_what_cannot_be_tried_is_refused(given: dict[str, Any], word: str) -> None:
    (reason,) = trial_reasons(**given, nics=("52:54:00:00:00:01",))
    assert word in reason.message


def test_what_can_be_tried_and_confirmed_is_not() -> None:
    mac = "52:54:00:00:00:01"
    assert trial_reasons(10, decided=False, nic=mac, nics=(mac,)) == []
    assert confirm_reasons(in_force=5.0, since=5.1, console=False, problem="") == []


def test_of_two_changes_at_once_one_is_tried_and_the_other_refused(made: Callable[..., Desk]) -> None:
    async def work() -> None:
        desk = made()
        both = await asyncio.gather(
            desk.change(address=NEW), desk.change(address="10.0.0.7/24"), return_exceptions=True
        )
        refusals = [one for one in both if isinstance(one, Problem)]
        assert [problem.code for problem in refusals] == [Code.CONFLICT]
        assert len(desk.first.heard) == 1, "PID 1 heard of one"

    story(work())
