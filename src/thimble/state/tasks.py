"""Long work: started, followed, cancelled, remembered for a while. Volatile: truth about the work itself is
in the records it changes, and whoever owns those finishes or undoes after a restart.

    running ──► done
       ├──────► failed      problem says why
       └──────► cancelled   only where the work said it can be
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from thimble.contract.common import Task, TaskState
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem
from thimble.state.events import Events
from thimble.sys import log

Work = Callable[["Progress"], Awaitable[dict[str, str] | None]]


class Progress:
    """The hand that running work tells its progress with. Steps are also where fault tests strike."""

    def __init__(self, task: Task, changed: Callable[[Task], None], fault: Callable[[str], None]) -> None:
        self.task = task
        self._changed = changed
        self._fault = fault

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """A named part of the work. Fault points: `verb/name` before, `verb/name.done` after."""
        self._fault(f"{self.task.verb}/{name}")
        self._set(msgspec.structs.replace(self.task, step=name))
        yield
        self._fault(f"{self.task.verb}/{name}.done")

    def at(self, fraction: float) -> None:
        """How much of the whole is done, 0 to 1. Told to others only when it moved by a hundredth."""
        if fraction - self.task.progress >= 0.01 or fraction >= 1.0:
            self._set(msgspec.structs.replace(self.task, progress=min(fraction, 1.0)))

    def reached(self, point: str) -> None:
        """A point within a step, for fault tests alone; from any thread."""
        self._fault(f"{self.task.verb}/{point}")

    def committed(self) -> None:
        """From here on it runs to its end: it cannot be cancelled any more."""
        self._set(msgspec.structs.replace(self.task, cancellable=False))

    def _set(self, task: Task) -> None:
        self.task = task
        self._changed(task)


class Tasks:
    """All tasks since the agent started; the ended ones beyond `keep` are forgotten, oldest first."""

    def __init__(
        self,
        events: Events,
        *,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        fault: Callable[[str], None] = lambda _: None,
        keep: int = 1000,
    ) -> None:
        self._events = events
        self._clock = clock
        self._entropy = entropy
        self._fault = fault
        self._keep = keep
        self._tasks: dict[str, Task] = {}
        self._running: dict[str, asyncio.Task[dict[str, str]]] = {}
        self._begun: dict[str, asyncio.Event] = {}
        self._ended: dict[str, asyncio.Event] = {}

    def start(
        self,
        verb: str,
        subject: str,
        work: Work,
        *,
        owner: str = "",
        cancellable: bool = False,
        ended: Callable[[], None] = lambda: None,
    ) -> Task:
        """Begin `work` now. Its `Problem` becomes the task's; any other exception is INTERNAL.

        `ended` is called however it ends, also when it is cancelled before its first step.
        """
        id = identity("task", self._entropy(5))
        task = Task(
            id=id, verb=verb, subject=subject, state=TaskState.RUNNING, created=self._clock(), owner=owner,
            cancellable=cancellable,
        )  # fmt: skip
        self._ended[id] = asyncio.Event()
        self._changed(task)
        progress = Progress(task, self._changed, self._fault)
        self._begun[id] = asyncio.Event()
        running = asyncio.ensure_future(_result(work, progress, self._begun[id]))
        running.add_done_callback(lambda outcome: self._end(progress, outcome, ended))
        self._running[id] = running
        self._forget()
        return task

    def _end(self, progress: Progress, ended: asyncio.Task[dict[str, str]], then: Callable[[], None]) -> None:
        then()
        state, problem = _outcome(ended)
        task = msgspec.structs.replace(
            progress.task,
            state=state,
            problem=problem.document() if problem else None,
            result=ended.result() if state is TaskState.DONE else {},
            ended=self._clock(),
            progress=1.0 if state is TaskState.DONE else progress.task.progress,
            cancellable=False,
        )
        del self._running[task.id]
        self._changed(task)
        self._begun.pop(task.id).set()
        self._ended.pop(task.id).set()

    def get(self, id: str) -> Task:
        """Raises `Problem` NOT_FOUND."""
        try:
            return self._tasks[id]
        except KeyError:
            raise Problem(
                Code.NOT_FOUND,
                f"there is no task {id!r}",
                hint="Tasks are forgotten when the agent restarts; look at what it worked on.",
            ) from None

    def all(self) -> list[Task]:
        """Newest first."""
        return list(reversed(self._tasks.values()))

    async def begun(self, id: str) -> None:
        """Until its work has taken its first step, or has ended: then a cancel is the work's own to see."""
        if (event := self._begun.get(id)) is not None:
            await event.wait()

    async def wait(self, id: str, timeout: float | None = None) -> Task:
        """The task when it has ended, or as it is after `timeout` seconds."""
        ended = self._ended.get(self.get(id).id)
        if ended is not None:
            try:
                await asyncio.wait_for(ended.wait(), timeout)
            except TimeoutError:
                pass
        return self.get(id)

    async def cancel(self, id: str) -> Task:
        """Raises `Problem` NOT_FOUND, or CONFLICT when it has ended or cannot be cancelled."""
        task = self.get(id)
        if not task.cancellable or id not in self._running:
            raise Problem(
                Code.CONFLICT,
                f"the task {task.verb} cannot be cancelled",
                hint="It has ended, or must run to its end.",
            )
        self._running[id].cancel()
        return await self.wait(id)

    def _changed(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._events.publish(
            "task.changed", task.id, state=task.state, step=task.step, verb=task.verb, of=task.subject
        )

    def _forget(self) -> None:
        for id in [id for id, task in self._tasks.items() if task.ended is not None][
            : max(0, len(self._tasks) - self._keep)
        ]:
            del self._tasks[id]


async def _result(work: Work, progress: Progress, begun: asyncio.Event) -> dict[str, str]:
    begun.set()
    return await work(progress) or {}


def _outcome(ended: asyncio.Task[dict[str, str]]) -> tuple[TaskState, Problem | None]:
    if ended.cancelled():
        return TaskState.CANCELLED, Problem(Code.CANCELLED, "cancelled on request")
    error = ended.exception()
    if error is None or isinstance(error, Problem):
        return (TaskState.FAILED if error else TaskState.DONE), error
    log.trouble("task", error)
    return TaskState.FAILED, Problem(Code.INTERNAL, f"{type(error).__name__}: {error}")
