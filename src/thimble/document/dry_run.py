"""A plan, checked by the verbs that will carry it out: each is asked for its blockers by a dry run.

What blocks only because another effect has not happened yet does not count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from thimble.contract.common import DryRun
from thimble.contract.document_api import DocumentPlan, PlannedEffect
from thimble.core.problem import Problem, Reason
from thimble.document.plan import Plan
from thimble.document.positions import Path
from thimble.document.read import Read
from thimble.document.rules import steps
from thimble.document.steps import Ask, Effect
from thimble.storage import refs

#: Asks a service, without doing anything.
Try = Callable[[Ask], Awaitable[object]]


async def preview(read: Read, plan: Plan, attempt: Try) -> DocumentPlan:
    """The plan as clients see it, with every blocker there is."""
    blockers = [read.reason(one.at, one.message, one.code) for one in plan.blockers]
    warnings = list(plan.warnings)
    subjects = {effect.subject for effect in plan.effects}
    seen: set[str] = set()
    for effect in plan.effects:
        for ask in effect.asks if effect.subject not in seen else ():
            blockers += await _against(read, effect, ask, subjects, attempt, warnings)
        seen |= {effect.subject}
    return DocumentPlan(
        sha256=read.sha256,
        effects=tuple(
            PlannedEffect(
                what=effect.what, subject=effect.subject, verbs=tuple(ask.verb for ask in effect.asks)
            )
            for effect in plan.effects
        ),
        blockers=tuple(blockers),
        warnings=tuple(dict.fromkeys(warnings)),
        drift=plan.drift,
    )


async def _against(
    read: Read, effect: Effect, ask: Ask, subjects: set[str], attempt: Try, warnings: list[str]
) -> list[Reason]:
    asked = ask.probe or ask.input
    try:
        answer = await attempt(ask)
    except Problem as problem:
        reasons = problem.reasons or (Reason(message=problem.detail, code=problem.code),)
    else:
        assert isinstance(answer, DryRun)
        warnings += [f"{effect.subject}: {warning}" for warning in answer.warnings]
        reasons = answer.blockers
    return [
        read.reason((*effect.at, *steps(reason.path)), reason.message, reason.code)
        for reason in reasons
        if not _awaited(asked, steps(reason.path), subjects)
    ]


def _awaited(input: msgspec.Struct | None, path: Path, made: set[str]) -> bool:
    """Is the field at `path` about something that another effect makes in time?"""
    value = str(_at(input, path) or "")
    field = path[-1] if path else ""
    if field in ("switch", "vm", "user", "datastore"):
        return f"{field} {value}" in made
    if field in ("volume", "image", "kernel", "initrd"):
        home = str(getattr(input, "datastore", "") or "")
        return f"datastore {refs.parse(value, home).datastore}" in made
    return False


def _at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, tuple) and step < len(value) else None
        else:
            value = getattr(value, step, None)
    return value
