"""Trials and the watchdog."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from thimble.boot import trial
from thimble.boot.devices.watchdog import Watchdog
from thimble.boot.trial import BootTrial


class Loop:
    """Remembers timers."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def after(self, seconds: float, call: Any) -> Any:
        timer = type("Timer", (), {"seconds": seconds, "call": staticmethod(call), "cancelled": False})()
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer


def begun(monkeypatch: pytest.MonkeyPatch, up: float) -> tuple[BootTrial, Loop, list[str], list[str]]:
    monkeypatch.setattr(trial.time, "clock_gettime", lambda _: up)
    loop, said, failed = Loop(), [], []
    made: Any = loop
    one = BootTrial(made, 300.0, said.append, failed.append)
    one.begin()
    return one, loop, said, failed


def test_a_trial_is_given_up_when_nobody_confirms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, loop, _, failed = begun(monkeypatch, up=20.0)
    assert [timer.seconds for timer in loop.timers] == [280.0]
    loop.timers[0].call()
    assert failed == ["the trial boot was not confirmed within 300 s"]


def test_a_confirmed_trial_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    one, loop, said, _ = begun(monkeypatch, up=20.0)
    one.confirmed()
    assert loop.timers[0].cancelled
    assert said[-1] == "the trial boot is confirmed"
    one.confirmed()
    assert len(said) == 2


def test_a_trial_found_late_still_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _, loop, _, _ = begun(monkeypatch, up=400.0)
    assert loop.timers[0].seconds == 0.0


def test_the_watchdog_is_fed_by_the_loop_and_disarmed_at_the_end(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    os.mkfifo(device)
    reader = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    loop, notes = Loop(), []
    made: Any = loop
    dog = Watchdog(made, notes.append, str(device))
    dog.open()
    assert os.read(reader, 10) == b"\0"
    loop.timers.pop().call()
    assert os.read(reader, 10) == b"\0"
    dog.close()
    assert os.read(reader, 10) == b"V"
    loop.timers.pop().call()
    assert os.read(reader, 10) == b""
    assert len(notes) == 1
    os.close(reader)


def test_a_machine_without_watchdog_is_fine(tmp_path: Path) -> None:
    loop, notes = Loop(), []
    made: Any = loop
    dog = Watchdog(made, notes.append, str(tmp_path / "none"))
    dog.open()
    dog.close()
    assert (notes, loop.timers) == ([], [])
