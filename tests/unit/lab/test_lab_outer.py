"""A crash of the outer QEMU is told from a failure of ours, and only the former is repeated."""

from __future__ import annotations

import signal

import pytest

from thimble.core.problem import Code, Problem
from thimble.lab.outer import OuterCrash, blame, with_retries

INT3 = b"[    9.1] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\n[    9.1] RIP: 0010:__schedule+0x2f/0x9a0\r\n"
ASSERTION = b"ERROR:../accel/tcg/tcg-accel-ops.c:83:tcg_handle_interrupt: assertion failed: (bql_locked())\n"


def test_a_signal_nobody_sent_is_the_outers_fault() -> None:
    assert blame(exit_status=-signal.SIGABRT, qemu_log=b"", serial=b"") == "QEMU died by SIGABRT"
    assert "SIGSEGV" in blame(exit_status=-signal.SIGSEGV, qemu_log=b"", serial=b"")


def test_its_assertion_is_quoted_as_evidence() -> None:
    assert "tcg_handle_interrupt" in blame(
        exit_status=-signal.SIGABRT, qemu_log=b"noise\n" + ASSERTION, serial=b""
    )


def test_a_breakpoint_that_is_not_there_is_tcgs_fault() -> None:
    assert "int3" in blame(exit_status=None, qemu_log=b"", serial=INT3)


@pytest.mark.parametrize(
    "serial",
    [
        b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n",
        b"BUG: kernel NULL pointer dereference, address: 0000000000000010\r\n",
        b"thimble: problem: the agent ended\r\n",
    ],
)
def test_failures_of_ours_stay_ours(serial: bytes) -> None:
    assert blame(exit_status=None, qemu_log=b"", serial=serial) == ""
    assert blame(exit_status=0, qemu_log=b"", serial=serial) == ""
    assert blame(exit_status=-signal.SIGKILL, qemu_log=b"", serial=serial) == ""
    assert blame(exit_status=1, qemu_log=b"qemu: could not open disk", serial=serial) == ""


def test_under_kvm_nothing_is_excused() -> None:
    assert blame(exit_status=-signal.SIGABRT, qemu_log=ASSERTION, serial=INT3, accel="kvm") == ""


def test_a_run_is_repeated_visibly_until_it_succeeds() -> None:
    said: list[str] = []

    def run(attempt: int) -> str:
        if attempt < 3:
            raise OuterCrash(f"evidence {attempt}")
        return f"done at {attempt}"

    assert with_retries(run, say=said.append) == "done at 3"
    assert ["evidence 1" in said[0], "evidence 2" in said[1], len(said)] == [True, True, 2]


def test_after_the_last_attempt_the_crash_is_told() -> None:
    attempts: list[int] = []

    def run(attempt: int) -> None:
        attempts.append(attempt)
        raise OuterCrash("again")

    with pytest.raises(OuterCrash, match="QEMU crashed"):
        with_retries(run, say=lambda line: None)
    assert attempts == [1, 2, 3]


def test_a_failure_of_ours_is_never_repeated() -> None:
    attempts: list[int] = []

    def run(attempt: int) -> None:
        attempts.append(attempt)
        raise Problem(Code.TIMEOUT, "not ready")

    with pytest.raises(Problem, match="not ready"):
        with_retries(run, say=lambda line: None)
    assert attempts == [1]
