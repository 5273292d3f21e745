"""The event loop, jobs, programs and supervision, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from thimble.boot import children
from thimble.boot.backoff import Backoff
from thimble.boot.children import Children
from thimble.boot.loop import FATAL, Loop
from thimble.boot.ramlog import RamLog
from thimble.boot.supervise import Supervised


def fail() -> None:
    raise ZeroDivisionError("as wanted")


class World:
    """A loop with children, as PID 1 has it."""

    def __init__(self, where: Path) -> None:
        self.errors: list[str] = []
        self.said: list[str] = []
        self.loop = Loop(lambda what, error: self.errors.append(str(error)))
        self.ring = RamLog(str(where / "log"), limit=2000)
        self.log = where / "log"
        self.children = Children(self.loop, self.ring)

    def until(self, true: Callable[[], object], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < end, f"never happened; said {self.said}, errors {self.errors}"
            self.loop.run_once(0.02)
            self.children.reap()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)
    signal.set_wakeup_fd(-1)


def test_a_job_answers_with_its_result(world: World) -> None:
    answers: list[tuple[Any, str]] = []
    world.children.job("sum", lambda: [1 + 1, "x"], lambda *answer: answers.append(answer))
    world.until(lambda: answers)
    assert answers == [([2, "x"], "")]


def test_a_job_that_raises_answers_with_the_problem(world: World) -> None:
    answers: list[tuple[Any, str]] = []

    def work() -> None:
        raise OSError(19, "No such device")

    world.children.job("bad", work, lambda *answer: answers.append(answer))
    world.until(lambda: answers)
    assert answers[0][0] is None
    assert "No such device" in answers[0][1]
    assert "bad: OSError" in world.log.read_text()


def test_words_of_our_own_come_as_they_are() -> None:
    assert children.in_words(OSError(0, "it is full")) == "it is full"
    assert children.in_words(OSError(5, "Input/output error")) == "OSError: [Errno 5] Input/output error"


def test_a_job_that_is_killed_answers_too(world: World) -> None:
    answers: list[tuple[Any, str]] = []
    world.children.job("dead", lambda: os.kill(os.getpid(), 9), lambda *answer: answers.append(answer))
    world.until(lambda: answers)
    assert answers == [(None, "died: killed by signal 9")]


def test_a_job_that_hangs_is_late_and_its_end_is_only_logged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(children.DEADLINES, "kvm", 0.05)
    gate = world.log.parent / "gate"
    os.mkfifo(gate)
    told: list[Any] = []
    world.children.job("kvm", gate.read_text, lambda *answer: told.append(answer), told.append)
    world.until(lambda: told)
    assert told == ["timed out after 0 s"]
    assert "the boot continues without it" in world.log.read_text()
    gate.write_text("at last")
    world.until(lambda: "after its deadline: at last" in world.log.read_text())
    assert told == ["timed out after 0 s"]


def test_a_job_in_time_is_never_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(children.DEADLINES, "kvm", 5.0)
    told: list[Any] = []
    world.children.job("kvm", lambda: 1, lambda *answer: told.append(answer), told.append)
    world.until(lambda: told)
    assert told == [(1, "")]
    assert world.loop._until_next() == -1.0  # no timer is left


def test_a_programs_output_is_collected_before_its_end_is_told(world: World) -> None:
    lines: list[str] = []
    seen: list[list[str]] = []
    argv = [sys.executable, "-c", "print('one'); print('two')"]
    world.children.spawn(argv, lambda status: seen.append(list(lines)), collect=lines)
    world.until(lambda: seen)
    assert seen == [["one", "two"]]


def test_a_program_that_does_not_exist_ends_with_127(world: World) -> None:
    ends: list[int] = []
    assert world.children.spawn(["/nonexistent/program"], ends.append) == 0
    world.until(lambda: ends)
    assert os.waitstatus_to_exitcode(ends[0]) == 127


def test_a_fallen_child_is_started_again_and_its_last_words_are_told(world: World) -> None:
    argv = [sys.executable, "-c", "print('fine', flush=True); raise SystemExit('no more')"]
    child = Supervised(
        "child",
        world.loop,
        lambda on_exit: world.children.spawn(argv, on_exit, name="child"),
        world.said.append,
        world.children.last_output,
        Backoff(first=0.01),
    )
    child.start()
    world.until(lambda: len(world.said) >= 3)
    child.stop()
    assert world.said[0] == "child ended (exit code 1), restarting in 0 s: no more"


def test_a_stopped_child_stays_down(world: World) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Supervised(
        "child",
        world.loop,
        lambda on_exit: world.children.spawn(argv, on_exit),
        world.said.append,
        world.children.last_output,
    )
    child.start()
    assert child.pid
    child.stop()
    world.until(lambda: not child.pid)
    assert world.said == []


def test_a_restart_asked_for_comes_at_once_and_is_not_a_fall(world: World) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Supervised(
        "child",
        world.loop,
        lambda on_exit: world.children.spawn(argv, on_exit),
        world.said.append,
        world.children.last_output,
        Backoff(first=30),
    )
    child.start()
    first = child.pid
    child.restart()
    world.until(lambda: child.pid not in (0, first), timeout=10)
    child.stop()
    assert world.said == []


def test_an_error_in_a_callback_is_told_and_the_loop_goes_on(world: World) -> None:
    done: list[int] = []
    world.loop.after(0, fail)
    world.loop.after(0.01, lambda: done.append(1))
    world.until(lambda: done)
    assert world.errors == ["as wanted"]


def test_too_many_errors_end_the_loop(world: World) -> None:
    for _ in range(FATAL):
        world.loop.after(0, fail)
    with pytest.raises(ZeroDivisionError):
        world.loop.run_once(0.1)


def test_a_cancelled_timer_does_nothing(world: World) -> None:
    done: list[str] = []
    world.loop.after(0, lambda: done.append("cancelled")).cancel()
    world.loop.after(0.01, lambda: done.append("kept"))
    world.until(lambda: done)
    assert done == ["kept"]


def test_the_log_is_bounded(world: World) -> None:
    for number in range(200):
        world.ring.write("test", f"line {number} {'x' * 50}")
    assert world.log.stat().st_size <= 2000
    assert world.log.with_name("log.1").stat().st_size <= 2000
    assert "line 199" in world.log.read_text()
