"""One actor per VM: it alone owns the VM's status, its QEMU process and its QMP connection.

    requests (from service) ──► inbox ──► actor task ──► process, QMP
    guest events, exits     ──► first ─┘        └──────► status, events

One request is worked on at a time; what QEMU told meanwhile goes before the next. Only `kill` does not
queue: its signal goes out at once. The actor never writes records: it tells `World.intend` when a guest has
decided for itself. The task of an idle VM does not exist.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from thimble.console.serial import Consoles
from thimble.contract.vm import CrashPolicy, Intent, PowerState, VmStatus
from thimble.core.problem import Code, Problem
from thimble.core.units import show_seconds
from thimble.host.hardware import Accel
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.store import Record
from thimble.state.tasks import Progress, Tasks
from thimble.storage.service import Storage
from thimble.sys import cgroup, log
from thimble.sys import process as linux
from thimble.vm import change, control, hot, layout, lifecycle, outfit, process, render
from thimble.vm.control import Control
from thimble.vm.lifecycle import Ending
from thimble.vm.process import Outfit, Place, QemuPaths
from thimble.vm.spec import Running, VmRecord

T = TypeVar("T")
replace = msgspec.structs.replace

#: A VM that ran this long is steady: its next crash counts as the first.
STEADY_S = 60.0


class World:
    """What all drivers share. `record`, `intend` and `restart` belong to the service."""

    def __init__(
        self,
        *,
        storage: Storage,
        network: Network,
        consoles: Consoles,
        events: Events,
        tasks: Tasks,
        accel: Accel,
        qemu: QemuPaths,
        run: Path,
        clock: Callable[[], float],
        own_users: bool,
        cgroups: Path | None,
    ) -> None:
        self.storage = storage
        self.network = network
        self.consoles = consoles
        self.events = events
        self.tasks = tasks
        self.accel = accel
        self.qemu = qemu
        self.run = run
        self.clock = clock
        self.own_users = own_users
        self.cgroups = cgroups
        self.host_stopping = False
        self.record: Callable[[str], Record[VmRecord]]
        self.intend: Callable[[str, Intent], None]
        self.restart: Callable[[str], None]

    def group(self, id: str) -> Path | None:
        return None if self.cgroups is None else self.cgroups / id


class Driver:
    def __init__(self, id: str, world: World, state: PowerState, *, why: str = "") -> None:
        self.id = id
        self.status = VmStatus(state=state, since=world.clock(), why=why)
        self.off = asyncio.Event()
        self.off.set()
        self.place = Place(world.run, id)
        self._world = world
        self._inbox: deque[Callable[[], Awaitable[None]]] = deque()
        self._told: deque[tuple[str, control.Json]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._who: linux.Identity | None = None
        self._qmp: Control | None = None
        self._running: Running | None = None
        self._killed = False
        self._helper: asyncio.Task[bool] | None = None

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
        self._killed = False
        self._set(PowerState.STARTING)
        self.off.clear()
        try:
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self._release)
                await self._launch(progress)
                undo.pop_all()
        except Problem as error:
            self._set(PowerState.STOPPED if self._killed else PowerState.FAILED, why=error.detail)
            self.off.set()
            raise
        except BaseException as error:
            self._set(PowerState.FAILED, why=f"{type(error).__name__}: {error}")
            self.off.set()
            raise
        assert self._running is not None and self._who is not None
        self._set(
            PowerState.RUNNING,
            accel=self._running.accel,
            pid=self._who.pid,
            started=self._running.started,
            pending=(),
        )

    async def _launch(self, progress: Progress) -> None:
        found = self._world.record(self.id)
        record, world = found.value, self._world
        source = outfit.Source(world.storage, world.network, self.id, found.shelf)
        with Outfit() as things:
            async with progress.step("open"):
                self.place.make()
                names = outfit.open_all(things, self.place, source, record, world.qemu, world.accel.name)
            async with progress.step("ports"):
                for nic in record.nics:
                    await outfit.open_nic(things, source, record, nic)
            async with progress.step("spawn"):
                self._spawn(record, things, names)
        assert self._who is not None
        async with progress.step("connect"):
            await self._connect(record)
        self._watch = asyncio.get_running_loop().create_task(self._watch_exit(self._who))

    def _spawn(self, record: VmRecord, things: Outfit, credentials: tuple[str, ...]) -> None:
        world = self._world
        given = render.Machinery(
            accel=world.accel.name,
            share=world.qemu.share,
            fds=things.fds,
            credentials=credentials,
            qboot=world.qemu.qboot,
        )
        argv = render.argv([world.qemu.program], render.render(record, given))
        self._running = Running(
            record=record, ports=layout.ports(record), accel=world.accel.name, started=world.clock()
        )
        self.place.write_running(self._running)
        self._who = process.spawn(
            self.place,
            argv,
            things,
            uid=record.uid if world.own_users else None,
            group=world.group(self.id),
        )
        if self._killed:
            linux.send(self._who, signal.SIGKILL)

    async def _connect(self, record: VmRecord) -> None:
        assert self._who is not None
        try:
            self._qmp = await control.connect(self.place.qmp, self.id, self._tell)
        except Problem as error:
            ended = not linux.alive(self._who)
            if not ended:
                with suppress(TimeoutError):
                    await asyncio.wait_for(linux.exited(self._who), 2.0)
                    ended = True
            if self._killed:
                raise Problem(Code.CANCELLED, "it was killed while starting") from error
            if ended:
                raise process.start_problem(process.tail(self.place.qemu_log, 4096)) from error
            raise
        if record.serial:
            await self._world.consoles.attach(self.id, self.place.serial)

    async def _watch_exit(self, who: linux.Identity) -> None:
        await linux.exited(who)
        self._tell("EXITED", {})

    # ── adoption ─────────────────────────────────────────────────────────────────────────────────

    def adoptable(self) -> bool:
        """Does a QEMU of this VM run? Takes it in hand if so; the rest is `adopt`'s."""
        record = self._record
        who = self.place.identity()
        if who is None and self.place.directory.exists():
            who = process.find(record, self._world.group(self.id))
        if who is None or not linux.alive(who):
            return False
        self._who = who
        was = self.place.was()
        self._running = was or Running(
            record=record,
            ports=layout.ports(record),
            accel=self._world.accel.name,
            started=self._world.clock(),
        )
        self.off.clear()
        self.status = VmStatus(
            state=PowerState.RUNNING,
            since=self._running.started,
            accel=self._running.accel,
            pid=who.pid,
            started=self._running.started,
            pending=change.plan(self._running, record).pending,
        )
        return True

    async def adopt(self) -> None:
        """Connect to a QEMU that outlived the agent, and ask it what it is: reality beats the record."""
        assert self._who is not None
        self._watch = asyncio.get_running_loop().create_task(self._watch_exit(self._who))
        keep = {"accel": self.status.accel, "pid": self.status.pid, "started": self.status.started}
        try:
            self._qmp = await control.connect(self.place.qmp, self.id, self._tell, timeout=10.0)
            state = (await self._qmp.execute("query-status"))["status"]
        except Problem:
            self._set(
                PowerState.RUNNING,
                why="QEMU does not answer on its control socket: kill it if it hangs",
                **keep,
            )
            return
        if state == "paused":
            self._set(PowerState.PAUSED, **keep)
        if self._record.serial:
            await self._world.consoles.attach(self.id, self.place.serial)

    async def was_lost(self) -> None:
        """QEMU ended while no agent was there to see it."""
        ended = self._ending()
        await self._release()
        self.status = replace(self.status, state=PowerState.RUNNING)
        self._concluded(ended, "while the agent was not running")

    def _ending(self) -> Ending:
        return lifecycle.ending(process.tail(self.place.qemu_log, 8192).decode(errors="replace"))

    # ── what QEMU tells ──────────────────────────────────────────────────────────────────────────

    async def _listen(self, name: str, data: control.Json) -> None:
        try:
            await self._heard(name, data)
        except Exception as error:  # the actor must live on
            log.say(f"{self.id}: {name}: {type(error).__name__}: {error}")

    async def _heard(self, name: str, _data: control.Json) -> None:
        state = self.status.state
        keep = {"why": self.status.why}
        if name == "EXITED":
            await self._exited()
        elif name == "STOP" and state is PowerState.RUNNING:
            self._set(PowerState.PAUSED, **keep)
        elif name == "RESUME" and state is PowerState.PAUSED:
            self._set(PowerState.RUNNING)
        elif name == control.LOST and self._who is not None and linux.alive(self._who):
            await self._reconnect()

    async def _reconnect(self) -> None:
        """The connection broke. QEMU is ending, or else it gets one more try."""
        assert self._who is not None
        self._qmp = None
        with suppress(TimeoutError):
            await asyncio.wait_for(linux.exited(self._who), 1.0)
            return
        try:
            self._qmp = await control.connect(self.place.qmp, self.id, self._tell, timeout=5.0)
        except Problem:
            self._set(
                self.status.state, why="QEMU does not answer on its control socket: kill it if it hangs"
            )

    async def _exited(self) -> None:
        ended = self._ending()
        await self._release()
        self._concluded(ended, "")

    def _concluded(self, ended: Ending, when: str) -> None:
        """QEMU is gone: what does that mean for the VM?"""
        record, world = self._record, self._world
        asked = self._killed or world.host_stopping or record.intent is Intent.STOPPED
        started = self.status.started
        if asked:
            self._set(PowerState.STOPPED, restarts=0)
        elif ended is Ending.GUEST:
            world.intend(self.id, Intent.STOPPED)
            self._set(PowerState.STOPPED, why=" ".join(filter(None, (ended, when))), restarts=0)
        else:
            steady = started is not None and world.clock() - started > STEADY_S
            self._crashed(" ".join(filter(None, (ended, when))), 0 if steady else self.status.restarts)
        self._killed = False
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
        if self.status.state is PowerState.FAILED and self._record.intent is Intent.RUNNING:
            wait = lifecycle.backoff(self.status.restarts + 1)
            self._again = asyncio.get_running_loop().call_later(wait, self._restart)
            more = {"restarts": self.status.restarts + 1, "last_output": self.status.last_output}
            self._set(PowerState.FAILED, why=f"{why}; tries again in {show_seconds(wait)}", **more)

    def cancel_restart(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    async def _release(self) -> None:
        """Give back everything a QEMU had; end it if it still runs."""
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
            self._watch = None
        if self._who is not None:
            linux.send(self._who, signal.SIGKILL)
            await linux.exited(self._who)
            self._who = None
        if self._qmp is not None:
            await self._qmp.close()
            self._qmp = None
        running, self._running = self._running, None
        await self._world.consoles.detach(self.id)
        for nic in running.record.nics if running else self._record.nics:
            await self._world.network.close_port(self.id, nic.name)
        if (group := self._world.group(self.id)) is not None:
            with suppress(Problem):
                cgroup.delete(group)
        self.place.clear()

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    async def command(self, name: str, state: PowerState | None = None) -> None:
        """A QMP command without arguments; `state` is what follows from it."""
        await self._control.execute(name)
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
        if self.status.state is PowerState.PAUSED:
            await self._control.execute("cont")
        await self._control.execute("system_powerdown")
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
        self._killed = True
        if self._who is not None:
            linux.send(self._who, signal.SIGKILL)

    def _give_up(self) -> None:
        """Nobody wants it to run any longer: no further restart."""
        self.cancel_restart()
        if self.status.state in (PowerState.CRASHED, PowerState.FAILED):
            self._set(PowerState.STOPPED, restarts=0)

    async def give_up(self) -> None:
        if self.status.state not in lifecycle.LIVE:
            self._killed = False
            self._give_up()

    async def follow(self) -> tuple[str, ...]:
        """Bring a running QEMU to its changed record as far as it can; what remains pending, in words."""
        if self._running is None or self._qmp is None:
            return ()
        found = self._world.record(self.id)
        source = outfit.Source(self._world.storage, self._world.network, self.id, found.shelf)
        try:
            for effect in change.plan(self._running, found.value).hot:
                await hot.carry_out(effect, self._control, source, found.value)
                self._running = replace(self._running, record=effect.after(self._running.record))
                self.place.write_running(self._running)
        finally:
            pending = change.plan(self._running, found.value).pending
            self._set(self.status.state, why=self.status.why, pending=pending)
        return pending

    def plan(self, wanted: VmRecord) -> change.Plan | None:
        """How the running QEMU would follow; None when none runs."""
        return None if self._running is None else change.plan(self._running, wanted)

    @property
    def _control(self) -> Control:
        if self._qmp is None:
            raise Problem(
                Code.UNAVAILABLE,
                "QEMU does not answer on its control socket",
                hint="Kill the VM if it hangs.",
            )
        return self._qmp

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        self.cancel_restart()
        for task in (self._watch, self._task):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if self._qmp is not None:
            await self._qmp.close()
