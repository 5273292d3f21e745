"""The one gesture: decided, told, refused or done; and decided again when its turn has come."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.common import DryRun, TaskState
from thimble.contract.verbs import Started
from thimble.core.decision import GO, Decision, blocked, nothing
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch import run
from thimble.state.events import Events
from thimble.state.tasks import Progress, Tasks

TAKEN = Reason(message="the name is taken", code=Code.EXISTS, path="$.name")


def tasks() -> Tasks:
    numbers = itertools.count()
    events = Events(base=0, clock=lambda: 1.0)
    return Tasks(events, clock=lambda: 5.0, entropy=lambda n: next(numbers).to_bytes(n, "big"))


def done(story: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(story, 10))


class Names:
    """A thing of which each name is there once."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.turn = asyncio.Lock()

    def decide(self, name: str) -> Decision[bool]:
        if name in self.taken:
            return blocked(TAKEN, refusal=f"cannot make {name}", hint="Use another.")
        return Decision(plan=GO, effects=(f"makes {name}",), warnings=("mind it",))

    async def make(self, name: str) -> str:
        await asyncio.sleep(0)
        self.taken.append(name)
        return name


def test_a_dry_run_tells_and_does_nothing() -> None:
    names = Names()
    call: Call[None] = Call(input=None, dry_run=True)
    answer = done(run.now(call, lambda: names.decide("a"), lambda _: names.make("a")))
    assert answer == DryRun(possible=True, effects=answer.effects, warnings=("mind it",))
    assert [effect.what for effect in answer.effects] == ["makes a"]
    names.taken = ["a"]
    answer = done(run.now(call, lambda: names.decide("a"), lambda _: names.make("a")))
    assert not answer.possible
    assert answer.blockers == (TAKEN,)
    assert names.taken == ["a"]


def test_a_refusal_names_every_blocker() -> None:
    both = (TAKEN, Reason(message="too long", path="$.name"))
    with pytest.raises(Problem) as caught:
        done(run.now(Call(input=None), lambda: blocked(*both, refusal="no", hint="try"), _never))
    assert (caught.value.code, caught.value.detail, caught.value.hint) == (Code.EXISTS, "no", "try")
    assert caught.value.reasons == both


async def _never(_: object) -> None:
    raise AssertionError("acted though refused")


def test_of_two_at_once_only_one_gets_the_name() -> None:
    names = Names()

    async def make() -> object:
        turn = names.turn
        return await run.now(
            Call(input=None), lambda: names.decide("a"), lambda _: names.make("a"), turn=turn
        )

    async def story() -> list[object]:
        return await asyncio.gather(make(), make(), return_exceptions=True)

    first, second = done(story())
    assert first == "a"
    assert isinstance(second, Problem) and second.code is Code.EXISTS
    assert names.taken == ["a"]


def test_a_task_decides_again_when_its_turn_has_come() -> None:
    names, made = Names(), tasks()

    async def act(_: bool, __: Progress) -> dict[str, str]:
        return {"name": await names.make("a")}

    async def story() -> list[Any]:
        calls = [
            run.task(made, "x.create", "a", Call(input=None), lambda: names.decide("a"), act, turn=names.turn)
            for _ in range(2)
        ]
        started = [await call for call in calls]  # both were accepted: the name was free
        assert all(isinstance(one, Started) for one in started)
        return [await made.wait(one.task.id) for one in started if isinstance(one, Started)]

    first, second = done(story())
    assert (first.state, first.result) == (TaskState.DONE, {"name": "a"})
    assert second.state is TaskState.FAILED and second.problem.code is Code.EXISTS
    assert names.taken == ["a"]


def test_nothing_to_do_is_done_and_says_so() -> None:
    made = tasks()

    async def act(_: bool, __: Progress) -> None:
        raise AssertionError("there was nothing to do")

    async def story() -> Any:
        started = await run.task(made, "x.y", "a", Call(input=None), lambda: nothing("it is so"), act)
        assert isinstance(started, Started)
        return await made.wait(started.task.id)

    ended = done(story())
    assert (ended.state, ended.result) == (TaskState.DONE, {"note": "it is so"})
