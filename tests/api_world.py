"""A small agent for API tests: real accounts, tasks and events, stand-ins for VMs, switches, images."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contract_fit import check_stand_ins
from thimble.access import passwords
from thimble.access.auth import Auth
from thimble.access.session_verbs import SessionService
from thimble.access.verbs import TokenService, UserService
from thimble.api.app import Api
from thimble.api.metrics import Sample
from thimble.contract import network, storage
from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Nothing
from thimble.contract.host import Role
from thimble.contract.verbs import Started
from thimble.core.problem import Code, Problem
from thimble.dispatch.event_verbs import EventService
from thimble.dispatch.registry import Registry
from thimble.dispatch.task_verbs import TaskService
from thimble.state.events import Events
from thimble.state.store import check
from thimble.state.tasks import Progress, Tasks

PASSWORD = "correct horse"
HASH = passwords.hashed(PASSWORD, b"salt" * 4, cost=11)


class Clock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.jumped = 0.0

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.now += seconds
        self.jumped += seconds

    def ticks(self) -> float:
        """Time that passed."""
        return self.now - self.jumped


def counted(count: int, _number: itertools.count[int] = itertools.count()) -> bytes:  # noqa: B008
    """Different every time, and no secret."""
    return (next(_number) * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big").rjust(count, b"\x5a")[-count:]


class Line:
    """A serial line that echoes, after its first words."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queue.put_nowait(b"login: ")
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.queue.get():
            yield data

    async def write(self, data: bytes) -> None:
        await self.queue.put(data)

    def close(self) -> None:
        self.closed.set()


class Vms:
    """Keeps nothing but what was asked of it."""

    def __init__(self, tasks: Tasks, events: Events) -> None:
        self.tasks = tasks
        self.events = events
        self.calls: list[Call[object]] = []
        self.lines: list[Line] = []
        self.rows: tuple[wire.VmSummary, ...] = ()
        self.go_on = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def create(self, call: Call[wire.VmCreate]) -> Started | DryRun:
        self.calls.append(call)  # type: ignore[arg-type]
        if call.dry_run:
            return DryRun(possible=True, effects=(Effect(what=f"creates {call.input.name}"),))
        return self._start("vm.create", "vm-1")

    def start(self, call: Call[wire.StartRequest]) -> Started:
        self.calls.append(call)  # type: ignore[arg-type]
        return self._start("vm.start", call.path["vm"])

    async def stop(self, call: Call[wire.StopRequest]) -> Started:
        self.calls.append(call)  # type: ignore[arg-type]
        return self._start("vm.stop", call.path["vm"])

    async def delete(self, call: Call[wire.DeleteRequest]) -> Started:
        self.calls.append(call)  # type: ignore[arg-type]
        return self._start("vm.delete", call.path["vm"])

    async def change(self, call: Call[wire.VmChange]) -> Started:
        check(call.if_match, 7, "VM")
        return self._start("vm.change", call.path["vm"])

    async def kill(self, call: Call[None]) -> Started:
        return self._start("vm.kill", call.path["vm"])

    async def reset(self, call: Call[None]) -> Started:
        return self._start("vm.reset", call.path["vm"])

    async def pause(self, call: Call[None]) -> Started:
        return self._start("vm.pause", call.path["vm"])

    async def resume(self, call: Call[None]) -> Started:
        return self._start("vm.resume", call.path["vm"])

    async def save(self, call: Call[None]) -> Started:
        return self._start("vm.save", call.path["vm"])

    async def log(self, call: Call[None]) -> wire.ConsoleLog:
        return wire.ConsoleLog(text="login: ", truncated=False)

    async def list(self, call: Call[None]) -> wire.VmList:
        return wire.VmList(rev=self.events.rev, vms=self.rows)

    async def get(self, call: Call[None]) -> wire.Vm:
        if call.path["vm"] == "boom":
            raise RuntimeError("a secret of the inside")
        raise Problem(Code.NOT_FOUND, f"there is no VM {call.path['vm']!r}")

    async def console(self, call: Call[None]) -> Line:
        if call.path["vm"] != "web1":
            raise Problem(Code.CONFLICT, "it is not running", hint="Start it first.")
        self.lines.append(Line())
        return self.lines[-1]

    def _start(self, verb: str, subject: str) -> Started:
        self.loop = asyncio.get_running_loop()

        async def work(progress: Progress) -> None:
            async with progress.step("wait"):
                await self.go_on.wait()

        return Started(task=self.tasks.start(verb, subject, work, cancellable=True), subject=subject)


class Switches:
    """One switch, and a count of how often one was created."""

    def __init__(self) -> None:
        self.created = 0

    async def create(self, call: Call[network.SwitchCreate]) -> network.Switch:
        self.created += 1
        await asyncio.sleep(0)
        if call.input.name == "taken":
            raise Problem(Code.EXISTS, "the switch taken exists already")
        return self._switch(call.input.name, self.created)

    async def list(self, call: Call[None]) -> network.SwitchList:
        return network.SwitchList(rev=7, switches=(self._switch("nat", 7),))

    async def get(self, call: Call[None]) -> network.Switch:
        return self._switch(call.path["switch"], 7)

    async def change(self, call: Call[network.SwitchChange]) -> network.Switch:
        check(call.if_match, 7, "switch")
        return self._switch(call.path["switch"], 8)

    async def delete(self, call: Call[None]) -> Nothing:
        raise Problem(Code.IN_USE, f"VMs use the switch {call.path['switch']}")

    def _switch(self, name: str, rev: int) -> network.Switch:
        return network.Switch(
            name=name, rev=rev, kind=network.SwitchKind.NAT, bridge="th0", subnet="10.0.0.0/24",
            gateway="10.0.0.1", uplink="", forwards=(), ports=(), leases=(), up=True, why="",
        )  # fmt: skip


class Images:
    """Takes uploads and counts their bytes."""

    def __init__(self) -> None:
        self.problem: Problem | None = None
        self.paths: list[str] = []
        self.begun, self.cut_off = asyncio.Event(), asyncio.Event()

    async def list(self, call: Call[None]) -> storage.ImageList:
        return storage.ImageList(rev=7, images=())

    async def upload(self, call: Call[None]) -> storage.Image:
        assert call.body is not None
        self.paths.append(call.path["image"])
        self.begun.set()
        size = 0
        try:
            async for piece in call.body:
                size += len(piece)
        except Problem as problem:
            self.problem = problem
            self.cut_off.set()
            raise
        return storage.Image(
            name=call.path["image"],
            datastore="local",
            format="raw",
            file_bytes=size,
            size_bytes=size,
            sha256="",
        )

    async def delete(self, call: Call[None]) -> Nothing:
        raise Problem(Code.NOT_FOUND, f"there is no image {call.path['image']!r}")


class World:
    """All of it, with `admin` whose password is `PASSWORD`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.clock = Clock()
        self.events = Events(base=1000, clock=self.clock, keep=16)
        self.tasks = Tasks(self.events, clock=self.clock, entropy=counted)
        self.auth = Auth(
            state,
            durable=False,
            clock=self.clock,
            entropy=counted,
            rev=lambda: self.events.rev,
            ticks=self.clock.ticks,
        )
        self.auth.first_password(HASH)
        self.vms = Vms(self.tasks, self.events)
        self.switches = Switches()
        self.images = Images()
        self.ready = True
        stand_ins = {"vm": self.vms, "switch": self.switches, "image": self.images}
        check_stand_ins(stand_ins)
        registry = Registry(
            {
                "session": SessionService(self.auth),
                "user": UserService(self.auth),
                "token": TokenService(self.auth),
                "task": TaskService(self.tasks, lambda: self.events.rev),
                "event": EventService(self.events),
                **stand_ins,
            }
        )
        self.nouns = registry.nouns
        self.api = Api(
            registry=registry,
            auth=self.auth,
            ready=lambda: self.ready,
            numbers=lambda: (Sample(name="vms", value=3, labels={"state": "running"}, help="VMs."),),
            fingerprint="ab" * 32,
        )

    def admin(self) -> str:
        """A session of `admin`, without the cost of a password."""
        return self.auth.open_session("admin")[0]

    def person(self, name: str, role: Role) -> str:
        """Somebody of that role, and a session of theirs."""
        value = msgspec.structs.replace(self.auth.users.get("admin").value, role=role)
        self.auth.users.put(name, value)
        return self.auth.open_session(name)[0]

    def go_on(self) -> None:
        """Let the VMs' tasks end; from any thread."""
        assert self.vms.loop is not None
        self.vms.loop.call_soon_threadsafe(self.vms.go_on.set)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """For the conftest.py of whoever asks the API."""
    return World(tmp_path)
