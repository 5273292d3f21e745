"""One VM: what is asked of it. It alone owns the VM's status, its QEMU process and its QMP connection.

    Driver: requests  ─ on ─  Monitor: what QEMU tells  ─ on ─  Actor: one thing at a time

Only `kill` does not queue: its signal goes out at once. The driver never writes records.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Accept
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import show_seconds, show_size
from thimble.state.tasks import Progress
from thimble.vm.monitor import REACH_S, Monitor
from thimble.vm.qemu import qmp as control
from thimble.vm.qemu.context import World
from thimble.vm.record import change, lifecycle
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import STATE_NEW, STATE_USED, VmRecord

if TYPE_CHECKING:
    from thimble.vm.record.saved_state import Saved


class Driver(Monitor):
    def __init__(self, id: str, world: World, state: PowerState, *, why: str = "") -> None:
        super().__init__(id, world, state, why=why)
        #: Held by a change from its first file to its last.
        self.changing = asyncio.Lock()
        self.stop_saving = False
        self._helper: asyncio.Task[bool] | None = None

    def deleting(self) -> None:
        self.cancel_restart()
        self._set(PowerState.DELETING)

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, progress: Progress, *, discard: bool = False) -> None:
        """Start QEMU, from what was saved if anything was; returns when it runs. `discard`: afresh.

        Raises `Problem`; then nothing of it is left, but for what was saved.
        """
        if self.status.state in lifecycle.LIVE:
            return
        self.cancel_restart()
        saved = await self._saved(discard=discard)
        self.engine.killed = False
        self._set(PowerState.STARTING)
        self.off.clear()
        try:
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self.engine.release, self._record.nics)
                running = await self.engine.launch(progress, saved)
                if saved is not None:
                    await self._go_on(progress, saved)
                undo.pop_all()
        except Problem as error:
            off = PowerState.STOPPED if self.engine.killed else PowerState.FAILED
            self._set(PowerState.SAVED if saved and self._is_saved() else off, why=error.detail)
            self.off.set()
            raise
        except BaseException as error:
            off = PowerState.SAVED if saved and self._is_saved() else PowerState.FAILED
            self._set(off, why=f"{type(error).__name__}: {error}")
            self.off.set()
            raise
        pending = change.plan(running, self._record).pending
        state = PowerState.PAUSED if saved and not saved.goes_on else PowerState.RUNNING
        self._set(state, pending=pending, **self._facts(running))

    async def _saved(self, *, discard: bool) -> Saved | None:
        """What to go on from. Raises `Problem` when there is something and it cannot be."""
        if discard or not (self._record.saved or self.status.state is PowerState.SAVED):
            if discard or self.engine.has(STATE_NEW, STATE_USED):
                file = self.engine.state_file()
                await asyncio.to_thread(lambda: file.drop(all=discard))
                self._world.note_unsaved(self.id)
            return None
        from thimble.vm import suspend

        try:
            return suspend.loadable(self.engine, self._world.accel.name)
        except Problem as problem:
            self._set(self.status.state, why=problem.detail)
            raise

    async def _go_on(self, progress: Progress, saved: Saved) -> None:
        from thimble.vm import suspend

        await suspend.load(self.engine, progress)
        self._world.note_unsaved(self.id)
        try:
            await suspend.go_on(self.engine, progress, runs=saved.goes_on)
        except Problem:
            if self._is_saved():
                self._world.note_saved(self.id, None)
            raise
        if self._record.saved:  # the disk was full; now there is room
            self._world.note_unsaved(self.id)
        if self._record.guest_agent and saved.goes_on:  # its clock stood still
            time = self._world.clock()
            self._helper = asyncio.get_running_loop().create_task(control.guest_time(self.rundir.qga, time))

    def cannot_go_on(self) -> Problem | None:
        """Why a start would not resume what was saved; None when it would, or nothing was."""
        if self._record.saved or self.status.state is PowerState.SAVED:
            from thimble.vm import suspend

            try:
                suspend.loadable(self.engine, self._world.accel.name)
            except Problem as problem:
                return problem
        return None

    def save_blockers(self) -> list[Reason]:
        from thimble.vm import suspend

        return suspend.blockers(self.engine, self._record)

    # ── save ─────────────────────────────────────────────────────────────────────────────────────

    async def save(self, progress: Progress, *, stays: bool) -> dict[str, str]:
        """Its memory to disk, then end QEMU. `stays`: nobody wants it back unasked.

        Raises `Problem`; it runs on then.
        """
        before = self.status.state
        if not isinstance(lifecycle.decide(before, self._record.phase, Verb.SAVE), Accept):
            raise Problem(Code.CONFLICT, f"it is {before} now")
        from thimble.vm import suspend

        await self._connected()
        self.stop_saving = False
        self._set(PowerState.SAVING)
        try:
            size = await suspend.save(
                self.engine, progress, goes_on=before is PowerState.RUNNING, stays=stays,
                cancelled=lambda: self.stop_saving,
            )  # fmt: skip
        except BaseException as error:
            await self._not_saved(before, error)
            raise
        self._world.note_saved(self.id, Intent.STOPPED if stays else None)
        async with progress.step("quit"):
            await self.ended_saved()
        return {"saved": show_size(size)}

    async def _not_saved(self, before: PowerState, error: BaseException) -> None:
        """It runs on, or stands still; a QEMU that ended is heard next."""
        why = getattr(error, "detail", "") or f"{type(error).__name__}: {error}"
        try:
            word = await self.engine.reach(REACH_S)
        except Problem:
            return
        state = before if word == "running" else PowerState.PAUSED
        self._set(state, why="" if self.stop_saving else f"not saved: {why}")

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
            self._helper = asyncio.get_running_loop().create_task(control.guest_shutdown(self.rundir.qga))

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
            await self.engine.follow(found.value, found.root)
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
