"""A VM's QEMU between requests: adopted after a restart of the agent, listened to, tried again when it is
silent, and judged when it has ended (crash policy).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thimble.contract.vm import CrashPolicy, Intent, PowerState
from thimble.core.problem import Problem
from thimble.core.units import show_seconds
from thimble.sys import log
from thimble.vm.inbox import Inbox
from thimble.vm.qemu import qmp
from thimble.vm.qemu.context import Context, Records
from thimble.vm.qemu.engine import Engine
from thimble.vm.record import change, lifecycle
from thimble.vm.record.lifecycle import Ending
from thimble.vm.record.spec import STATE_FILE, STATE_NEW, STATE_USED, Running, VmRecord
from thimble.vm.status import Status

if TYPE_CHECKING:
    from thimble.vm.qemu.saved_file import StateFile

#: A VM that ran this long is steady: its next crash counts as the first.
STEADY_S = 60.0
SILENT = "QEMU does not answer on its control socket: kill it if it hangs"
#: Told by the monitor to itself when it is time to try a silent QEMU again.
RETRY = "RETRY"
#: Seconds a QEMU that was adopted gets to answer; one that was tried before gets less.
ADOPT_S = 10.0
REACH_S = 5.0
#: QEMU's words (`RunState` in qapi/run-state.json) for vCPUs that stand still and can be let go on.
_STANDS = ("paused", "io-error", "postmigrate")


class Monitor:
    """`engine`, `status`: of the VM's driver, in whose inbox all of this runs."""

    def __init__(
        self, id: str, context: Context, records: Records, status: Status, engine: Engine, inbox: Inbox
    ) -> None:
        self.id = id
        self.off = asyncio.Event()
        self.off.set()
        self._context = context
        self._records = records
        self._status = status
        self._engine = engine
        self._inbox = inbox
        self._again: asyncio.TimerHandle | None = None
        self._reaching = asyncio.Lock()
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0
        self._torn = False  # a save or resume was cut off, and this has not been put right yet

    @property
    def _record(self) -> VmRecord:
        return self._records.get(self.id).value

    # ── adoption ─────────────────────────────────────────────────────────────────────────────────

    def adoptable(self) -> bool:
        """Does a QEMU of this VM run? Takes it in hand if so; the rest is `adopt`'s."""
        vm = self._record.definition
        running = self._engine.find(vm)
        if running is None:
            return False
        self.off.clear()
        self._torn = self._engine.has(STATE_FILE, STATE_NEW, STATE_USED)
        pending = change.plan(running, vm).pending
        started = running.started
        self._status.found(PowerState.RUNNING, since=started, pending=pending, **self.facts(running))
        return True

    async def adopt(self) -> None:
        """Connect to a QEMU that outlived the agent, and ask it what it is: reality beats the record."""
        await self._engine.attach()
        with suppress(Problem):
            await self.reach(ADOPT_S)

    async def reach(self, timeout: float) -> None:
        """Connect to a QEMU that runs and is not connected. Raises `Problem`; it is tried again later."""
        async with self._reaching:
            silent = self._status.value.why == SILENT
            if self._engine.running is None or (self._engine.qmp is not None and not silent):
                return
            self.cancel_retry()
            try:
                state = await self._engine.reach(timeout)
            except Problem:
                if self._engine.running is not None:
                    self._status.set(self._status.value.state, why=SILENT)
                    self._retries += 1
                    wait = lifecycle.backoff(self._retries)
                    self._retry = asyncio.get_running_loop().call_later(wait, self._inbox.tell, RETRY, {})
                raise
            self._retries = 0
            if self._torn:
                self._torn = False
                state = await self._mend(state)
            if state:
                self._found(state, "" if silent else self._status.value.why)

    async def _mend(self, state: str) -> str:
        """The last agent was in the midst of saving or resuming it: finish or undo that. QEMU's word then;
        empty when QEMU has been ended. Raises `Problem`.
        """
        from thimble.vm import suspend

        file = self._engine.state_file()
        if file.path.exists() and state != "running":  # written and not yet ended, or not yet let run
            stays = state == "postmigrate" and file.read().stays
            await self._records.note(self.id, saved=True, intent=Intent.STOPPED if stays else None)
            self._status.set(PowerState.SAVING)
            await self.ended_saved()
            return ""
        if file.new.exists():
            await suspend.undo(self._engine, goes_on=_ran(file, file.new))
        elif file.used.exists() and _ran(file, file.used):
            await self._engine.control.execute("cont")
        await asyncio.to_thread(lambda: file.drop(all=True))
        return await self._engine.reach(REACH_S)

    async def ended_saved(self) -> None:
        """Its memory is safe: end QEMU."""
        await self._engine.quit()
        await self._release()
        self._status.set(PowerState.SAVED)
        self.off.set()

    def _found(self, word: str, why: str) -> None:
        """What QEMU says it is, after nobody listened to it for a while."""
        state = self._status.value.state
        if word in _STANDS and state is PowerState.RUNNING:
            state = PowerState.PAUSED
        elif word == "running" and state is PowerState.PAUSED:
            state = PowerState.RUNNING
        if (state, why) != (self._status.value.state, self._status.value.why):
            self._status.set(state, why=why)

    def cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def connected(self) -> qmp.Control:
        """The connection, made again if it must be. Raises `Problem`."""
        with suppress(Problem):  # `control` has the better words
            await self.reach(REACH_S)
        return self._engine.control

    async def was_lost(self) -> None:
        """QEMU ended while no agent was there to see it."""
        ended = self._engine.ending()
        await self._release()
        self._status.found(PowerState.SAVING if self.is_saved() else PowerState.RUNNING)
        await self._concluded(ended, "while the agent was not running")

    def facts(self, running: Running) -> dict[str, Any]:
        who = self._engine.who
        return {"accel": running.accel, "pid": who and who.pid, "started": running.started}

    # ── what QEMU tells ──────────────────────────────────────────────────────────────────────────

    async def listen(self, name: str, data: qmp.Json) -> None:
        try:
            await self._heard(name, data)
        except Problem as problem:  # it is silent: its status says so
            log.say(f"{self.id}: {problem.detail}")
        except Exception as error:  # the actor must live on
            log.say(f"{self.id}: {name}: {type(error).__name__}: {error}")

    async def _heard(self, name: str, data: qmp.Json) -> None:
        state = self._status.value.state
        if name == "EXITED":
            if self._engine.who is not None:  # else it has been seen to
                await self._exited()
        elif name == "STOP" and state is PowerState.RUNNING:  # now, or for a save that is undone by now
            self._found(await self._engine.reach(REACH_S), self._status.value.why)
        elif name == "RESUME" and state is PowerState.PAUSED:
            self._status.set(PowerState.RUNNING)
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            words = data.get("reason", "unknown")
            self._status.set(
                state,
                why=f"disk {data.get('device') or data.get('node-name')}: {words}; resume it when cured",
            )
        elif name == qmp.LOST:
            if await self._engine.lost():
                await self.reach(REACH_S)
        elif name == RETRY:
            await self.reach(REACH_S)

    async def _exited(self) -> None:
        ended = self._engine.ending()
        await self._release()
        await self._concluded(ended, "")

    async def _release(self) -> None:
        """QEMU is gone: what its things still say against it must not keep the VM from being off."""
        self.cancel_retry()
        self._retries = 0
        try:
            await self._engine.release(self._record.definition.nics)
        except Exception as error:
            log.say(f"{self.id}: its things are not all given back: {type(error).__name__}: {error}")
            self._engine.rundir.clear()

    async def _concluded(self, ended: Ending, when: str) -> None:
        """QEMU is gone: what does that mean for the VM?"""
        record, context = self._record, self._context
        # A full disk may have kept the wish to stop out of the record.
        asked = self._engine.killed or context.host_stopping or record.noted.intent is Intent.STOPPED
        asked = asked or self._status.value.state is PowerState.STOPPING
        started = self._status.value.started
        if self._status.value.state is PowerState.SAVING and self.is_saved():
            self._status.set(PowerState.SAVED)
        elif asked:
            self._status.set(PowerState.STOPPED, restarts=0)
        elif ended is Ending.GUEST:
            try:
                await self._records.intend(self.id, Intent.STOPPED)
            except Problem as error:  # the disk is full: off it is all the same
                log.say(f"{self.id}: that it is to stay off is not kept: {error.detail}")
            self._status.set(PowerState.STOPPED, why=" ".join(filter(None, (ended, when))), restarts=0)
        else:
            steady = started is not None and context.clock() - started > STEADY_S
            self._crashed(" ".join(filter(None, (ended, when))), 0 if steady else self._status.value.restarts)
        self._engine.killed = False
        self.off.set()

    def is_saved(self) -> bool:
        return self._engine.has(STATE_FILE)

    def _crashed(self, why: str, restarts: int) -> None:
        output = self._engine.rundir.last_output()
        if self._record.spec.on_crash is CrashPolicy.RESTART:
            wait = lifecycle.backoff(restarts + 1)
            why = f"{why}; starts again in {show_seconds(wait)}"
            self._again = asyncio.get_running_loop().call_later(wait, self._restart)
            restarts += 1
        self._status.set(PowerState.CRASHED, why=why, last_output=output, restarts=restarts)

    def _restart(self) -> None:
        self._again = None
        if self._status.value.state in (PowerState.CRASHED, PowerState.FAILED):
            self._context.restarts.put_nowait(self.id)

    def restart_failed(self, why: str) -> None:
        """A restart by the crash policy did not work: try again, ever later."""
        state = self._status.value.state
        if state in (PowerState.CRASHED, PowerState.FAILED) and self._record.noted.intent is Intent.RUNNING:
            wait = lifecycle.backoff(self._status.value.restarts + 1)
            self._again = asyncio.get_running_loop().call_later(wait, self._restart)
            now = self._status.value
            again = f"{why}; tries again in {show_seconds(wait)}"
            self._status.set(state, why=again, restarts=now.restarts + 1, last_output=now.last_output)

    def cancel_restart(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None


def _ran(file: StateFile, path: Path) -> bool:
    """Did the guest run when it was to be saved? So it is taken where that was not yet written."""
    try:
        return file.read(path).goes_on
    except Problem:
        return True
