"""Shared wire types: the bases of inputs and outputs, tasks, events, dry runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from thimble.core.ids import NAME_MAX, NAME_PATTERN
from thimble.core.problem import ProblemDocument, Reason

#: Marks a field that may not leave the host with a support bundle: `password: Annotated[str, Secret]`.
Secret = msgspec.Meta(extra={"secret": True})


class In(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything a client sends."""


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything a client receives."""


class Nothing(Out, frozen=True, kw_only=True):
    """An answer without content."""


#: A name somebody gives. The rules check it, with better words than a pattern's; here it is described.
Name = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"pattern": NAME_PATTERN, "minLength": 1, "maxLength": NAME_MAX}),
]


class Effect(Out, frozen=True, kw_only=True):
    """One thing a mutation would do or did, in words: "creates volume web1-disk0 (10 GiB) on local"."""

    what: str


class DryRun(Out, frozen=True, kw_only=True):
    """The answer to `?dry_run=1`: what would happen, and everything that stands in the way."""

    possible: bool
    effects: tuple[Effect, ...] = ()
    blockers: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()


class TaskState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Task(Out, frozen=True, kw_only=True):
    """Long work. Times are seconds since the epoch; `progress` is 0 to 1."""

    id: str
    verb: str  # such as "vm.create"
    subject: str  # id of the thing worked on
    state: TaskState
    step: str = ""
    progress: float = 0.0
    created: float = 0.0
    ended: float | None = None
    owner: str = ""
    cancellable: bool = False
    problem: ProblemDocument | None = None
    result: dict[str, str] = {}


class Event(Out, frozen=True, kw_only=True):
    """Something changed. `rev` counts up without gaps while the agent runs; resume after it."""

    rev: int
    time: float
    kind: str  # such as "vm.changed", "vm.deleted", "task.changed"; see contract.kinds
    subject: str
    detail: dict[str, str] = {}


class Listed(Out, frozen=True, kw_only=True):
    """Where an event stream that follows this list has to start: `GET /events?after=rev`."""

    rev: int
