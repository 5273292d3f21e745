"""The life of a VM on real QEMU."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from vm_world import DEADLINE_S, FIRST_LINE, World, in_world

from thimble.contract.common import TaskState
from thimble.contract.vm import CrashPolicy, DeleteRequest, Intent, Machine, PowerState, StopRequest
from thimble.core.problem import Code
from thimble.vm import monitor


@in_world
async def test_a_created_vm_starts_speaks_and_shuts_down_when_asked(world: World) -> None:
    id = await world.create(world.tiny())
    assert (await world.get("web1")).status.state is PowerState.STOPPED
    task = await world.start(id)
    assert "TCG" in task.result["warning"]
    vm = await world.get(id)
    assert (vm.status.state, vm.status.accel, vm.intent) == (PowerState.RUNNING, "tcg", Intent.RUNNING)
    await world.says(id, FIRST_LINE)
    await world.says(id, "tiny# ")
    await world.done(await world.vms.power.stop(world.call(id, StopRequest(timeout_s=30))))
    vm = await world.get(id)
    assert (vm.status.state, vm.status.why, vm.intent) == (PowerState.STOPPED, "", Intent.STOPPED)


@in_world
async def test_a_microvm_starts_and_is_killed(world: World) -> None:
    id = await world.create(world.tiny(machine=Machine.MICROVM))
    await world.start(id)
    await world.says(id, FIRST_LINE)
    await world.done(await world.vms.power.kill(world.call(id)))
    assert (await world.get(id)).status.state is PowerState.STOPPED
    assert world.pids() == []


@in_world
async def test_a_guest_that_ignores_its_power_button_is_left_running_and_told_so(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    task = await world.ended(await world.vms.power.stop(world.call(id, StopRequest(timeout_s=0))))
    assert task.state is TaskState.FAILED
    assert task.problem is not None
    assert task.problem.code is Code.TIMEOUT
    vm = await world.get(id)
    assert vm.status.state is PowerState.RUNNING
    assert "runs on" in vm.status.why


@in_world
async def test_a_qemu_that_dies_is_started_again(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    await world.says(id, FIRST_LINE)
    log = world.vms.table.drivers[id].rundir.serial_log
    while FIRST_LINE not in log.read_text(errors="replace"):  # QEMU writes to its log behind the socket
        await asyncio.sleep(0)
    os.kill(world.pids()[0], signal.SIGKILL)
    vm = await world.state(id, PowerState.CRASHED)
    assert "QEMU died; starts again in 1.0 s" in vm.status.why
    assert FIRST_LINE in vm.status.last_output
    vm = await world.state(id, PowerState.RUNNING)
    assert vm.status.restarts == 1


@in_world
async def test_a_qemu_that_dies_stays_dead_if_the_policy_says_so(world: World) -> None:
    id = await world.create(world.tiny(on_crash=CrashPolicy.STOP))
    await world.start(id)
    os.kill(world.pids()[0], signal.SIGKILL)
    vm = await world.state(id, PowerState.CRASHED)
    assert vm.status.why == "QEMU died"
    await world.done(await world.vms.reconfigure.delete(world.call(id, DeleteRequest())))
    assert (await world.vms.read.list(world.call())).vms == ()


@in_world
async def test_a_restarted_agent_takes_its_vm_in_hand_again(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    await world.says(id, FIRST_LINE)
    before = (await world.get(id)).status
    await world.gone()
    again = await World(world.root).open()
    vm = await again.get(id)
    assert (vm.status.state, vm.status.pid) == (PowerState.RUNNING, before.pid)
    await again.says(id, FIRST_LINE)
    await again.says(id, "tiny# ")
    await again.types(id, "echo still $((6*7))\n")
    await again.says(id, "still 42")
    await again.done(await again.vms.power.stop(again.call(id, StopRequest(timeout_s=30))))
    assert (await again.get(id)).status.state is PowerState.STOPPED
    await again.gone()


@in_world
async def test_a_qemu_that_was_frozen_when_the_agent_came_answers_later(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    pid = (await world.get(id)).status.pid
    assert pid is not None
    await world.gone()
    os.kill(pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "ADOPT_S", 0.5)
        again = await World(world.root).open()
    assert (await again.get(id)).status.why == monitor.SILENT
    os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(DEADLINE_S):
        follow = again.events.follow(again.events.rev)
        while (await again.get(id)).status.why:
            await anext(follow)
    await again.done(await again.vms.power.pause(again.call(id)))
    assert (await again.get(id)).status.state is PowerState.PAUSED
    await again.done(await again.vms.power.kill(again.call(id)))
    await again.gone()


@in_world
async def test_a_guest_that_powers_itself_off_stays_off(world: World) -> None:
    id = await world.create(world.tiny())
    await world.start(id)
    await world.says(id, "tiny# ")
    await world.types(id, "poweroff -f\n")
    vm = await world.state(id, PowerState.STOPPED)
    assert vm.intent is Intent.STOPPED
    assert vm.status.why == "the guest shut itself down"


@in_world
async def test_a_panic_is_a_crash(world: World) -> None:
    id = await world.create(world.tiny(on_crash=CrashPolicy.STOP))
    await world.start(id)
    await world.says(id, "tiny# ")
    await world.types(id, "crash\n")
    vm = await world.state(id, PowerState.CRASHED)
    assert vm.status.why == "the guest's kernel panicked"
    assert "sysrq" in vm.status.last_output.lower()
