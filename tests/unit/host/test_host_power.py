"""Rebooting and powering off: guests first, and they may start again when PID 1 does not obey."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task, TaskState
from thimble.contract.host import PowerRequest
from thimble.contract.verbs import Started
from thimble.contract.vm import HostShutdown
from thimble.core.problem import Code, Problem
from thimble.host.pid1 import Init
from thimble.host.power import Power
from thimble.state.events import Events
from thimble.state.tasks import Tasks


class Guests:
    """Two that run. `stopping`: none may start."""

    def __init__(self) -> None:
        self.running = 2
        self.stopping = False
        self.asked: list[tuple[float, HostShutdown | None]] = []
        self.problem: Problem | None = None

    @asynccontextmanager
    async def stopped(self, timeout: float, how: HostShutdown | None) -> AsyncIterator[None]:
        self.asked.append((timeout, how))
        self.stopping = True
        try:
            await asyncio.sleep(0)
            if self.problem:
                raise self.problem
            self.running = 0
            yield
        except BaseException:
            self.stopping = False
            raise


@pytest.fixture
def first(tmp_path: Path) -> Iterator[socket.socket]:
    """Where PID 1 listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "init.sock"))
        line.setblocking(False)
        yield line


class Host:
    def __init__(self, run: Path) -> None:
        self.guests = Guests()
        self.tasks = Tasks(Events(base=0, clock=lambda: 0.0), clock=lambda: 0.0, entropy=lambda n: b"\1" * n)
        self.power = Power(
            self.tasks, Init(run), running=lambda: self.guests.running, guests_stopped=self.guests.stopped
        )

    async def off(self, verb: str = "reboot", *, dry_run: bool = False) -> Task | DryRun:
        request = PowerRequest(guest_timeout_s=7, guests=HostShutdown.SAVE)
        answer = await self.power.off(verb, Call(input=request, dry_run=dry_run, user="ann"))
        return await self.tasks.wait(answer.task.id) if isinstance(answer, Started) else answer


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))


def test_the_guests_are_ended_before_pid_1_is_told(tmp_path: Path, first: socket.socket) -> None:
    host = Host(tmp_path)
    assert run(host.off("poweroff")).state is TaskState.DONE
    assert host.guests.asked == [(7.0, HostShutdown.SAVE)]
    assert json.loads(first.recv(4096)) == {"verb": "poweroff"}
    assert host.guests.stopping, "the host goes down: nothing starts any more"


def test_when_pid_1_does_not_obey_guests_may_start_again(tmp_path: Path, first: socket.socket) -> None:
    host = Host(tmp_path)
    while True:  # its queue is full: it hangs
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
                line.sendto(b"{}", str(tmp_path / "init.sock"))
        except BlockingIOError:
            break
    task = run(host.off())
    assert task.state is TaskState.FAILED and task.problem.code is Code.UNAVAILABLE
    assert not host.guests.stopping


def test_when_the_guests_cannot_be_ended_the_host_stays(tmp_path: Path, first: socket.socket) -> None:
    host = Host(tmp_path)
    host.guests.problem = Problem(Code.TIMEOUT, "one hangs")
    assert run(host.off()).state is TaskState.FAILED
    assert not host.guests.stopping
    with pytest.raises(BlockingIOError):
        first.recv(4096)


def test_a_dry_run_says_what_ends_and_hosted_why_not(tmp_path: Path) -> None:
    host = Host(tmp_path)
    would = run(host.off(dry_run=True))
    assert not would.possible and would.blockers[0].code is Code.UNSUPPORTED
    with pytest.raises(Problem) as caught:
        run(host.off())
    assert caught.value.code is Code.UNSUPPORTED and "that system itself" in caught.value.hint
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "init.sock"))
        would = run(host.off(dry_run=True))
    assert would.possible
    assert [effect.what for effect in would.effects] == ["ends 2 running VMs", "reboots the host"]
    assert not host.guests.asked


def test_a_button_does_the_same(tmp_path: Path, first: socket.socket) -> None:
    async def work() -> None:
        host = Host(tmp_path)
        host.power.press("poweroff", 90.0)
        while not host.tasks.all() or host.tasks.all()[0].ended is None:
            await asyncio.sleep(0)
        assert host.guests.asked == [(90.0, None)]

    run(work())
    assert json.loads(first.recv(4096)) == {"verb": "poweroff"}
