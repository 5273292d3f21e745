"""One VM: what is asked of it, done one after the other. It has the VM's status, its engine (QEMU) and its
monitor; nobody else writes the status or talks to QEMU.

    verb ─► holding(verb) ─► do(verb) ─► inbox ─► decided again ─► engine, status
                                QEMU ─► inbox ─► monitor ─► status

Only `kill` does not queue: its signal goes out at once. Records are noted through `Records`, never written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from thimble.contract.vm import Intent, PowerState, VmStatus
from thimble.core.decision import Decision
from thimble.core.problem import Problem, Reason
from thimble.core.units import show_seconds, show_size
from thimble.state.tasks import Progress
from thimble.vm.inbox import Inbox
from thimble.vm.monitor import REACH_S, Monitor
from thimble.vm.qemu import qmp
from thimble.vm.qemu.context import Context, Records
from thimble.vm.qemu.engine import Engine
from thimble.vm.record import change, lifecycle
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import STATE_NEW, STATE_USED, Definition, VmRecord
from thimble.vm.status import Status

if TYPE_CHECKING:
    from thimble.vm.record.saved_state import Saved

T = TypeVar("T")
#: Makes the engine of a VM; tests give another.
MakeEngine = Callable[[str, Context, Records, qmp.OnEvent], Engine]


class Driver:
    """`records`: where its record is read, and where it has things noted."""

    def __init__(
        self, id: str, context: Context, records: Records, state: PowerState, *, engine: MakeEngine = Engine
    ) -> None:
        self.id = id
        #: Held by a change from its first file to its last.
        self.changing = asyncio.Lock()
        self.stop_saving = False
        self._context = context
        self._records = records
        self._queued: list[Verb] = []
        self._status = Status(id, context, state)
        self._inbox = Inbox(f"vm {id}", lambda name, data: self.monitor.listen(name, data))
        self.engine = engine(id, context, records, self._inbox.tell)
        self.rundir = self.engine.rundir
        self.monitor = Monitor(id, context, records, self._status, self.engine, self._inbox)
        self.off = self.monitor.off

    @property
    def status(self) -> VmStatus:
        """What is now."""
        return self._status.value

    @property
    def _record(self) -> VmRecord:
        return self._records.get(self.id).value

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────

    def decide(self, verb: Verb) -> Decision[bool]:
        """The answer to `verb` now, with what was accepted before it in view."""
        return lifecycle.decide(self.status.state, self._record.noted.phase, verb, self._queued)

    @contextmanager
    def holding(self, verb: Verb) -> Iterator[None]:
        """From the moment `verb` is accepted until its work has ended, others are decided with it in view."""
        self._queued.append(verb)
        try:
            yield
        finally:
            self._queued.remove(verb)

    @property
    def starts(self) -> bool:
        """Does it run, or was it told to?"""
        return self.status.state in lifecycle.LIVE or Verb.START in self._queued

    async def do(self, verb: Verb, work: Callable[[], Awaitable[T]]) -> T | None:
        """Queue `work`; when its turn has come, decide once more. None when there is nothing to do by then.

        Raises `Problem` CONFLICT when it is not possible by then, and the work's own.
        """

        async def item() -> T | None:
            going = Verb.DELETE in self._queued and verb is not Verb.DELETE  # accepted, and not yet noted
            queued = (Verb.DELETE,) if going else ()
            decision = lifecycle.decide(self.status.state, self._record.noted.phase, verb, queued)
            decision.refuse()
            return None if decision.plan is None else await work()

        return await self._inbox.ask(item)

    async def ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """Queue what is no verb."""
        return await self._inbox.ask(work)

    # ── create and delete ────────────────────────────────────────────────────────────────────────

    def was(self, state: PowerState, why: str = "") -> None:
        """What is known of it at the agent's start."""
        output = self.rundir.last_output() if state is PowerState.CRASHED else ""
        self._status.found(state, why=why, last_output=output)

    async def became(self, state: PowerState, why: str = "") -> None:
        """What its create or delete has come to."""

        async def item() -> None:
            if state is PowerState.DELETING:
                self.monitor.cancel_restart()
            if self.status.state is not state:
                self._status.set(state, why=why)

        await self._inbox.ask(item)

    async def adopt(self) -> None:
        """Connect to the QEMU that `monitor.adoptable` found."""
        await self._inbox.ask(self.monitor.adopt)

    async def was_lost(self) -> None:
        """Its QEMU ended while no agent was there to see it."""
        await self._inbox.ask(self.monitor.was_lost)

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, progress: Progress, *, discard: bool = False) -> None:
        """Start QEMU, from what was saved if anything was; returns when it runs. `discard`: afresh.

        Raises `Problem`; then nothing of it is left, but for what was saved.
        """
        await self.do(Verb.START, lambda: self._start(progress, discard=discard))

    async def _start(self, progress: Progress, *, discard: bool) -> None:
        self.monitor.cancel_restart()
        saved = await self._saved(discard=discard)
        self.engine.killed = False
        self._status.set(PowerState.STARTING)
        self.off.clear()
        try:
            async with AsyncExitStack() as undo:
                undo.push_async_callback(self.engine.release, self._record.definition.nics)
                running = await self.engine.launch(progress, saved)
                if saved is not None:
                    await self._go_on(progress, saved)
                undo.pop_all()
        except BaseException as error:
            known = isinstance(error, Problem)
            state = PowerState.STOPPED if self.engine.killed and known else PowerState.FAILED
            if saved and self.monitor.is_saved():
                state = PowerState.SAVED
            why = error.detail if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
            self._status.set(state, why=why)
            self.off.set()
            raise
        pending = change.plan(running, self._record.definition).pending
        state = PowerState.PAUSED if saved and not saved.goes_on else PowerState.RUNNING
        self._status.set(state, pending=pending, **self.monitor.facts(running))

    async def _saved(self, *, discard: bool) -> Saved | None:
        """What to go on from. Raises `Problem` when there is something and it cannot be."""
        if discard or not self._is_saved:
            if discard or self.engine.has(STATE_NEW, STATE_USED):
                file = self.engine.state_file()
                await asyncio.to_thread(lambda: file.drop(all=discard))
                await self._records.note(self.id, saved=False)
            return None
        from thimble.vm import suspend

        try:
            return suspend.loadable(self.engine, self._context.accel.name)
        except Problem as problem:
            self._status.set(self.status.state, why=problem.detail)
            raise

    @property
    def _is_saved(self) -> bool:
        return self._record.noted.saved or self.status.state is PowerState.SAVED

    async def _go_on(self, progress: Progress, saved: Saved) -> None:
        from thimble.vm import suspend

        await suspend.load(self.engine, progress)
        await self._records.note(self.id, saved=False)
        try:
            await suspend.go_on(self.engine, progress, runs=saved.goes_on)
        except Problem:
            if self.monitor.is_saved():
                await self._records.note(self.id, saved=True)
            raise
        if self._record.noted.saved:  # the disk was full; now there is room
            await self._records.note(self.id, saved=False)
        if self._record.spec.guest_agent and saved.goes_on:  # its clock stood still
            time = self._context.clock()
            self._context.background.keep(f"vm {self.id}: clock", qmp.guest_time(self.rundir.qga, time))

    def cannot_go_on(self) -> Problem | None:
        """Why a start would not resume what was saved; None when it would, or nothing was."""
        if self._is_saved:
            from thimble.vm import suspend

            try:
                suspend.loadable(self.engine, self._context.accel.name)
            except Problem as problem:
                return problem
        return None

    # ── save ─────────────────────────────────────────────────────────────────────────────────────

    def save_blockers(self) -> list[Reason]:
        """Why it cannot be saved, though its state allows it."""
        from thimble.vm import suspend

        return suspend.blockers(self.engine, self._record.definition)

    async def save(self, progress: Progress, *, stays: bool) -> dict[str, str]:
        """Its memory to disk, then end QEMU. `stays`: nobody wants it back unasked.

        Raises `Problem`; it runs on then.
        """
        return await self.do(Verb.SAVE, lambda: self._save(progress, stays=stays)) or {}

    async def _save(self, progress: Progress, *, stays: bool) -> dict[str, str]:
        from thimble.vm import suspend

        before = self.status.state
        await self.monitor.connected()
        self.stop_saving = False
        self._status.set(PowerState.SAVING)
        try:
            size = await suspend.save(
                self.engine, progress, goes_on=before is PowerState.RUNNING, stays=stays,
                cancelled=lambda: self.stop_saving,
            )  # fmt: skip
        except BaseException as error:
            await self._not_saved(before, error)
            raise
        await self._records.note(self.id, saved=True, intent=Intent.STOPPED if stays else None)
        async with progress.step("quit"):
            await self.monitor.ended_saved()
        return {"saved": show_size(size)}

    async def _not_saved(self, before: PowerState, error: BaseException) -> None:
        """It runs on, or stands still; a QEMU that ended is heard next."""
        why = getattr(error, "detail", "") or f"{type(error).__name__}: {error}"
        try:
            word = await self.engine.reach(REACH_S)
        except Problem:
            return
        state = before if word == "running" else PowerState.PAUSED
        self._status.set(state, why="" if self.stop_saving else f"not saved: {why}")

    # ── other requests ───────────────────────────────────────────────────────────────────────────

    async def command(self, verb: Verb, name: str, state: PowerState | None = None) -> None:
        """A QMP command without arguments; `state` is what follows from it. Raises `Problem`."""

        async def work() -> None:
            await (await self.monitor.connected()).execute(name)
            now = self.status.state
            if state is not None and now is not state and state in lifecycle.NEXT[now]:
                self._status.set(state)

        await self.do(verb, work)

    async def begin_stop(self) -> None:
        """Ask the guest to shut down: power button, and its agent if one answers. Raises `Problem`."""
        await self._inbox.ask(self._begin_stop)

    async def _begin_stop(self) -> None:
        if self.status.state not in lifecycle.LIVE:
            self._give_up()
            return
        control = await self.monitor.connected()
        if self.status.state is PowerState.PAUSED:
            await control.execute("cont")
        await control.execute("system_powerdown")
        if self.status.state is not PowerState.STOPPING:
            self._status.set(PowerState.STOPPING)
        if self._record.spec.guest_agent:
            asked = qmp.guest_shutdown(self.rundir.qga)
            self._context.background.keep(f"vm {self.id}: shutdown by its agent", asked)

    async def stop_refused(self, waited: float) -> None:
        """The guest did not obey: it runs on, and we say so."""

        async def item() -> None:
            if self.status.state is PowerState.STOPPING:
                why = f"asked to shut down {show_seconds(waited)} ago, the guest runs on"
                self._status.set(PowerState.RUNNING, why=why)

        await self._inbox.ask(item)

    def kill(self) -> None:
        """End QEMU at once; does not queue."""
        self.engine.kill()

    async def give_up(self) -> None:
        """Off already: no further restart."""

        async def item() -> None:
            if self.status.state not in lifecycle.LIVE:
                self.engine.killed = False
                self._give_up()

        await self._inbox.ask(item)

    def _give_up(self) -> None:
        self.monitor.cancel_restart()
        if self.status.state in (PowerState.CRASHED, PowerState.FAILED):
            self._status.set(PowerState.STOPPED, restarts=0)

    async def restart_failed(self, why: str) -> None:
        """A restart by the crash policy did not work."""

        async def item() -> None:
            self.monitor.restart_failed(why)

        await self._inbox.ask(item)

    async def follow(self) -> tuple[str, ...]:
        """Bring a running QEMU to its changed record as far as it can; what remains pending, in words."""
        return await self._inbox.ask(self._follow)

    async def _follow(self) -> tuple[str, ...]:
        found = self._records.get(self.id)
        if self.engine.running is None:
            return ()
        with suppress(Problem):  # what it cannot follow now is pending
            await self.monitor.reach(REACH_S)
        wanted = found.value.definition
        try:
            await self.engine.follow(wanted, found.root)
        finally:
            pending = () if self.engine.running is None else change.plan(self.engine.running, wanted).pending
            self._status.set(self.status.state, why=self.status.why, pending=pending)
        return pending

    def plan(self, wanted: Definition) -> change.Plan | None:
        """How the running QEMU would follow; None when none runs."""
        return None if self.engine.running is None else change.plan(self.engine.running, wanted)

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        self.monitor.cancel_restart()
        self.monitor.cancel_retry()
        await self._inbox.close()
        await self.engine.close()
