"""The verbs that turn VMs on and off."""

from __future__ import annotations

import asyncio
import builtins
from contextlib import suppress
from typing import Any

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Deny, Ignore
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB, show_size
from thimble.state.store import Record, is_durable
from thimble.state.tasks import Progress, Work
from thimble.vm.driver import Driver
from thimble.vm.record import lifecycle
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import VmRecord
from thimble.vm.table import OVERHEAD, Desk, dry, hint_for, refuse_verb

#: Seconds between two presses of the power button.
PRESS_EVERY_S = 5.0


class PowerVerbs(Desk):
    async def start(self, call: Call[wire.StartRequest]) -> Started | DryRun:
        found, driver = self._find(call)
        discard = bool(call.input and call.input.discard_saved)
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.START)
        blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
        kept = None
        if not blockers and not isinstance(verdict, Ignore):
            blockers += self._memory_reasons(found.value)
            if not discard and (kept := driver.cannot_go_on()):
                blockers.append(Reason(message=kept.detail, code=kept.code))
        if call.dry_run:
            effect = self._start_effect(found, driver, discard=discard)
            return dry(blockers, verdict, effect, self._slow_warning())
        if blockers:
            hint = kept.hint if kept else hint_for(blockers)
            refuse(blockers, f"{found.value.name}: {blockers[0].message}", hint=hint)
        self._intend(found.id, Intent.RUNNING)

        async def work(progress: Progress) -> dict[str, str]:
            if isinstance(verdict, Ignore):
                return {"note": verdict.why}
            return await self._start(driver, progress, discard=discard)

        return self._task("vm.start", found.id, work, call)

    def _start_effect(self, found: Record[VmRecord], driver: Driver, *, discard: bool) -> str:
        name = found.value.name
        if not found.value.saved and driver.status.state is not PowerState.SAVED:
            return f"starts {name}"
        return f"starts {name} afresh, what was saved is lost" if discard else f"lets {name} go on as saved"

    def _refuse_going_down(self) -> None:
        if self.world.host_stopping:
            raise Problem(Code.CONFLICT, "the host is going down", hint="Start it when the host is back.")

    async def _start(self, driver: Driver, progress: Progress, *, discard: bool = False) -> dict[str, str]:
        self._refuse_going_down()
        refuse(self._memory_reasons(self.store.get(driver.id).value), "not enough memory to start it")
        try:
            await driver.ask(lambda: driver.start(progress, discard=discard))
        except Problem:
            if self.store.find(driver.id) is not None:
                self._intend_off(driver.id)
            raise
        warnings = self._slow_warning()
        return {"warning": warnings[0]} if warnings else {}

    def _slow_warning(self) -> tuple[str, ...]:
        return () if self.world.accel.name == "kvm" else (self._slow(),)

    def _memory_reasons(self, record: VmRecord) -> builtins.list[Reason]:
        available = self._facts().memory_available_bytes
        if record.memory_mib * MIB + OVERHEAD <= available:
            return []
        message = f"it needs {record.memory_mib} MiB of memory, the host has {show_size(available)} free"
        return [Reason(message=message, code=Code.NO_MEMORY, path="$.memory_mib")]

    def _restart(self, id: str) -> None:
        """By a driver, after a crash."""
        driver = self.drivers[id]

        async def work(progress: Progress) -> None:
            self._refuse_going_down()
            try:
                refuse(self._memory_reasons(self.store.get(id).value), "not enough memory to start it")
                await driver.ask(lambda: driver.start(progress))
            except Problem as problem:
                driver.restart_failed(problem.detail)
                raise

        self.world.tasks.start("vm.start", id, work, owner="crash policy")

    def begin(self, id: str, owner: str) -> Task:
        """Start it without anybody asking: with the host, or because the asking was interrupted."""
        value = self.store.get(id).value
        if value.start or value.intent is not Intent.RUNNING:  # else a full disk would keep it off
            self._put(id, intent=Intent.RUNNING, start=False)
        driver = self.drivers[id]

        async def work(progress: Progress) -> dict[str, str]:
            return await self._start(driver, progress)

        return self.world.tasks.start("vm.start", id, work, owner=owner)

    async def save(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._find(call)
        name = found.value.name
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.SAVE)
        blockers = list(verdict.reasons) if isinstance(verdict, Deny) else driver.save_blockers()
        volatile = (
            () if self.lasts(found.root) else (f"{name} lives in RAM: at a reboot it is gone all the same",)
        )
        if call.dry_run:
            size = show_size(found.value.memory_mib * MIB)
            effect = f"writes the memory of {name}, at most {size}, to {found.root} and ends its QEMU"
            return dry(blockers, verdict, effect, volatile)
        refuse(blockers, f"{name}: {blockers[0].message}" if blockers else "", hint=hint_for(blockers))
        warning = {"warning": volatile[0]} if volatile else {}

        async def work(progress: Progress) -> dict[str, str]:
            if isinstance(verdict, Ignore):
                return {"note": verdict.why}
            return {**await self.save_now(driver, progress, stays=True), **warning}

        task = self.world.tasks.start("vm.save", found.id, work, owner=call.user, cancellable=True)
        await asyncio.sleep(0)  # the work has begun now: a cancel finds it where it can be undone
        return Started(task=task, subject=found.id)

    async def save_now(self, driver: Driver, progress: Progress, *, stays: bool) -> dict[str, str]:
        """A cancelled one is undone before the cancel ends."""
        saving = asyncio.ensure_future(driver.ask(lambda: driver.save(progress, stays=stays)))
        try:
            return await asyncio.shield(saving)
        except asyncio.CancelledError:
            driver.stop_saving = True
            with suppress(Problem):
                return await saving  # it was too late
            raise

    def lasts(self, root: str) -> bool:
        """Is what is written to that datastore still there after a reboot?"""
        home = self.world.storage.homes().get(root)
        return home is not None and is_durable(home)

    async def stop(self, call: Call[wire.StopRequest]) -> Started | DryRun:
        found, driver = self._find(call)
        ask = call.input or wire.StopRequest()

        async def work(progress: Progress) -> dict[str, str]:
            async with progress.step("ask"):
                try:
                    await driver.ask(driver.begin_stop)
                except Problem as problem:
                    if not ask.force or problem.code is not Code.UNAVAILABLE:
                        raise
                    return await self._killed(driver, "QEMU did not answer and was killed")
            async with progress.step("wait"):
                return await self.await_off(driver, ask)

        return self._power(call, Verb.STOP, found, driver, work, "asks {} to shut down")

    async def await_off(self, driver: Driver, ask: wire.StopRequest) -> dict[str, str]:
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
                await driver.ask(driver.begin_stop)
        if ask.force:
            return await self._killed(driver, "the guest did not obey in time and was killed")
        await driver.ask(lambda: driver.stop_refused(ask.timeout_s))
        raise Problem(
            Code.TIMEOUT,
            f"the guest did not shut down within {ask.timeout_s:.0f} s and runs on",
            hint="Look at its console; stop it with force, or kill it.",
        )

    async def _killed(self, driver: Driver, note: str) -> dict[str, str]:
        driver.kill()
        await driver.off.wait()
        return {"note": note}

    async def kill(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._find(call)

        async def work(progress: Progress) -> None:
            async with progress.step("kill"):
                if driver.status.state in lifecycle.LIVE:
                    driver.kill()
                    await driver.off.wait()
                else:
                    await driver.ask(driver.give_up)

        return self._power(call, Verb.KILL, found, driver, work, "powers {} off at once")

    async def reset(self, call: Call[None]) -> Started | DryRun:
        return self._command(call, Verb.RESET, "system_reset", None, "resets {}")

    async def pause(self, call: Call[None]) -> Started | DryRun:
        return self._command(call, Verb.PAUSE, "stop", PowerState.PAUSED, "freezes {}")

    async def resume(self, call: Call[None]) -> Started | DryRun:
        return self._command(call, Verb.RESUME, "cont", PowerState.RUNNING, "lets {} run on")

    def _command(
        self, call: Call[None], verb: Verb, command: str, state: PowerState | None, effect: str
    ) -> Started | DryRun:
        found, driver = self._find(call)

        async def work(progress: Progress) -> None:
            async with progress.step(command):
                await driver.ask(lambda: driver.command(command, state))

        return self._power(call, verb, found, driver, work, effect)

    def _power(
        self,
        call: Call[Any],
        verb: Verb,
        found: Record[VmRecord],
        driver: Driver,
        work: Work,
        effect: str,
    ) -> Started | DryRun:
        verdict = lifecycle.decide(driver.status.state, found.value.phase, verb)
        if call.dry_run:
            blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
            return dry(blockers, verdict, effect.format(found.value.name))
        refuse_verb(verdict, found)
        unkept = self._intend_off(found.id) if verb in (Verb.STOP, Verb.KILL) else ""

        async def noted(progress: Progress) -> dict[str, str]:
            idle = {"note": verdict.why} if isinstance(verdict, Ignore) else None
            result = idle or await work(progress) or {}
            notes = [note for note in (result.get("note"), unkept) if note]
            return {**result, "note": "; ".join(notes)} if notes else result

        return self._task(f"vm.{verb}", found.id, noted, call)
