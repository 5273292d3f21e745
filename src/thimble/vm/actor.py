"""One actor per VM: a queue of requests and of what QEMU told, worked on one at a time; and the VM's status.

    requests (from service) ──► inbox ──► actor task ──► process, QMP
    guest events, exits     ──► first ─┘        └──────► status, events

One request is worked on at a time; what QEMU told meanwhile goes before the next. The task of an idle VM
does not exist. Nobody but the VM's driver writes its status.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from thimble.contract.vm import PowerState, VmStatus
from thimble.vm.qemu import qmp
from thimble.vm.qemu.context import World
from thimble.vm.qemu.engine import Engine
from thimble.vm.record import lifecycle
from thimble.vm.record.spec import VmRecord

T = TypeVar("T")
replace = msgspec.structs.replace


class Actor:
    """`_listen` is given what QEMU told, in order."""

    def __init__(self, id: str, world: World, state: PowerState, *, why: str = "") -> None:
        self.id = id
        self.status = VmStatus(state=state, since=world.clock(), why=why)
        self.engine = Engine(id, world, self._tell)
        self.rundir = self.engine.rundir
        self._world = world
        self._inbox: deque[Callable[[], Awaitable[None]]] = deque()
        self._told: deque[tuple[str, qmp.Json]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """Queue `work` for the actor and wait for its result."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def item() -> None:
            try:
                result = await work()
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                if not done.done():
                    done.set_result(result)

        self._inbox.append(item)
        self._rouse()
        return await asyncio.shield(done)

    def _tell(self, name: str, data: qmp.Json) -> None:
        self._told.append((name, data))
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._act(), name=f"vm {self.id}")

    async def _act(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._told or self._inbox:
                if self._told:
                    await self._listen(*self._told.popleft())
                else:
                    await self._inbox.popleft()()

    async def _listen(self, name: str, data: qmp.Json) -> None:
        raise NotImplementedError

    # ── status ───────────────────────────────────────────────────────────────────────────────────

    def _set(self, state: PowerState, **more: Any) -> None:
        """The only writer of the status. `why` and `last_output` are cleared unless given."""
        old = self.status.state
        if state is not old and state not in lifecycle.NEXT[old]:
            raise AssertionError(f"{self.id}: {old} → {state} is not in the table")
        fresh: dict[str, Any] = {"why": "", "last_output": ""} | more
        if state is not old:
            fresh["since"] = self._world.clock()
        if state not in lifecycle.LIVE:
            fresh |= {"accel": "", "pid": None, "started": None, "pending": ()}
        self.status = replace(self.status, state=state, **fresh)
        self._world.events.publish("vm.changed", self.id, state=state, why=self.status.why)

    def was(self, why: str, state: PowerState) -> None:
        """What is known of it at the agent's start."""
        output = self.rundir.last_output() if state is PowerState.CRASHED else ""
        self.status = replace(self.status, state=state, why=why, last_output=output)

    def created(self) -> None:
        self._set(PowerState.STOPPED)

    def create_failed(self, why: str) -> None:
        """And it could not be taken back either: it is there to be deleted."""
        self._set(PowerState.FAILED, why=why)

    def delete_failed(self, why: str) -> None:
        self._set(PowerState.FAILED, why=why)

    @property
    def _record(self) -> VmRecord:
        return self._world.record(self.id).value
