"""The one gesture of every mutation: decide, then answer the dry run, refuse with every blocker, or act.

    decide ──► dry run      what would happen, nothing changes
       ├─────► refusal      one problem with all blockers
       └─────► act          at once, or as a task that first decides again where its work is done

`decide` is pure but for looking; it may be asked several times, and what it saw may have changed in between:
so it is asked again under the `turn` of whatever the act changes, right before the act.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext
from typing import Any, TypeVar

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect
from thimble.contract.verbs import Started
from thimble.core.decision import Decision
from thimble.state.tasks import Progress, Tasks

Plan = TypeVar("Plan")
Output = TypeVar("Output")
Decide = Callable[[], Decision[Plan] | Awaitable[Decision[Plan]]]
#: Held from the decision to the end of the act, so that two such acts come one after the other.
Turn = AbstractAsyncContextManager[Any]


def dry_run(decision: Decision[Any]) -> DryRun:
    """The answer to `?dry_run=1`."""
    return DryRun(
        possible=decision.possible,
        effects=tuple(Effect(what=line) for line in decision.effects),
        blockers=decision.blockers,
        warnings=decision.warnings,
    )


async def now(
    call: Call[Any],
    decide: Decide[Plan],
    act: Callable[[Decision[Plan]], Awaitable[Output]],
    *,
    turn: Turn | None = None,
) -> Output | DryRun:
    """Do it before answering. `act` also gets a decision that there is nothing to do: it answers what is.

    Raises the `Problem` of the decision or of the act.
    """
    if call.dry_run:
        return dry_run(await decided(decide))
    async with turn or nullcontext():
        decision = await decided(decide)
        decision.refuse()
        return await act(decision)


async def task(
    tasks: Tasks,
    verb: str,
    subject: str,
    call: Call[Any],
    decide: Decide[Plan],
    act: Callable[[Plan, Progress], Awaitable[dict[str, str] | None]],
    *,
    turn: Turn | None = None,
    hold: Callable[[], AbstractContextManager[Any]] | None = None,
    commit: Callable[[], Awaitable[None]] | None = None,
    cancellable: bool = False,
) -> Started | DryRun:
    """Answer with a task that does it; when there is nothing to do, its result says why.

    `hold`: entered when it is accepted, left when the work has ended; whoever gives it decides again himself,
    where the work is done. `commit`: what must be durable before the answer.

    Raises the `Problem` of the decision or commit; what the task decides anew, when its turn has come, is its
    own.
    """
    decision = await decided(decide)
    if call.dry_run:
        return dry_run(decision)
    decision.refuse()
    held = ExitStack()
    with held:
        if hold is not None:
            held.enter_context(hold())
        if commit is not None:
            await commit()
        kept = held.pop_all()

    async def work(progress: Progress) -> dict[str, str] | None:
        if hold is not None:
            return {"note": decision.note} if decision.plan is None else await act(decision.plan, progress)
        async with turn or nullcontext():
            again = await decided(decide)
            again.refuse()
            if again.plan is None:
                return {"note": again.note}
            return await act(again.plan, progress)

    started = tasks.start(verb, subject, work, owner=call.user, cancellable=cancellable, ended=kept.close)
    if cancellable:
        await tasks.begun(started.id)  # a cancel finds the work where it can be undone
    return Started(task=started, subject=subject)


async def decided(decide: Decide[Plan]) -> Decision[Plan]:
    """What `decide` says, at once or after looking."""
    found = decide()
    return found if isinstance(found, Decision) else await found
