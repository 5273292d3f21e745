"""Verbs of several clients, crashes, guests that decide for themselves, in any order: the lifecycle holds."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, cast

from fake_engine import FakeEngine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_vm_races import Races

from thimble.contract.common import TaskState
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState, StopRequest, VmChange
from thimble.core.problem import Code, Problem
from thimble.vm.record import lifecycle
from thimble.vm.record.lifecycle import Ending

REFS = some.sampled_from(["vm-1", "vm-2"])
#: What a client may be told; anything else is a fault of ours.
FAIR = {
    Code.CONFLICT,
    Code.NOT_FOUND,
    Code.EXISTS,
    Code.STALE,
    Code.CANCELLED,
    Code.UNAVAILABLE,
    Code.TIMEOUT,
}


class Life(RuleBasedStateMachine):
    """Two VMs; every rule asks something and lets the loop take a few turns, so that much is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.where = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.tasks: list[str] = []

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize()
    def begin(self) -> None:
        async def story() -> None:
            self.world = Races(Path(self.where.name))
            await self.world.more("vm-2", "other")

        self.run(story())

    def ask(self, method: Any, ref: str, input: Any = None, turns: int = 0) -> None:
        async def story() -> None:
            try:
                answer = await method(self.world.call(input, ref))
            except Problem as problem:
                assert problem.code in FAIR, problem.detail
                return
            assert isinstance(answer, Started)
            self.tasks.append(answer.task.id)
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(story())

    turns = some.integers(0, 12)

    @rule(ref=REFS, turns=turns)
    def start(self, ref: str, turns: int) -> None:
        self.ask(self.world.power.start, ref, turns=turns)

    @rule(ref=REFS, turns=turns)
    def stop(self, ref: str, turns: int) -> None:
        self.ask(self.world.power.stop, ref, StopRequest(timeout_s=0, force=True), turns)

    @rule(ref=REFS, turns=turns)
    def kill(self, ref: str, turns: int) -> None:
        self.ask(self.world.power.kill, ref, turns=turns)

    @rule(ref=REFS, turns=turns, verb=some.sampled_from(["pause", "resume", "reset"]))
    def press(self, ref: str, turns: int, verb: str) -> None:
        self.ask(getattr(self.world.power, verb), ref, turns=turns)

    @rule(ref=REFS, turns=turns, name=some.sampled_from(["web", "other", "third"]))
    def rename(self, ref: str, turns: int, name: str) -> None:
        self.ask(self.world.reconfigure.change, ref, VmChange(name=name), turns)

    @rule(ref=REFS, turns=turns)
    def delete(self, ref: str, turns: int) -> None:
        self.ask(self.world.reconfigure.delete, ref, turns=turns)

    @rule(ref=REFS, why=some.sampled_from([Ending.DEATH, Ending.GUEST, Ending.PANIC]))
    def ends(self, ref: str, why: Ending) -> None:
        async def story() -> None:
            driver = self.world.table.drivers.get(ref)
            if driver is not None and driver.engine.running is not None:
                cast(FakeEngine, driver.engine).end(why)

        self.run(story())

    @rule()
    def settle(self) -> None:
        """All that was asked has ended, and what is agrees with what is wanted."""

        async def story() -> None:
            for id in self.tasks:
                await self.world.context.tasks.wait(id, 15)
            for driver in self.world.table.drivers.values():
                await driver.ask(_nothing)

        self.run(story())
        for id in self.tasks:
            task = self.world.context.tasks.get(id)
            assert task.ended is not None, f"{task.verb} hangs in {task.step}"
            if task.state is TaskState.FAILED:
                assert task.problem is not None and task.problem.code in FAIR, task
        self.tasks = []
        for record in self.world.table.all():
            driver = self.world.table.drivers[record.id]
            state = driver.status.state
            assert state not in (PowerState.STARTING, PowerState.DELETING, PowerState.CREATING)
            assert (driver.engine.running is not None) == (state in lifecycle.LIVE)
            assert driver.off.is_set() == (state not in lifecycle.LIVE)
            assert not driver._queued
            if state is PowerState.RUNNING:
                assert record.value.noted.intent is Intent.RUNNING

    @invariant()
    def names_are_unique(self) -> None:
        if hasattr(self, "world"):
            names = [record.value.spec.name for record in self.world.table.all()]
            assert len(names) == len(set(names))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.settle()
            self.run(self.world.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.where.cleanup()


async def _nothing() -> None:
    pass


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
