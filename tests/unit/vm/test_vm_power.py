"""Turning VMs off when nothing can be written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from vm_table_world import TableWorld, ready

from thimble.contract.common import Task, TaskState
from thimble.contract.vm import CrashPolicy, Intent, PowerState, StopRequest
from thimble.core.problem import Code, Problem
from thimble.sys import files
from thimble.vm.record.lifecycle import Ending
from thimble.vm.verbs.power import Power


class PowerWorld(TableWorld):
    """One VM that is meant to run, on a disk that is full from `fill` on."""

    def __init__(self, where: Path, state: PowerState, patch: pytest.MonkeyPatch) -> None:
        super().__init__(where, state, ready(intent=Intent.RUNNING, on_crash=CrashPolicy.RESTART))
        self.verbs = Power(self.table)
        self._patch = patch

    def fill(self) -> None:
        def full(*_: object, **__: object) -> None:
            raise Problem(Code.NO_SPACE, "the disk is full")

        self._patch.setattr(files, "write_atomic", full)

    async def ended(self, answer: Any) -> Task:
        task = await self.context.tasks.wait(answer.task.id, 10)
        await self.driver.close()
        return task


def kept(world: PowerWorld) -> Intent:
    return world.table.get("vm-1").value.noted.intent


def test_a_vm_is_killed_though_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world = PowerWorld(tmp_path, PowerState.RUNNING, monkeypatch)
        monkeypatch.setattr(world.driver, "kill", world.driver.off.set)
        world.fill()
        task = await world.ended(await world.verbs.kill(world.call()))
        assert task.state is TaskState.DONE
        assert task.result["note"] == "that it is to stay off could not be kept: the disk is full"
        assert world.driver.off.is_set()

    asyncio.run(scenario())


def test_a_vm_shuts_down_though_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world = PowerWorld(tmp_path, PowerState.RUNNING, monkeypatch)

        async def begin_stop() -> None:
            world.driver._status.set(PowerState.STOPPING)
            # even so: it was to end, and is not started again
            await world.driver.monitor._concluded(Ending.DEATH, "")

        monkeypatch.setattr(world.driver, "begin_stop", begin_stop)
        world.fill()
        task = await world.ended(await world.verbs.stop(world.call()))
        assert task.state is TaskState.DONE
        assert "could not be kept: the disk is full" in task.result["note"]
        assert world.driver.status.state is PowerState.STOPPED
        assert world.driver.monitor._again is None

    asyncio.run(scenario())


def test_with_space_the_intent_is_kept_and_nothing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        world = PowerWorld(tmp_path, PowerState.CRASHED, monkeypatch)
        task = await world.ended(await world.verbs.stop(world.call()))
        assert (task.state, task.result) == (TaskState.DONE, {})
        assert kept(world) is Intent.STOPPED
        again = await world.ended(await world.verbs.stop(world.call()))
        assert again.result == {"note": "it is stopped"}

    asyncio.run(scenario())


def test_a_start_is_refused_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world = PowerWorld(tmp_path, PowerState.CRASHED, monkeypatch)
        await world.ended(await world.verbs.stop(world.call()))
        world.fill()
        with pytest.raises(Problem, match="the disk is full"):
            await world.verbs.start(world.call())

    asyncio.run(scenario())


@pytest.mark.parametrize("force", [True, False])
def test_a_silent_qemu_is_killed_when_it_is_stopped_with_force_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    async def scenario() -> None:
        world = PowerWorld(tmp_path, PowerState.RUNNING, monkeypatch)

        async def begin_stop() -> None:
            raise Problem(Code.UNAVAILABLE, "QEMU does not answer on its control socket")

        monkeypatch.setattr(world.driver, "begin_stop", begin_stop)
        monkeypatch.setattr(world.driver, "kill", world.driver.off.set)
        call = msgspec.structs.replace(world.call(), input=StopRequest(force=force))
        task = await world.ended(await world.verbs.stop(call))
        if force:
            assert task.result["note"] == "QEMU did not answer and was killed"
        else:
            assert task.problem is not None
            assert task.problem.code is Code.UNAVAILABLE
        assert world.driver.off.is_set() is force

    asyncio.run(scenario())
