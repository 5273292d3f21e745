"""The verbs of tasks, over `state.tasks`."""

from __future__ import annotations

from collections.abc import Callable

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.host import TaskList
from thimble.core.decision import GO, Decision, blocked
from thimble.core.problem import Code, Problem, Reason
from thimble.dispatch import run
from thimble.state.tasks import Tasks

WAIT_MAX = 60.0


class TaskService:
    """`rev`: the event stream's place, for the list."""

    def __init__(self, tasks: Tasks, rev: Callable[[], int]) -> None:
        self._tasks = tasks
        self._rev = rev

    async def list(self, _call: Call[None]) -> TaskList:
        return TaskList(rev=self._rev(), tasks=tuple(self._tasks.all()))

    async def get(self, call: Call[None]) -> Task:
        """At once, or when it has ended but at most `wait_s` later."""
        seconds = _seconds(call.query.get("wait_s", "0"))
        if seconds:
            return await self._tasks.wait(call.path["task"], seconds)
        return self._tasks.get(call.path["task"])

    async def cancel(self, call: Call[None]) -> Task | DryRun:
        id = call.path["task"]

        def decide() -> Decision[bool]:
            task = self._tasks.get(id)
            if not task.cancellable:
                no = Reason(message="it has ended, or must run to its end", code=Code.CONFLICT)
                hint = "It has ended, or must run to its end."
                return blocked(no, refusal=f"the task {task.verb} cannot be cancelled", hint=hint)
            return Decision(plan=GO, effects=(f"cancels {task.verb} of {task.subject}",))

        return await run.now(call, decide, lambda _: self._tasks.cancel(id))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_MAX:
        raise Problem(Code.INVALID, f"wait_s is a number from 0 to {WAIT_MAX:.0f}", where="?wait_s")
    return seconds
