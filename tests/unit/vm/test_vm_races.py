"""Verbs that meet: in one breath, over the same name, beside a note, while the host goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_engine import FakeEngine
from msgspec.structs import replace
from vm_table_world import TableWorld, ready

from thimble.contract.common import Task, TaskState
from thimble.contract.vm import Intent, PowerState, VmChange, VmCreate
from thimble.core.problem import Code, Problem
from thimble.core.units import GIB, MIB
from thimble.storage.attachments import Attachments, Ports
from thimble.vm.record.lifecycle import Verb
from thimble.vm.shutdown import Shutdown
from thimble.vm.verbs.create import Create
from thimble.vm.verbs.power import Power
from thimble.vm.verbs.reconfigure import Reconfigure
from thimble.vm.verbs.wanted import Wanted


class Races(TableWorld):
    """`vm-1`, stopped; verbs over a host whose QEMU is made up."""

    def __init__(self, where: Path, state: PowerState = PowerState.STOPPED, **fields: Any) -> None:
        super().__init__(where, state, ready(**fields), memory=lambda: (8 * GIB, 4 * GIB))
        self.driver = self.add("vm-1", state, engine=cast(Any, FakeEngine))
        storage: Any = self.context.storage
        storage.attachments = Attachments(Ports())
        storage.check_home = storage.check_disk = storage.check_image = lambda *_, **__: []
        storage.disk_warnings = lambda *_, **__: []
        self.context.network = cast(
            Any,
            SimpleNamespace(check_nic=lambda *_, **__: [], close_port=_nothing, address_for=lambda *_: ""),
        )
        storage.forget_volumes = _nothing
        wanted = Wanted(self.table)
        self.power = Power(self.table)
        self.create = Create(self.table, self.power, wanted)
        self.reconfigure = Reconfigure(self.table, wanted)
        self.shutdown = Shutdown(self.table, self.power)

    async def more(self, id: str, name: str) -> None:
        await self.table._store.commit(id, ready(name), root="local")
        self.add(id, PowerState.STOPPED, engine=cast(Any, FakeEngine))

    async def ended(self, answer: Any) -> Task:
        return await self.context.tasks.wait(answer.task.id, 10)

    async def close(self) -> None:
        await self.context.background.close()
        for driver in list(self.table.drivers.values()):
            await driver.close()


async def _nothing(*_: object, **__: object) -> None:
    pass


def told(story: Callable[[Races], Coroutine[Any, Any, None]], where: Path, **more: Any) -> None:
    async def whole() -> None:
        world = Races(where, **more)
        try:
            async with asyncio.timeout(20):
                await story(world)
        finally:
            await world.close()

    asyncio.run(whole())


def test_a_start_and_a_delete_in_one_breath(tmp_path: Path) -> None:
    """The second is refused with the reason; before, the start met a VM that was being deleted: INTERNAL."""

    async def story(world: Races) -> None:
        start = await world.power.start(world.call())
        with pytest.raises(Problem, match="stop it first") as caught:
            await world.reconfigure.delete(world.call())
        assert caught.value.code is Code.CONFLICT
        assert (await world.ended(start)).state is TaskState.DONE
        assert world.driver.status.state is PowerState.RUNNING

    told(story, tmp_path)


def test_a_delete_and_a_start_in_one_breath(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        results = await asyncio.gather(
            world.reconfigure.delete(world.call()), world.power.start(world.call()), return_exceptions=True
        )
        assert isinstance(results[1], Problem) and results[1].code is Code.CONFLICT
        assert (await world.ended(results[0])).state is TaskState.DONE
        assert world.table.find("vm-1") is None

    told(story, tmp_path)


def test_what_was_accepted_before_is_refused_and_no_fault_where_it_is_too_late(tmp_path: Path) -> None:
    """The decision is made again in the VM's queue: a refusal comes out of it, not an exception of ours."""

    async def story(world: Races) -> None:
        await world.driver.became(PowerState.DELETING)
        with pytest.raises(Problem, match="being deleted") as caught:
            await world.driver.start(cast(Any, None))
        assert caught.value.code is Code.CONFLICT

    told(story, tmp_path)


def test_a_kill_right_behind_a_start_is_not_lost(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        start = await world.power.start(world.call())
        kill = await world.power.kill(world.call())
        assert (await world.ended(kill)).state is TaskState.DONE
        await world.ended(start)
        assert world.driver.status.state is PowerState.STOPPED
        assert world.table.get("vm-1").value.noted.intent is Intent.STOPPED

    told(story, tmp_path)


def test_of_two_creates_with_one_name_one_is_refused(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        calls = [world.create.create(world.call(VmCreate(name="twin"))) for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in results if isinstance(one, Problem)]
        assert [problem.code for problem in refused] == [Code.EXISTS]
        assert len([r for r in world.table.all() if r.value.spec.name == "twin"]) == 1
        for one in results:
            if not isinstance(one, BaseException):
                await world.ended(one)

    told(story, tmp_path)


def test_of_two_changes_to_one_name_one_is_refused(tmp_path: Path) -> None:
    """Both were accepted, for the name was free; it is taken when the second one commits."""

    async def story(world: Races) -> None:
        await world.more("vm-2", "other")
        answers = [
            await world.reconfigure.change(world.call(VmChange(name="twin"), ref)) for ref in ("vm-1", "vm-2")
        ]
        tasks = [await world.ended(answer) for answer in answers]
        assert sorted(task.state for task in tasks) == [TaskState.DONE, TaskState.FAILED]
        (failed,) = [task for task in tasks if task.problem]
        assert failed.problem is not None and failed.problem.code is Code.EXISTS
        assert sorted(r.value.spec.name for r in world.table.all()) in (["other", "twin"], ["twin", "web"])

    told(story, tmp_path)


def test_a_note_neither_breaks_a_change_nor_raises_what_clients_hold(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        seen = world.table.get("vm-1").value.generation
        answer = await world.reconfigure.change(world.call(VmChange(description="new"), if_match=seen))
        await world.ended(await world.power.start(world.call()))  # notes the intent meanwhile
        await world.table.pin("vm-1", "pc-q35-10.0")
        assert (await world.ended(answer)).state is TaskState.DONE
        record = world.table.get("vm-1").value
        assert (record.generation, record.spec.description) == (seen + 1, "new")
        assert record.assigned.machine_type == "pc-q35-10.0"
        assert record.noted.intent is Intent.RUNNING
        with pytest.raises(Problem) as caught:
            await world.reconfigure.change(world.call(VmChange(description="late"), if_match=seen))
        assert caught.value.code is Code.STALE

    told(story, tmp_path)


def test_starts_in_a_row_are_promised_memory_once(tmp_path: Path) -> None:
    """QEMU takes memory as the guest touches it: what is available tells nothing of what was promised."""

    async def story(world: Races) -> None:
        for n in range(2, 8):
            await world.more(f"vm-{n}", f"web{n}")
        size = 1024 * MIB
        for record in world.table.all():
            spec = replace(record.value.spec, memory_mib=size // MIB)
            await world.table._store.commit(record.id, replace(record.value, spec=spec))
        accepted, refused = [], []
        for record in world.table.all():
            try:
                accepted.append(await world.power.start(world.call(ref=record.id)))
            except Problem as problem:
                refused.append(problem.code)
        assert len(accepted) == 4 * GIB // (size + 64 * MIB) == 3
        assert set(refused) == {Code.NO_MEMORY}
        for answer in accepted:
            assert (await world.ended(answer)).state is TaskState.DONE

    told(story, tmp_path)


def test_a_host_that_stays_up_lets_vms_start_again(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        await world.shutdown.stop_all(0, None)
        with pytest.raises(Problem, match="going down"):
            await world.power.start(world.call())
        world.shutdown.stay_up()
        assert (await world.ended(await world.power.start(world.call()))).state is TaskState.DONE

    told(story, tmp_path)


def test_a_crash_restart_and_a_delete_do_not_meet(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        with world.driver.holding(Verb.START), pytest.raises(Problem) as caught:  # as a restart does
            await world.reconfigure.delete(world.call())
        assert caught.value.code is Code.CONFLICT

    told(story, tmp_path, state=PowerState.CRASHED)


def test_what_is_being_changed_is_not_deleted_meanwhile(tmp_path: Path) -> None:
    async def story(world: Races) -> None:
        change = await world.reconfigure.change(world.call(VmChange(description="new")))
        with pytest.raises(Problem, match="being changed") as caught:
            await world.reconfigure.delete(world.call())
        assert caught.value.code is Code.CONFLICT
        assert (await world.ended(change)).state is TaskState.DONE
        assert (await world.ended(await world.reconfigure.delete(world.call()))).state is TaskState.DONE

    told(story, tmp_path)
