"""Turning VMs off when nothing can be written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from vm_examples import record

from thimble.contract.call import Call
from thimble.contract.common import Task, TaskState
from thimble.contract.vm import CrashPolicy, Intent, PowerState, StopRequest
from thimble.core.problem import Code, Problem
from thimble.host.hardware import Accel
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.sys import clock, files
from thimble.vm.driver import Driver
from thimble.vm.qemu.context import World
from thimble.vm.record.lifecycle import Ending
from thimble.vm.verbs.power import PowerVerbs


class Desk:
    """One VM that is meant to run, on a disk that is full from `fill` on."""

    def __init__(self, where: Path, state: PowerState, patch: pytest.MonkeyPatch) -> None:
        events = Events(base=0, clock=clock.now)
        world = SimpleNamespace(
            run=where,
            clock=lambda: 1000.0,
            events=events,
            tasks=Tasks(events, clock=clock.now, entropy=clock.entropy),
            accel=Accel(name="kvm", why=""),
            host_stopping=False,
        )
        self.verbs = PowerVerbs(cast(World, world), clock.entropy, durable=False)
        self.verbs.store.add_root("local", where / "vms")
        (where / "vms" / "vm-1").mkdir()
        value = msgspec.structs.replace(record("web"), intent=Intent.RUNNING, on_crash=CrashPolicy.RESTART)
        self.verbs.store.put("vm-1", value, root="local")
        self.driver = self.verbs.drivers["vm-1"] = Driver("vm-1", cast(World, world), state)
        if state is PowerState.RUNNING:
            self.driver.off.clear()
        self._patch = patch

    def fill(self) -> None:
        def full(*_: object, **__: object) -> None:
            raise Problem(Code.NO_SPACE, "the disk is full")

        self._patch.setattr(files, "write_atomic", full)

    def call(self) -> Call[Any]:
        return Call(input=None, path={"vm": "vm-1"}, user="test")

    async def ended(self, answer: Any) -> Task:
        task = await self.verbs.world.tasks.wait(answer.task.id, 10)
        await self.driver.close()
        return task


def kept(desk: Desk) -> Intent:
    return desk.verbs.store.get("vm-1").value.intent


def test_a_vm_is_killed_though_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(tmp_path, PowerState.RUNNING, monkeypatch)
        monkeypatch.setattr(desk.driver, "kill", desk.driver.off.set)
        desk.fill()
        task = await desk.ended(await desk.verbs.kill(desk.call()))
        assert task.state is TaskState.DONE
        assert task.result["note"] == "that it is to stay off could not be kept: the disk is full"
        assert desk.driver.off.is_set()

    asyncio.run(scenario())


def test_a_vm_shuts_down_though_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(tmp_path, PowerState.RUNNING, monkeypatch)

        async def begin_stop() -> None:
            desk.driver._set(PowerState.STOPPING)
            desk.driver._concluded(Ending.DEATH, "")  # even so: it was to end, and is not started again

        monkeypatch.setattr(desk.driver, "begin_stop", begin_stop)
        desk.fill()
        task = await desk.ended(await desk.verbs.stop(desk.call()))
        assert task.state is TaskState.DONE
        assert "could not be kept: the disk is full" in task.result["note"]
        assert desk.driver.status.state is PowerState.STOPPED
        assert desk.driver._again is None

    asyncio.run(scenario())


def test_with_space_the_intent_is_kept_and_nothing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        desk = Desk(tmp_path, PowerState.CRASHED, monkeypatch)
        task = await desk.ended(await desk.verbs.stop(desk.call()))
        assert (task.state, task.result) == (TaskState.DONE, {})
        assert kept(desk) is Intent.STOPPED
        again = await desk.ended(await desk.verbs.stop(desk.call()))
        assert again.result == {"note": "it is stopped"}

    asyncio.run(scenario())


def test_a_start_is_refused_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        desk = Desk(tmp_path, PowerState.CRASHED, monkeypatch)
        await desk.ended(await desk.verbs.stop(desk.call()))
        desk.fill()
        with pytest.raises(Problem, match="the disk is full"):
            await desk.verbs.start(desk.call())

    asyncio.run(scenario())


@pytest.mark.parametrize("force", [True, False])
def test_a_silent_qemu_is_killed_when_it_is_stopped_with_force_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    async def scenario() -> None:
        desk = Desk(tmp_path, PowerState.RUNNING, monkeypatch)

        async def begin_stop() -> None:
            raise Problem(Code.UNAVAILABLE, "QEMU does not answer on its control socket")

        monkeypatch.setattr(desk.driver, "begin_stop", begin_stop)
        monkeypatch.setattr(desk.driver, "kill", desk.driver.off.set)
        call = msgspec.structs.replace(desk.call(), input=StopRequest(force=force))
        task = await desk.ended(await desk.verbs.stop(call))
        if force:
            assert task.result["note"] == "QEMU did not answer and was killed"
        else:
            assert task.problem is not None
            assert task.problem.code is Code.UNAVAILABLE
        assert desk.driver.off.is_set() is force

    asyncio.run(scenario())
