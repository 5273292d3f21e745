"""Recognises crashes of the outer QEMU: under TCG it crashes now and then, which is not Thimble's fault.

Pure but for `with_retries`, which only calls back.

Counted as the outer's fault: QEMU died by a signal nobody of us sent, one of its own assertions failed, or
the server's kernel hit a breakpoint instruction that is not there (int3 in the scheduler: TCG lost a code
patch).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import TypeVar

from thimble.core.problem import Code, Problem, Reason

T = TypeVar("T")

ASSERTION = re.compile(
    rb"^.*(?:Assertion [`'].*failed|ERROR:.*assertion failed|tcg_handle_interrupt).*$", re.MULTILINE
)
BREAKPOINT = re.compile(rb"^.*(?:Oops: int3|int3: 0000).*$", re.MULTILINE)
CRASHES = frozenset(
    {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
)


class OuterCrash(Problem):
    """The outer QEMU or TCG broke; the same run may well succeed when repeated."""

    def __init__(self, evidence: str) -> None:
        super().__init__(
            Code.UNAVAILABLE,
            "the virtual server's own QEMU crashed, not Thimble in it",
            hint="run it again; this does not happen with KVM",
            reasons=(Reason(message=evidence, code=Code.UNAVAILABLE),),
        )
        self.evidence = evidence


def blame(*, exit_status: int | None, qemu_log: bytes, serial: bytes, accel: str = "tcg") -> str:
    """One line of evidence that the outer QEMU crashed; "" when it did not.

    `exit_status` is negative for a signal, None when the process lives or nobody knows.
    """
    if accel != "tcg":
        return ""
    if found := ASSERTION.search(qemu_log):
        return _line(found[0])
    if exit_status is not None and exit_status < 0 and -exit_status in CRASHES:
        return f"QEMU died by {signal.Signals(-exit_status).name}"
    if found := BREAKPOINT.search(serial):
        return _line(found[0])
    return ""


def with_retries(
    run: Callable[[int], T],
    *,
    attempts: int = 3,
    say: Callable[[str], None] = print,
) -> T:
    """`run(attempt)`, repeated visibly while it raises `OuterCrash`; any other failure is final."""
    for attempt in range(1, attempts):
        try:
            return run(attempt)
        except OuterCrash as crash:
            say(f"lab: attempt {attempt} of {attempts}: {crash.detail}: {crash.evidence}; trying again")
    return run(attempts)


def _line(text: bytes) -> str:
    return text.decode(errors="replace").strip()
