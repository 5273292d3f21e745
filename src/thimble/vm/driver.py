"""One actor per VM: it alone owns the VM's status, its QEMU process and its QMP connection.

    requests (from service) ──► inbox ──► actor task ──► process, QMP
    guest events, exits     ──► first ─┘        └──────► status, events

One request is worked on at a time; what QEMU told meanwhile goes before the next. Only `kill` does not
queue: its signal goes out at once. The actor never writes records: it tells `World.intend` when a guest has
decided for itself. The task of an idle VM does not exist.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import msgspec

from thimble.contract.vm import CrashPolicy, Intent, PowerState, VmStatus
from thimble.core.problem import Problem
from thimble.core.units import show_seconds
from thimble.state.tasks import Progress
from thimble.sys import log
from thimble.vm import change, control, lifecycle
from thimble.vm.engine import Engine
from thimble.vm.lifecycle import Ending
from thimble.vm.spec import Running, VmRecord
from thimble.vm.world import World

T = TypeVar("T")
replace = msgspec.structs.replace

#: A VM that ran this long is steady: its next crash counts as the first.
STEADY_S = 60.0
SILENT = "QEMU does not answer on its control socket: kill it if it hangs"
#: Told by the driver to itself when it is time to try a silent QEMU again.
RETRY = "RETRY"
#: Seconds a QEMU that was adopted gets to answer; one that was tried before gets less.
ADOPT_S = 10.0
REACH_S = 5.0


class Driver:
    def __init__(self, id: str, world: World, state: PowerState, *, why: str = "") -> None:
        self.id = id
        self.status = VmStatus(state=state, since=world.clock(), why=why)
        self.off = asyncio.Event()
        self.off.set()
        self.engine = Engine(id, world, self._tell)
        self.place = self.engine.place
        #: Held by a change from its first file to its last.
        self.changing = asyncio.Lock()
        self._world = world
        self._inbox: deque[Callable[[], Awaitable[None]]] = deque()
        self._told: deque[tuple[str, control.Json]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._helper: asyncio.Task[bool] | None = None
        self._reaching = asyncio.Lock()
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0

    # ── the inbox ────────────────────────────────────────────────────────────────────────────────

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

    def _tell(self, name: str, data: control.Json) -> None:
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
        output = self.place.last_output() if state is PowerState.CRASHED else ""
        self.status = replace(self.status, state=state, why=why, last_output=output)

    def created(self) -> None:
        self._set(PowerState.STOPPED)

    def deleting(self) -> None:
        self.cancel_restart()
        self._set(PowerState.DELETING)

    def create_failed(self, why: str) -> None:
        """And it could not be taken back either: it is there to be deleted."""
        self._set(PowerState.FAILED, why=why)

    def delete_failed(self, why: str) -> None:
        self._set(PowerState.FAILED, why=why)

    @property
    def _record(self) -> VmRecord:
        return self._world.record(self.id).value

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, progress: Progress) -> None:
        """Start QEMU; returns when it runs. Raises `Problem`; then nothing of it is left."""
        if self.status.state in lifecycle.LIVE:
            return
        self.cancel_restart()
        self.engine.killed = False
        self._set(PowerState.STARTING)
        self.off.clear()
        try:
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self.engine.release, self._record.nics)
                running = await self.engine.launch(progress)
                undo.pop_all()
        except Problem as error:
            self._set(PowerState.STOPPED if self.engine.killed else PowerState.FAILED, why=error.detail)
            self.off.set()
            raise
        except BaseException as error:
            self._set(PowerState.FAILED, why=f"{type(error).__name__}: {error}")
            self.off.set()
            raise
        self._set(PowerState.RUNNING, pending=(), **self._facts(running))

    # ── adoption ─────────────────────────────────────────────────────────────────────────────────

    def adoptable(self) -> bool:
        """Does a QEMU of this VM run? Takes it in hand if so; the rest is `adopt`'s."""
        running = self.engine.find(self._record)
        if running is None:
            return False
        self.off.clear()
        pending = change.plan(running, self._record).pending
        started = running.started
        state = PowerState.RUNNING
        self.status = VmStatus(state=state, since=started, pending=pending, **self._facts(running))
        return True

    def _facts(self, running: Running) -> dict[str, Any]:
        who = self.engine.who
        return {"accel": running.accel, "pid": who and who.pid, "started": running.started}

    async def adopt(self) -> None:
        """Connect to a QEMU that outlived the agent, and ask it what it is: reality beats the record."""
        await self.engine.attach()
        with suppress(Problem):
            await self._reach(ADOPT_S)

    async def _reach(self, timeout: float) -> None:
        """Connect to a QEMU that runs and is not connected. Raises `Problem`; it is tried again later."""
        async with self._reaching:
            silent = self.status.why == SILENT
            if self.engine.running is None or (self.engine.qmp is not None and not silent):
                return
            self._cancel_retry()
            try:
                state = await self.engine.reach(timeout)
            except Problem:
                if self.engine.running is not None:
                    self._set(self.status.state, why=SILENT)
                    self._retries += 1
                    wait = lifecycle.backoff(self._retries)
                    self._retry = asyncio.get_running_loop().call_later(wait, self._tell, RETRY, {})
                raise
            self._retries = 0
            self._found(state, "" if silent else self.status.why)

    def _found(self, word: str, why: str) -> None:
        """What QEMU says it is, after nobody listened to it for a while."""
        state = self.status.state
        if word == "paused" and state is PowerState.RUNNING:
            state = PowerState.PAUSED
        elif word == "running" and state is PowerState.PAUSED:
            state = PowerState.RUNNING
        if (state, why) != (self.status.state, self.status.why):
            self._set(state, why=why)

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _connected(self) -> control.Control:
        """The connection, made again if it must be. Raises `Problem`."""
        with suppress(Problem):  # `control` has the better words
            await self._reach(REACH_S)
        return self.engine.control

    async def was_lost(self) -> None:
        """QEMU ended while no agent was there to see it."""
        ended = self.engine.ending()
        await self._release()
        self.status = replace(self.status, state=PowerState.RUNNING)
        self._concluded(ended, "while the agent was not running")

    # ── what QEMU tells ──────────────────────────────────────────────────────────────────────────

    async def _listen(self, name: str, data: control.Json) -> None:
        try:
            await self._heard(name, data)
        except Problem as problem:  # it is silent: its status says so
            log.say(f"{self.id}: {problem.detail}")
        except Exception as error:  # the actor must live on
            log.say(f"{self.id}: {name}: {type(error).__name__}: {error}")

    async def _heard(self, name: str, data: control.Json) -> None:
        state = self.status.state
        keep = {"why": self.status.why}
        if name == "EXITED":
            await self._exited()
        elif name == "STOP" and state is PowerState.RUNNING:
            self._set(PowerState.PAUSED, **keep)
        elif name == "RESUME" and state is PowerState.PAUSED:
            self._set(PowerState.RUNNING)
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            words = data.get("reason", "unknown")
            self._set(
                state,
                why=f"disk {data.get('device') or data.get('node-name')}: {words}; resume it when cured",
            )
        elif name == control.LOST:
            if await self.engine.lost():
                await self._reach(REACH_S)
        elif name == RETRY:
            await self._reach(REACH_S)

    async def _exited(self) -> None:
        ended = self.engine.ending()
        await self._release()
        self._concluded(ended, "")

    async def _release(self) -> None:
        """QEMU is gone: what its things still say against it must not keep the VM from being off."""
        self._cancel_retry()
        self._retries = 0
        try:
            await self.engine.release(self._record.nics)
        except Exception as error:
            log.say(f"{self.id}: its things are not all given back: {type(error).__name__}: {error}")
            self.place.clear()

    def _concluded(self, ended: Ending, when: str) -> None:
        """QEMU is gone: what does that mean for the VM?"""
        record, world = self._record, self._world
        # A full disk may have kept the wish to stop out of the record.
        asked = self.engine.killed or world.host_stopping or record.intent is Intent.STOPPED
        asked = asked or self.status.state is PowerState.STOPPING
        started = self.status.started
        if asked:
            self._set(PowerState.STOPPED, restarts=0)
        elif ended is Ending.GUEST:
            try:
                world.intend(self.id, Intent.STOPPED)
            except Problem as error:  # the disk is full: off it is all the same
                log.say(f"{self.id}: that it is to stay off is not kept: {error.detail}")
            self._set(PowerState.STOPPED, why=" ".join(filter(None, (ended, when))), restarts=0)
        else:
            steady = started is not None and world.clock() - started > STEADY_S
            self._crashed(" ".join(filter(None, (ended, when))), 0 if steady else self.status.restarts)
        self.engine.killed = False
        self.off.set()

    def _crashed(self, why: str, restarts: int) -> None:
        output = self.place.last_output()
        if self._record.on_crash is CrashPolicy.RESTART:
            wait = lifecycle.backoff(restarts + 1)
            why = f"{why}; starts again in {show_seconds(wait)}"
            self._again = asyncio.get_running_loop().call_later(wait, self._restart)
            restarts += 1
        self._set(PowerState.CRASHED, why=why, last_output=output, restarts=restarts)

    def _restart(self) -> None:
        self._again = None
        if self.status.state in (PowerState.CRASHED, PowerState.FAILED):
            self._world.restart(self.id)

    def restart_failed(self, why: str) -> None:
        """A restart by the crash policy did not work: try again, ever later."""
        state = self.status.state
        if state in (PowerState.CRASHED, PowerState.FAILED) and self._record.intent is Intent.RUNNING:
            wait = lifecycle.backoff(self.status.restarts + 1)
            self._again = asyncio.get_running_loop().call_later(wait, self._restart)
            more = {"restarts": self.status.restarts + 1, "last_output": self.status.last_output}
            self._set(state, why=f"{why}; tries again in {show_seconds(wait)}", **more)

    def cancel_restart(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    async def command(self, name: str, state: PowerState | None = None) -> None:
        """A QMP command without arguments; `state` is what follows from it."""
        await (await self._connected()).execute(name)
        if (
            state is not None
            and self.status.state is not state
            and state in lifecycle.NEXT[self.status.state]
        ):
            self._set(state)

    async def begin_stop(self) -> None:
        """Ask the guest to shut down: power button, and its agent if one answers."""
        if self.status.state not in lifecycle.LIVE:
            self._give_up()
            return
        qmp = await self._connected()
        if self.status.state is PowerState.PAUSED:
            await qmp.execute("cont")
        await qmp.execute("system_powerdown")
        if self.status.state is not PowerState.STOPPING:
            self._set(PowerState.STOPPING)
        if self._record.guest_agent:
            self._helper = asyncio.get_running_loop().create_task(control.guest_shutdown(self.place.qga))

    async def stop_refused(self, waited: float) -> None:
        """The guest did not obey: it runs on, and we say so."""
        if self.status.state is PowerState.STOPPING:
            why = f"asked to shut down {show_seconds(waited)} ago, the guest runs on"
            self._set(PowerState.RUNNING, why=why)

    def kill(self) -> None:
        """End QEMU at once; does not queue."""
        self.engine.kill()

    def _give_up(self) -> None:
        """Nobody wants it to run any longer: no further restart."""
        self.cancel_restart()
        if self.status.state in (PowerState.CRASHED, PowerState.FAILED):
            self._set(PowerState.STOPPED, restarts=0)

    async def give_up(self) -> None:
        if self.status.state not in lifecycle.LIVE:
            self.engine.killed = False
            self._give_up()

    async def follow(self) -> tuple[str, ...]:
        """Bring a running QEMU to its changed record as far as it can; what remains pending, in words."""
        found = self._world.record(self.id)
        if self.engine.running is None:
            return ()
        with suppress(Problem):  # what it cannot follow now is pending
            await self._reach(REACH_S)
        try:
            await self.engine.follow(found.value, found.shelf)
        finally:
            pending = change.plan(self.engine.running, found.value).pending
            self._set(self.status.state, why=self.status.why, pending=pending)
        return pending

    def plan(self, wanted: VmRecord) -> change.Plan | None:
        """How the running QEMU would follow; None when none runs."""
        return None if self.engine.running is None else change.plan(self.engine.running, wanted)

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        self.cancel_restart()
        self._cancel_retry()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.engine.close()
