"""The agent dies at every step of a save and of a resume in turn. The guest's memory is never lost and never
used twice: with the next agent it counts on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_vm_faults import qemus
from test_vm_save import counting, file, goes_on_counting
from vm_world import World, exit_code, needs_root

from thimble.contract.common import TaskState
from thimble.contract.vm import Intent, PowerState
from thimble.vm.qemu.saved_file import StateFile

S, I = PowerState, Intent  # noqa: E741
RUNS = (S.RUNNING, I.RUNNING)
SAVED = (S.SAVED, I.STOPPED)

#: Where it dies, and what the next agent makes of it. Steps that leave the same behind stand here once.
POINTS = {
    "vm.save/freeze.done": RUNS,
    "vm.save/write.done": RUNS,
    "vm.save/commit.done": SAVED,
    "vm.save/quit.done": SAVED,
    "vm.start/spawn.done": RUNS,
    "vm.start/load.done": RUNS,
    "after use": RUNS,
    "before drop": RUNS,
}


def dies_at(root: Path, point: str) -> None:
    """An agent in a process of its own saves a VM that counts, lets it go on, and ends at `point`."""
    armed = False

    def strike(at: str) -> None:
        if armed and at == point:
            os._exit(137)

    def struck(method: Callable[[StateFile], None], before: str, after: str) -> Callable[[StateFile], None]:
        def stand_in(file: StateFile) -> None:
            strike(before)
            method(file)
            strike(after)

        return stand_in

    async def live() -> None:
        nonlocal armed
        world = await World(root, fault=strike).open()
        id = await counting(world)
        armed = point.startswith("vm.save")
        await world.done(await world.vms.power.save(world.call(id)))
        armed = True
        StateFile.use = struck(StateFile.use, "before use", "after use")  # type: ignore[method-assign]
        StateFile.drop = struck(StateFile.drop, "before drop", "after drop")  # type: ignore[method-assign]
        await world.start(id)

    assert exit_code(live()) == 137, f"{point} was never reached"


@needs_root
@pytest.mark.parametrize("point", POINTS)
def test_a_guest_counts_on_wherever_the_agent_died(tmp_path: Path, point: str) -> None:
    dies_at(tmp_path, point)

    async def afterwards() -> None:
        world = await World(tmp_path).open()
        for task in world.tasks.all():
            assert (await world.tasks.wait(task.id, 60)).state is TaskState.DONE
        vm = await world.get("web1")
        assert (vm.status.state, vm.intent) == POINTS[point], vm.status
        assert qemus(tmp_path) == ([vm.status.pid] if vm.status.pid else [])
        if vm.status.state is S.SAVED:
            assert file(world, vm.id).exists()
            await world.start(vm.id)
        assert list(file(world, vm.id).parent.glob("*.state*")) == []
        await goes_on_counting(world, vm.id)
        await world.done(await world.vms.power.kill(world.call(vm.id)))
        await world.gone()

    try:
        asyncio.run(afterwards())
    finally:
        for pid in qemus(tmp_path):
            os.kill(pid, signal.SIGKILL)
