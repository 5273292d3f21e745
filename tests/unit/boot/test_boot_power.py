"""The way down: who is asked, who is waited for, and what a second press does."""

from __future__ import annotations

import signal

import pytest

from thimble.boot import power
from thimble.boot.power import POWEROFF, REBOOT, Power


class FakeAgent:
    """Stands for the supervised agent: remembers the signals it got."""

    def __init__(self) -> None:
        self.pid = 100
        self.got: list[int] = []
        self.stopped = False

    def signal(self, number: int) -> bool:
        if self.pid:
            self.got.append(number)
        return bool(self.pid)

    def stop(self) -> None:
        self.stopped = True


class FakeLoop:
    """Remembers timers; `pass_time` lets all of them fire."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, object]] = []

    def after(self, seconds: float, call: object) -> None:
        self.timers.append((seconds, call))

    def pass_time(self) -> None:
        timers, self.timers = self.timers, []
        for _, call in timers:
            call()  # type: ignore[operator]


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.agent, self.loop = FakeAgent(), FakeLoop()
        self.to_all: list[int] = []
        monkeypatch.setattr(power, "_signal_all", self.to_all.append)
        monkeypatch.setattr(power, "processes_left", lambda: True)
        self.power = Power(
            self.loop,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self.said.append,
            self.agent,  # type: ignore[arg-type]
            [self.agent],  # type: ignore[list-item]
            lambda: "",
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize(("kind", "number"), [(POWEROFF, signal.SIGPWR), (REBOOT, signal.SIGUSR2)])
def test_the_agent_is_asked_and_waited_for(world: World, kind: str, number: int) -> None:
    world.power.agent_ready()
    world.power.ask(kind, "button")
    assert world.agent.got == [number]
    assert world.power.stage == "draining"
    assert world.to_all == []


def test_the_agents_answer_stops_everything(world: World) -> None:
    world.power.agent_ready()
    world.power.ask(REBOOT, "keys")
    world.power.stop(REBOOT)
    assert world.power.stage == "stopping"
    assert world.agent.stopped
    assert world.to_all == [signal.SIGTERM]


def test_an_agent_that_never_served_is_not_waited_for(world: World) -> None:
    world.power.ask(POWEROFF, "button")
    assert world.agent.got == [], "it has no handler yet: the signal would kill it"
    assert world.power.stage == "stopping"


def test_a_second_press_does_not_wait(world: World) -> None:
    world.power.agent_ready()
    world.power.ask(POWEROFF, "button")
    world.power.ask(POWEROFF, "button")
    assert world.power.stage == "stopping"
    assert any("not waiting" in line for line in world.said)


def test_guests_that_take_too_long_are_not_waited_for(world: World) -> None:
    world.power.agent_ready()
    world.power.ask(POWEROFF, "button")
    assert [seconds for seconds, _ in world.loop.timers] == [Power.drain_timeout]
    world.loop.pass_time()
    assert world.power.stage == "stopping"


def test_an_agent_that_fell_while_draining_is_asked_again_when_it_is_back(world: World) -> None:
    world.power.agent_ready()
    world.agent.pid = 0
    world.power.ask(REBOOT, "keys")
    assert (world.power.stage, world.agent.got) == ("draining", [])
    world.agent.pid = 101
    world.power.agent_ready()
    assert world.agent.got == [signal.SIGUSR2]


def test_once_stopping_nothing_more_is_asked(world: World) -> None:
    world.power.stop(REBOOT)
    world.power.ask(POWEROFF, "button")
    world.power.stop(POWEROFF)
    assert world.to_all == [signal.SIGTERM]
