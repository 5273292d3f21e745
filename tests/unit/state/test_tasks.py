"""Long work: to its end, failed, cancelled at any moment, forgotten; and where fault tests strike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from thimble.contract.common import TaskState
from thimble.core.problem import Code, Problem
from thimble.state.events import Events
from thimble.state.tasks import Progress, Tasks
from thimble.sys import log


def tasks(**more: Any) -> Tasks:
    numbers = itertools.count()
    events = Events(base=0, clock=lambda: 1.0)
    made = Tasks(events, clock=lambda: 5.0, entropy=lambda n: next(numbers).to_bytes(n, "big"), **more)
    made.events = events  # type: ignore[attr-defined]
    return made


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(bounded())


async def quick(progress: Progress) -> dict[str, str]:
    async with progress.step("only"):
        progress.at(0.5)
        progress.at(0.501)
    return {"id": "vm-1"}


async def forever(progress: Progress) -> None:
    await asyncio.Event().wait()


def test_work_runs_to_its_end_and_every_step_is_told() -> None:
    async def story() -> None:
        all = tasks()
        task = all.start("vm.create", "vm-1", quick, owner="ann")
        assert (task.state, task.owner) == (TaskState.RUNNING, "ann")
        done = await all.wait(task.id)
        assert (done.state, done.result, done.progress, done.ended) == (
            TaskState.DONE,
            {"id": "vm-1"},
            1.0,
            5.0,
        )
        told = [(e.detail["state"], e.detail["step"]) for e in all.events.since(0)]  # type: ignore[attr-defined]
        assert told == [("running", ""), ("running", "only"), ("running", "only"), ("done", "only")]

    run(story)


def test_a_problem_becomes_the_tasks() -> None:
    async def story() -> None:
        async def work(progress: Progress) -> None:
            raise Problem(Code.NO_SPACE, "full", hint="Free some.")

        all = tasks()
        failed = await all.wait(all.start("vm.create", "x", work).id)
        assert failed.state is TaskState.FAILED and failed.problem is not None
        assert (failed.problem.code, failed.problem.hint) == (Code.NO_SPACE, "Free some.")

    run(story)


def test_any_other_exception_is_a_bug_told_to_the_log() -> None:
    async def story() -> None:
        async def work(progress: Progress) -> None:
            raise KeyError("oops")

        all = tasks()
        failed = await all.wait(all.start("vm.create", "x", work).id)
        assert failed.problem is not None and failed.problem.code is Code.INTERNAL
        assert any("KeyError: 'oops'" in line for line in log.ring)

    run(story)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_it_can_be_cancelled_at_any_moment_even_before_its_first_step(steps: int) -> None:
    async def story() -> None:
        all = tasks()
        task = all.start("vm.create", "x", forever, cancellable=True)
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled = await all.cancel(task.id)
        assert cancelled.state is TaskState.CANCELLED and not cancelled.cancellable
        with pytest.raises(Problem) as caught:
            await all.cancel(task.id)
        assert caught.value.code is Code.CONFLICT

    run(story)


def test_what_may_not_be_cancelled_is_not() -> None:
    async def story() -> None:
        all = tasks()
        task = all.start("vm.create", "x", forever)
        with pytest.raises(Problem):
            await all.cancel(task.id)
        assert all.get(task.id).state is TaskState.RUNNING

    run(story)


def test_waiting_has_an_end_though_the_task_has_not() -> None:
    async def story() -> None:
        all = tasks()
        task = all.start("vm.create", "x", forever)
        assert (await all.wait(task.id, 0.01)).state is TaskState.RUNNING
        with pytest.raises(Problem):
            await all.wait("task-none")

    run(story)


def test_the_oldest_ended_are_forgotten_and_the_running_never() -> None:
    async def story() -> None:
        all = tasks(keep=3)
        running = all.start("vm.create", "x", forever)
        for _ in range(9):
            last = all.start("vm.start", "x", quick)
            await all.wait(last.id)
        ids = [task.id for task in all.all()]
        assert len(ids) == 3 and ids[0] == last.id and running.id in ids

    run(story)


def test_a_fault_strikes_before_or_after_the_step_it_names() -> None:
    class Struck(BaseException):
        pass

    async def story() -> None:
        for point, reached in (("vm.create/only", False), ("vm.create/only.done", True)):
            inside: list[bool] = []

            def strike(at: str, point: str = point) -> None:
                if at == point:
                    raise Struck

            async def work(progress: Progress, inside: list[bool] = inside) -> None:
                async with progress.step("only"):
                    inside.append(True)

            progress = Progress(tasks().start("vm.create", "x", quick), lambda _: None, strike)
            with pytest.raises(Struck):
                await work(progress)
            assert bool(inside) is reached

    run(story)
