"""VMs on a datastore that comes after the agent's start: they start with the host all the same."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from fake_engine import FakeEngine
from msgspec.structs import replace
from test_vm_races import Races
from vm_table_world import ready

from thimble.contract.vm import Autostart, Intent, PowerState
from thimble.state.store import Collection
from thimble.vm import startup
from thimble.vm.driver import Driver
from thimble.vm.record.spec import VmRecord
from thimble.vm.record.upgrades import UPGRADES


def disk(where: Path) -> Path:
    """A datastore with two VMs that start with the host, the second one first."""
    home = where / "late" / "vms"
    records: Collection[VmRecord] = Collection(
        VmRecord, noun="VM", inside="vm.json", upgrades=UPGRADES, durable=False
    )
    records.add_root("late", home)
    for n, order in ((1, 200), (2, 100)):
        made = ready(f"late{n}", intent=Intent.STOPPED)
        spec = replace(made.spec, autostart=Autostart(enabled=True, order=order))
        given = replace(made.assigned, uuid=f"uuid-{n}", uid=100_010 + n)
        records.put(f"vm-late{n}", replace(made, spec=spec, assigned=given), root="late")
    return home


@pytest.fixture(autouse=True)
def _engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "Driver", partial(Driver, engine=cast(Any, FakeEngine)))
    monkeypatch.setattr(startup.qmp, "warm", lambda: None)


def story(where: Path, monkeypatch: pytest.MonkeyPatch, *, again: bool = False) -> list[str]:
    """The names of the VMs in the order in which they were started."""
    home = disk(where)

    async def whole() -> list[str]:
        world = Races(where)
        homes = {"local": where / "vms"}
        world.context.storage.homes = lambda: homes  # type: ignore[method-assign]
        made = startup.Startup(world.table, world.power, world.create, world.reconfigure)
        if again:
            made._mark.parent.mkdir(parents=True, exist_ok=True)
            made._mark.touch()
        started: list[str] = []
        world.context.events.listen(
            lambda event: started.append(event.subject)
            if event.kind == "vm.changed" and event.detail.get("state") == PowerState.STARTING
            else None
        )
        try:
            async with asyncio.timeout(20):
                await made.open()
                await made.autostart()
                homes["late"] = home
                await made._bring("late", home)  # as the event of a datastore that was mounted does
        finally:
            await world.close()
        return started

    return asyncio.run(whole())


def test_they_start_in_their_order_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert story(tmp_path, monkeypatch) == ["vm-late2", "vm-late1"]


def test_a_new_agent_on_a_running_host_starts_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert story(tmp_path, monkeypatch, again=True) == []


def test_a_datastore_that_hangs_holds_up_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        world = Races(tmp_path)
        homes = {"local": tmp_path / "vms", "dead": tmp_path / "dead", "late": disk(tmp_path)}
        world.context.storage.homes = lambda: homes  # type: ignore[method-assign]
        real = world.table.bring

        async def bring(name: str, home: Path) -> Any:
            if name == "dead":
                await asyncio.Event().wait()
            return await real(name, home)

        monkeypatch.setattr(world.table, "bring", bring)
        made = startup.Startup(world.table, world.power, world.create, world.reconfigure)
        try:
            async with asyncio.timeout(10):
                made._look_at_datastores()
                while "vm-late1" not in world.table.drivers:
                    await asyncio.sleep(0)
        finally:
            await world.close()

    asyncio.run(whole())
    shutil.rmtree(tmp_path / "late")
