"""The life of a VM: which states there are, what leads from one to the next, which verbs each allows. Pure.

                    ┌────────── EXITED, KILLED ─────────────────────┐
                    ▼                                               │
    creating ─► stopped ─ START ─► starting ─ UP ─► running ◄─► paused
                 ▲  ▲  ▲             │  │            │  │ ▲        │
                 │  │  │     REFUSED │  │ DIED       │  │ │ASK     │ASK
                 │  │  └─ failed ◄───┘  ▼       DIED │  ▼ │        ▼
                 │  └──── crashed ◄─────┴────────────┘ stopping ◄──┘
                 │           │ START                      │
                 │           └──────► starting            │ EXITED
                 └────────────────────────────────────────┘
    stopped, crashed, failed, saved ─ DELETE ─► deleting ─► gone

    running, paused ─ SAVE ─► saving ─► saved ─ START ─► starting ─► running, paused   as it was
                       ▲         │        ▲                │
                       └─ undone ┘        └─ it cannot be ─┘   (the file stays until the VM runs on, or
                                              loaded            somebody decides to boot afresh)

`NEXT` holds every transition, `VERBS` every answer to a verb; nothing else in Thimble knows them.
"""

from __future__ import annotations

from enum import StrEnum

from thimble.contract.vm import PowerState
from thimble.core.decision import Accept, Deny, Ignore
from thimble.core.problem import Code, Reason
from thimble.vm.record.spec import Phase


class Verb(StrEnum):
    """What can be asked of one VM; the values are those in `allowed`."""

    START = "start"
    STOP = "stop"
    KILL = "kill"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    CHANGE = "change"
    DELETE = "delete"
    CONSOLE = "console"
    SAVE = "save"


_S = PowerState

#: From each state: the states that may follow it.
NEXT: dict[PowerState, frozenset[PowerState]] = {
    _S.CREATING: frozenset({_S.STOPPED, _S.FAILED}),
    _S.STOPPED: frozenset({_S.STARTING, _S.DELETING}),
    _S.STARTING: frozenset({_S.RUNNING, _S.PAUSED, _S.FAILED, _S.CRASHED, _S.STOPPED, _S.SAVED}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.STOPPING, _S.SAVING, _S.STOPPED, _S.CRASHED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.STOPPING, _S.SAVING, _S.STOPPED, _S.CRASHED}),
    _S.SAVING: frozenset({_S.RUNNING, _S.PAUSED, _S.SAVED, _S.STOPPED, _S.CRASHED}),
    _S.SAVED: frozenset({_S.STARTING, _S.DELETING}),
    _S.STOPPING: frozenset({_S.RUNNING, _S.PAUSED, _S.STOPPED, _S.CRASHED}),
    _S.CRASHED: frozenset({_S.STARTING, _S.STOPPED, _S.DELETING}),
    _S.FAILED: frozenset({_S.STARTING, _S.STOPPED, _S.DELETING}),
    _S.DELETING: frozenset({_S.FAILED}),
}

#: QEMU runs, or is about to.
LIVE = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED, _S.STOPPING, _S.SAVING})

_YES = ""  # accepted
_SAME = "="  # followed by why there is nothing to do
_STOP_FIRST = "it is running: stop it first"
_NOT_RUNNING = "it is not running: start it first"
_BUSY_NEW = "it is being created: wait for that task"
_BUSY_OLD = "it is being deleted"
_STARTING = "it is just starting: try again in a moment"
_STOPPING = "it is shutting down: wait, or kill it"
_PAUSED = "it is paused: resume it first"
_SAVING = "it is being saved: wait, or kill it"
_SAVED = "it is saved: start it first"

_ANSWERS: tuple[str, ...] = (
    "start",
    "stop",
    "kill",
    "reset",
    "pause",
    "resume",
    "change",
    "delete",
    "console",
    "save",
)
_OFF = (
    _YES,
    "=it is stopped",
    "=it is stopped",
    _NOT_RUNNING,
    _NOT_RUNNING,
    _NOT_RUNNING,
    _YES,
    _YES,
    _NOT_RUNNING,
    _NOT_RUNNING,
)

#: For each state the answers, in the order of `_ANSWERS`.
VERBS: dict[PowerState, tuple[str, ...]] = {
    _S.CREATING: (_BUSY_NEW,) * 10,
    _S.STOPPED: _OFF,
    _S.STARTING: ("=it is starting", _YES, _YES, *(_STARTING,) * 4, _STOP_FIRST, _YES, _STARTING),
    _S.RUNNING: ("=it is running", *(_YES,) * 4, "=it is running", _YES, _STOP_FIRST, _YES, _YES),
    _S.PAUSED: (_PAUSED, _YES, _YES, _YES, "=it is paused", _YES, _YES, _STOP_FIRST, _YES, _YES),
    _S.STOPPING: (_STOPPING, _YES, _YES, _YES, *(_STOPPING,) * 3, _STOP_FIRST, _YES, _STOPPING),
    _S.SAVING: (_SAVING, _SAVING, _YES, *(_SAVING,) * 4, _STOP_FIRST, _YES, "=it is being saved"),
    _S.SAVED: (_YES, "=it is saved", "=it is saved", *(_SAVED,) * 3, _YES, _YES, _SAVED, "=it is saved"),
    _S.CRASHED: (_YES, _YES, _YES, *_OFF[3:]),
    _S.FAILED: (_YES, _YES, _YES, *_OFF[3:]),
    _S.DELETING: (*(_BUSY_OLD,) * 7, "=it is being deleted", _BUSY_OLD, _BUSY_OLD),
}  # fmt: skip

#: state → the verbs that make sense now, as clients get them.
ALLOWED: dict[PowerState, tuple[str, ...]] = {
    state: tuple(verb for verb, answer in zip(_ANSWERS, answers, strict=True) if answer == _YES)
    for state, answers in VERBS.items()
}


def allowed(state: PowerState, phase: Phase) -> tuple[str, ...]:
    """The verbs possible now. What a failed create or delete left can only be deleted."""
    if phase is not Phase.READY:
        return ("delete",) if state is _S.FAILED else ()
    return ALLOWED[state]


def decide(state: PowerState, phase: Phase, verb: Verb) -> Accept[Verb] | Ignore | Deny:
    """The answer to `verb`; `Accept` carries it on."""
    if phase is not Phase.READY and state is _S.FAILED:
        if verb is Verb.DELETE:
            return Accept(verb)
        return Deny(
            (Reason(message="it was not created or deleted to the end: delete it", code=Code.CONFLICT),)
        )
    answer = VERBS[state][_ANSWERS.index(verb)]
    if answer == _YES:
        return Accept(verb)
    if answer.startswith(_SAME):
        return Ignore(answer[1:])
    return Deny((Reason(message=answer, code=Code.CONFLICT),))


def backoff(restarts: int) -> float:
    """Seconds to wait before restart number `restarts` (from 1): 1, 2, 4, … 60."""
    return float(min(60, 2 ** max(0, min(restarts - 1, 6))))


class Ending(StrEnum):
    """Why a QEMU ended, as its shutdown trace tells (`ShutdownCause` in QEMU's qapi/run-state.json)."""

    GUEST = "the guest shut itself down"
    PANIC = "the guest's kernel panicked"
    SIGNAL = "QEMU was told to end by a signal"
    QMP = "QEMU was told to quit"
    DEATH = "QEMU died"


_CAUSES = {1: Ending.DEATH, 2: Ending.QMP, 4: Ending.SIGNAL, 5: Ending.QMP, 6: Ending.GUEST, 8: Ending.PANIC}
_TRACE = "qemu_system_shutdown_request reason="


def ending(log: str) -> Ending:
    """The cause in QEMU's `log`; without any it died."""
    _, found, rest = log.rpartition(_TRACE)
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return _CAUSES.get(int(digits), Ending.DEATH) if found and digits else Ending.DEATH
