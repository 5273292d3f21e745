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

from collections.abc import Iterable
from enum import StrEnum

from thimble.contract.vm import PowerState
from thimble.core.decision import GO, Decision, blocked, nothing
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

YES: Decision[bool] = Decision(plan=GO)


def _same(why: str) -> Decision[bool]:
    return nothing(why)


def _no(why: str) -> Decision[bool]:
    return blocked(Reason(message=why, code=Code.CONFLICT), hint=NOW)


def _answers(default: Decision[bool], **special: Decision[bool]) -> dict[Verb, Decision[bool]]:
    return {verb: special.get(verb.value, default) for verb in Verb}


NOW = "`allowed` of the VM names what can be done with it now."
_STOP_FIRST = _no("it is running: stop it first")
_OFF = _no("it is not running: start it first")
_STARTING = _no("it is just starting: try again in a moment")
_STOPPING = _no("it is shutting down: wait, or kill it")
_SAVING = _no("it is being saved: wait, or kill it")
_SAVED = _no("it is saved: start it first")
_BROKEN = _answers(_OFF, start=YES, stop=YES, kill=YES, change=YES, delete=YES)

#: What each state answers to each verb.
VERBS: dict[PowerState, dict[Verb, Decision[bool]]] = {
    _S.CREATING: _answers(_no("it is being created: wait for that task")),
    _S.STOPPED: _answers(
        _OFF, start=YES, stop=_same("it is stopped"), kill=_same("it is stopped"), change=YES, delete=YES
    ),
    _S.STARTING: _answers(
        _STARTING, start=_same("it is starting"), stop=YES, kill=YES, delete=_STOP_FIRST, console=YES
    ),
    _S.RUNNING: _answers(
        YES, start=_same("it is running"), resume=_same("it is running"), delete=_STOP_FIRST
    ),
    _S.PAUSED: _answers(
        YES, start=_no("it is paused: resume it first"), pause=_same("it is paused"), delete=_STOP_FIRST
    ),
    _S.STOPPING: _answers(
        _STOPPING, stop=YES, kill=YES, reset=YES, delete=_STOP_FIRST, console=YES
    ),
    _S.SAVING: _answers(
        _SAVING, kill=YES, delete=_STOP_FIRST, console=YES, save=_same("it is being saved")
    ),
    _S.SAVED: _answers(
        _SAVED, start=YES, stop=_same("it is saved"), kill=_same("it is saved"), change=YES, delete=YES,
        save=_same("it is saved"),
    ),
    _S.CRASHED: _BROKEN,
    _S.FAILED: _BROKEN,
    _S.DELETING: _answers(_no("it is being deleted"), delete=_same("it is being deleted")),
}  # fmt: skip

#: state → the verbs that make sense now, as clients get them.
ALLOWED: dict[PowerState, tuple[str, ...]] = {
    state: tuple(verb.value for verb, answer in answers.items() if answer is YES)
    for state, answers in VERBS.items()
}

#: What a verb that was accepted, and has not begun yet, will make of the VM.
_AFTER = {Verb.START: _S.STARTING, Verb.SAVE: _S.SAVING, Verb.DELETE: _S.DELETING}


def allowed(state: PowerState, phase: Phase) -> tuple[str, ...]:
    """The verbs possible now. What a failed create or delete left can only be deleted."""
    if phase is not Phase.READY:
        return ("delete",) if state is _S.FAILED else ()
    return ALLOWED[state]


def decide(state: PowerState, phase: Phase, verb: Verb, queued: Iterable[Verb] = ()) -> Decision[bool]:
    """The answer to `verb`. `queued`: those that were accepted before it and have not begun."""
    waiting = tuple(queued)
    for earlier in waiting:
        state = _AFTER.get(earlier, state)
    if phase is not Phase.READY and state is _S.FAILED:
        if verb is Verb.DELETE:
            return YES
        return _no("it was not created or deleted completely: delete it")
    if verb is Verb.DELETE and Verb.CHANGE in waiting:
        return _no("it is being changed: wait for that task")
    if phase is Phase.DELETING and verb is not Verb.DELETE:
        return VERBS[_S.DELETING][verb]
    return VERBS[state][verb]


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
