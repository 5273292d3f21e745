"""The verbs that turn VMs on and off. Each is decided again when its turn has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Decision, blocked
from thimble.core.problem import Code, Problem, Reason
from thimble.core.units import MIB, show_size
from thimble.dispatch import run
from thimble.state.store import Record, is_durable
from thimble.state.tasks import Progress
from thimble.vm.driver import Driver
from thimble.vm.record import lifecycle
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import VmRecord
from thimble.vm.table import VmTable

replace = msgspec.structs.replace
Result = dict[str, str]

#: Seconds between two presses of the power button.
PRESS_EVERY_S = 5.0


class Power:
    def __init__(self, table: VmTable) -> None:
        self._table = table
        self._context = table.context

    # ── start ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, call: Call[wire.StartRequest]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)
        discard = bool(call.input and call.input.discard_saved)

        async def commit() -> None:
            await self._table.intend(found.id, Intent.RUNNING)

        async def act(_: object, progress: Progress) -> Result:
            return await self.carry_out_start(driver, progress, discard=discard)

        return await self._task(
            call, Verb.START, found, driver, lambda: self._decide_start(found, driver, discard=discard), act,
            commit=commit,
        )  # fmt: skip

    def _decide_start(self, found: Record[VmRecord], driver: Driver, *, discard: bool) -> Decision[bool]:
        spec = found.value.spec
        decision = self._named(driver.decide(Verb.START), spec.name)
        if decision.plan is None:
            return decision
        saved = found.value.noted.saved or driver.status.state is PowerState.SAVED
        effect = f"starts {spec.name}{' afresh, what was saved is lost' if saved else ''}"
        if saved and not discard:
            effect = f"lets {spec.name} go on as saved"
        decision = replace(decision, effects=(effect,), warnings=self.slow_warning())
        admission = self._admit(driver.id)
        decision = decision.against(admission.blockers, hint=admission.hint)
        if not discard and (kept := driver.cannot_go_on()):
            decision = decision.against((Reason(message=kept.detail, code=kept.code),), hint=kept.hint)
        return self._named(decision, spec.name)

    def _admit(self, id: str) -> Decision[bool]:
        """May another VM start on this host, and one of this size?"""
        if self._context.host_stopping:
            reason = Reason(message="the host is going down", code=Code.CONFLICT)
            return blocked(reason, hint="Start it when the host is back.")
        reasons = self._table.memory_reasons(id, self._table.get(id).value.spec.memory_mib)
        return blocked(*reasons, hint=hint_for(Code.NO_MEMORY)) if reasons else lifecycle.YES

    async def carry_out_start(self, driver: Driver, progress: Progress, *, discard: bool = False) -> Result:
        """The start of a VM whose intent is to run; where it fails, it is to stay off. Raises `Problem`."""
        if driver.status.state in lifecycle.LIVE:
            return {}
        self._admit(driver.id).refuse()
        try:
            await driver.start(progress, discard=discard)
        except Problem:
            off = driver.status.state not in lifecycle.LIVE
            if off and self._table.find(driver.id) is not None and not self._context.host_stopping:
                await self._table.intend_off(driver.id)
            raise
        warnings = self.slow_warning()
        return {"warning": warnings[0]} if warnings else {}

    def slow_warning(self) -> tuple[str, ...]:
        """That it will be emulated, if so."""
        accel = self._context.accel
        if accel.name == "kvm":
            return ()
        return (f"it runs emulated (TCG), many times slower than with KVM: {accel.why}",)

    async def begin(self, id: str, owner: str) -> Task:
        """Start it without anybody asking: with the host, or because the asking was interrupted."""
        noted = self._table.get(id).value.noted
        if noted.start or noted.intent is not Intent.RUNNING:  # else a full disk would keep it off
            await self._table.noted(id, lambda now: replace(now, intent=Intent.RUNNING, start=False))
        driver = self._table.drivers[id]

        async def work(progress: Progress) -> Result:
            with driver.holding(Verb.START):
                return await self.carry_out_start(driver, progress)

        return self._context.tasks.start("vm.start", id, work, owner=owner)

    def restart(self, id: str) -> None:
        """After a crash."""
        driver = self._table.drivers.get(id)
        if driver is None:
            return

        async def work(progress: Progress) -> None:
            try:
                with driver.holding(Verb.START):
                    self._admit(id).refuse()
                    await driver.start(progress)
            except Problem as problem:
                await driver.restart_failed(problem.detail)
                raise

        self._context.tasks.start("vm.start", id, work, owner="crash policy")

    # ── save ─────────────────────────────────────────────────────────────────────────────────────

    async def save(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)
        name = found.value.spec.name
        lost = f"{name} lives in RAM: at a reboot it is gone all the same"
        volatile = () if self.lasts(found.root) else (lost,)

        def decide() -> Decision[bool]:
            decision = self._named(driver.decide(Verb.SAVE), name)
            if decision.plan is None:
                return decision
            size = show_size(found.value.spec.memory_mib * MIB)
            effect = f"writes the memory of {name}, at most {size}, to {found.root} and ends its QEMU"
            decision = replace(decision, effects=(effect,), warnings=volatile)
            reasons = driver.save_blockers()
            return self._named(decision.against(reasons, hint=hint_for(*(r.code for r in reasons))), name)

        async def act(_: object, progress: Progress) -> Result:
            result = await self.save_now(driver, progress, stays=True)
            return {**result, "warning": volatile[0]} if volatile else result

        return await self._task(call, Verb.SAVE, found, driver, decide, act, cancellable=True)

    async def save_now(self, driver: Driver, progress: Progress, *, stays: bool) -> Result:
        """A cancelled one is undone before the cancel ends."""
        saving = asyncio.ensure_future(driver.save(progress, stays=stays))
        try:
            return await asyncio.shield(saving)
        except asyncio.CancelledError:
            driver.stop_saving = True
            with suppress(Problem):
                return await saving  # it was too late
            raise

    def lasts(self, root: str) -> bool:
        """Is what is written to that datastore still there after a reboot?"""
        home = self._context.storage.homes().get(root)
        return home is not None and is_durable(home)

    # ── stop ─────────────────────────────────────────────────────────────────────────────────────

    async def stop(self, call: Call[wire.StopRequest]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)
        ask = call.input or wire.StopRequest()

        async def work(progress: Progress) -> Result:
            async with progress.step("ask"):
                try:
                    await driver.begin_stop()
                except Problem as problem:
                    if not ask.force or problem.code is not Code.UNAVAILABLE:
                        raise
                    return await self._killed(driver, "QEMU did not answer and was killed")
            async with progress.step("wait"):
                return await self.await_off(driver, ask)

        return await self._simple(call, Verb.STOP, found, driver, "asks {} to shut down", work)

    async def await_off(self, driver: Driver, ask: wire.StopRequest) -> Result:
        """Press the button again and again: a guest that is just booting does not feel it yet."""
        loop = asyncio.get_running_loop()
        end = loop.time() + ask.timeout_s
        while True:
            left = end - loop.time()
            try:
                await asyncio.wait_for(driver.off.wait(), min(PRESS_EVERY_S, max(left, 0.0)))
                return {}
            except TimeoutError:
                if left <= PRESS_EVERY_S:
                    break
            with suppress(Problem):
                await driver.begin_stop()
        if ask.force:
            return await self._killed(driver, "the guest did not obey in time and was killed")
        await driver.stop_refused(ask.timeout_s)
        raise Problem(
            Code.TIMEOUT,
            f"the guest did not shut down within {ask.timeout_s:.0f} s and runs on",
            hint="Look at its console; stop it with force, or kill it.",
        )

    async def _killed(self, driver: Driver, note: str) -> Result:
        driver.kill()
        await driver.off.wait()
        return {"note": note}

    async def kill(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)

        async def work(progress: Progress) -> Result:
            async with progress.step("kill"):
                if driver.status.state not in lifecycle.LIVE:
                    await driver.give_up()  # behind a start that was accepted before
                if driver.status.state in lifecycle.LIVE:
                    driver.kill()
                    await driver.off.wait()
            return {}

        return await self._simple(call, Verb.KILL, found, driver, "powers {} off at once", work)

    # ── buttons ──────────────────────────────────────────────────────────────────────────────────

    async def reset(self, call: Call[None]) -> Started | DryRun:
        return await self._command(call, Verb.RESET, "system_reset", None, "resets {}")

    async def pause(self, call: Call[None]) -> Started | DryRun:
        return await self._command(call, Verb.PAUSE, "stop", PowerState.PAUSED, "freezes {}")

    async def resume(self, call: Call[None]) -> Started | DryRun:
        return await self._command(call, Verb.RESUME, "cont", PowerState.RUNNING, "lets {} run on")

    async def _command(
        self, call: Call[None], verb: Verb, command: str, state: PowerState | None, effect: str
    ) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)

        async def work(progress: Progress) -> Result:
            async with progress.step(command):
                await driver.command(verb, command, state)
            return {}

        return await self._simple(call, verb, found, driver, effect, work)

    async def _simple(
        self,
        call: Call[Any],
        verb: Verb,
        found: Record[VmRecord],
        driver: Driver,
        effect: str,
        work: Callable[[Progress], Awaitable[Result]],
    ) -> Started | DryRun:
        """A verb that only the lifecycle decides on. A stop that cannot be noted stops it all the same."""
        unkept = ""

        async def commit() -> None:
            nonlocal unkept
            if verb in (Verb.STOP, Verb.KILL):
                unkept = await self._table.intend_off(found.id)

        async def act(_: object, progress: Progress) -> Result:
            result = await work(progress)
            notes = [note for note in (result.get("note"), unkept) if note]
            return {**result, "note": "; ".join(notes)} if notes else result

        def decide() -> Decision[bool]:
            name = found.value.spec.name
            decision = self._named(driver.decide(verb), name)
            return decision if decision.plan is None else replace(decision, effects=(effect.format(name),))

        return await self._task(call, verb, found, driver, decide, act, commit=commit)

    async def _task(
        self,
        call: Call[Any],
        verb: Verb,
        found: Record[VmRecord],
        driver: Driver,
        decide: Callable[[], Decision[bool]],
        act: Callable[[bool, Progress], Awaitable[Result]],
        *,
        commit: Callable[[], Awaitable[None]] | None = None,
        cancellable: bool = False,
    ) -> Started | DryRun:
        return await run.task(
            self._context.tasks, f"vm.{verb}", found.id, call, decide, act, hold=lambda: driver.holding(verb),
            commit=commit, cancellable=cancellable,
        )  # fmt: skip

    @staticmethod
    def _named(decision: Decision[bool], name: str) -> Decision[bool]:
        """Refused with the VM's name before the reason."""
        if not decision.blockers:
            return decision
        return replace(decision, refusal=f"{name}: {decision.blockers[0].message}")


def hint_for(*codes: Code) -> str:
    """What to do about blockers of these codes."""
    if Code.NO_MEMORY in codes:
        return "Stop another VM, or give this one less memory."
    if Code.NO_SPACE in codes:
        return "Free space on its datastore, or stop it instead."
    return "Stop it instead." if Code.UNSUPPORTED in codes else lifecycle.NOW
