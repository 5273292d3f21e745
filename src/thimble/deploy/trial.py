"""At the start of the agent: is this a trial boot, and is it good? Or what became of one that was not?

trial boot ──all that worked before works──► confirmed (entry, GRUB, a message to PID 1)
  └─────────not in time────────────────────► refused: why is noted, rollback by a reboot into the old slot
none, but one was on its way in another boot ──► it failed; what runs is settled as the good one

<state>/deploy/last.json     how the last one went
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from thimble.contract.deploy import Outcome, OutcomeState
from thimble.core.problem import Problem
from thimble.deploy import slots, this_boot
from thimble.deploy.boot_files import Esp, Expect, Op, Trial
from thimble.deploy.devices import Devices
from thimble.host.pid1 import BootFacts, Init
from thimble.state.events import Events
from thimble.state.store import Collection
from thimble.sys import clock, log

#: Seconds PID 1 may take to know what we were started from.
_KNOWN_S = 90.0
_LAST = "last"
_SILENT = "it did not get as far as saying why: its kernel or its start failed, or it hung"


class OutcomeRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    outcome: Outcome


class TrialBoot:
    """`prove` answers why what is expected does not work, or nothing."""

    def __init__(
        self,
        state: Path,
        *,
        durable: bool,
        init: Init,
        devices: Devices,
        events: Events,
        prove: Callable[[Expect], Awaitable[str]],
    ) -> None:
        self._init = init
        self._devices = devices
        self._events = events
        self._prove = prove
        self._records: Collection[OutcomeRecord] = Collection(OutcomeRecord, noun="outcome", durable=durable)
        self._records.add_root("", state / "deploy")

    @property
    def last(self) -> Outcome | None:
        record = self._records.find(_LAST)
        return record.value.outcome if record else None

    def warnings(self) -> tuple[str, ...]:
        last = self.last
        if last is None or last.state is not OutcomeState.FAILED:
            return ()
        return (f"the {last.kind} to {last.version} (build {last.build}) did not get confirmed: {last.why}",)

    async def begin(self) -> None:
        """Settle what the last boot left; in a trial returns when it is proven, or asks for a reboot."""
        await self._wait_for_pid1()
        boot = this_boot.facts(self._init)
        devices = self._devices.all(boot)
        if not devices:
            return
        there = await asyncio.to_thread(self._devices.read, devices[0])
        slot = boot.slot
        if boot.trial or slots.on_trial(there, slot):
            await self._try(boot, slot, there.trial)
        elif there.trial is None or there.trial.boot != this_boot.boot_id():
            await self._settle(boot, slot, there)
            await self._close(boot)
        await self._mirrors(boot)

    async def _wait_for_pid1(self) -> None:
        """Wait until PID 1 knows what we were started from."""
        deadline = asyncio.get_running_loop().time() + _KNOWN_S
        while not this_boot.known(self._init) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)

    async def offered(self, trial: Trial) -> None:
        """An update or rollback is on its way."""
        await self._note(trial, OutcomeState.PENDING)

    async def _try(self, boot: BootFacts, slot: str, trial: Trial | None) -> None:
        log.say(f"this is a trial boot of slot {slot}: looking whether all works that worked before")
        why = await self._prove(trial.expect if trial else Expect())
        if why:
            await self._refuse(boot, slot, trial, why)
            return
        await self._everywhere(boot, lambda there: slots.confirm(there, slot, boot.firmware))
        if self._init.present:
            self._init.tell("confirmed")
        this_boot.announce(self._init, f"slot {slot} is confirmed: it starts from now on")
        if trial is not None:
            await self._note(trial, OutcomeState.CONFIRMED)

    async def _refuse(self, boot: BootFacts, slot: str, trial: Trial | None, why: str) -> None:
        this_boot.announce(self._init, f"slot {slot} is not good: {why}; going back to the other one")
        if trial is not None:
            await self._note(trial, OutcomeState.FAILED, why)
        try:
            await self._everywhere(boot, lambda there: slots.refuse(there, slot, why))
        except Problem as problem:  # then the loader's own count ends it
            log.say(f"the boot partition cannot be changed: {problem.detail}")
        self._init.tell("reboot")
        await asyncio.Event().wait()  # nothing that waits for a good boot goes on

    async def _settle(self, boot: BootFacts, slot: str, there: Esp) -> None:
        trial = there.trial
        if trial is not None and trial.slot == slot:
            # it was confirmed, and the power went before that was noted
            await self._note(trial, OutcomeState.CONFIRMED)
        elif trial is not None:
            await self._note(trial, OutcomeState.FAILED, trial.why or _SILENT)
            this_boot.announce(self._init, self.warnings()[0])
        await self._everywhere(boot, lambda seen: slots.settle(seen, slot, boot.firmware), mirrors=False)

    async def _close(self, boot: BootFacts) -> None:
        """What is noted as going on, though nothing is: the power went before its end was noted."""
        last = self.last
        if last is None or last.state is not OutcomeState.PENDING:
            return
        good = last.build == boot.build
        outcome = msgspec.structs.replace(
            last,
            state=OutcomeState.CONFIRMED if good else OutcomeState.FAILED,
            ended=clock.now(),
            why="" if good else _SILENT,
        )
        await self._keep(outcome)

    async def _mirrors(self, boot: BootFacts) -> None:
        """Bring the mirrors into step with what we were started from."""
        truth, *others = self._devices.all(boot)
        for other in others:
            try:
                await asyncio.to_thread(self._devices.follow, truth, other)
            except Problem as problem:
                log.say(f"the mirror {other.disk} is not in step: {problem.detail}")

    async def _everywhere(
        self, boot: BootFacts, decide: Callable[[Esp], tuple[Op, ...]], *, mirrors: bool = True
    ) -> None:
        for device in self._devices.all(boot)[: None if mirrors else 1]:
            try:
                await asyncio.to_thread(self._devices.change, device, decide)
            except Problem as problem:
                if device.booted:
                    raise
                log.say(f"the mirror {device.disk} does not follow: {problem.detail}")

    async def _note(self, trial: Trial, state: OutcomeState, why: str = "") -> None:
        old = self._records.find(_LAST)
        before = old.value.outcome if old else None
        if before is not None and before.begun == trial.begun and before.state is state:
            return
        outcome = Outcome(
            kind=trial.kind,
            state=state,
            slot=trial.slot,
            version=trial.manifest.version,
            build=trial.manifest.build,
            from_version=trial.before.version,
            from_build=trial.before.build,
            begun=trial.begun,
            ended=None if state is OutcomeState.PENDING else clock.now(),
            why=why,
        )
        await self._keep(outcome)

    async def _keep(self, outcome: Outcome) -> None:
        try:
            await self._records.commit(_LAST, OutcomeRecord(outcome=outcome))
        except Problem as problem:
            log.say(f"how the {outcome.kind} went cannot be kept: {problem.detail}")
        self._events.publish("deploy.changed", "host", of=outcome.kind, state=outcome.state, why=outcome.why)
