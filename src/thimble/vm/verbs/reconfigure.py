"""The verbs that change what a VM is, and end it.

A change makes its new volumes first, which may take minutes; then it is decided again and committed under the
table's turn, or everything it made is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Decision
from thimble.dispatch import run
from thimble.state.store import Record, check
from thimble.state.tasks import Progress
from thimble.vm import provision
from thimble.vm.driver import Driver
from thimble.vm.qemu.launch_fds import Source
from thimble.vm.record import change, lifecycle, rules, saved_state
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import Definition, Disk, Phase, VmRecord, volume_ref
from thimble.vm.record.view import kept_seed
from thimble.vm.table import VmTable
from thimble.vm.verbs.wanted import Wanted, fits

replace = msgspec.structs.replace


class Reconfigure:
    def __init__(self, table: VmTable, wanted: Wanted) -> None:
        self._table = table
        self._context = table.context
        self._wanted = wanted

    # ── change ───────────────────────────────────────────────────────────────────────────────────

    async def change(self, call: Call[wire.VmChange]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)

        def decide() -> Decision[VmRecord]:
            return self._decide(found, driver.decide(Verb.CHANGE), driver, call.input)

        async def act(value: VmRecord, progress: Progress) -> dict[str, str]:
            async with driver.changing:
                check(value.generation, self._table.get(found.id).value.generation, "VM")
                return await self._carry_out(found, driver, value, call.input, progress)

        return await run.task(
            self._context.tasks, "vm.change", found.id, call, decide, act,
            hold=lambda: driver.holding(Verb.CHANGE),
        )  # fmt: skip

    def _decide(
        self,
        found: Record[VmRecord],
        base: Decision[bool],
        driver: Driver,
        asked: wire.VmChange,
        *,
        made: Collection[str] = (),
    ) -> Decision[VmRecord]:
        """From the VM as the caller saw it; the commit compares. `base`: what its state answers; `made`: the
        disks that are there by now.
        """
        record = found.value
        name, old = record.spec.name, record.definition
        want = rules.normalise(change.asked(record, asked, found.root), found.root)
        want = replace(want, seed=kept_seed(want.seed, record.spec.seed))
        own = {disk.name: volume_ref(found.root, found.id, disk) for disk in old.disks}
        reasons = [
            *base.blockers,
            *change.disk_reasons(old.disks, want.disks, own),
            *self._wanted.blockers(want, found, made=made),
        ]
        value, unfit = (None, []) if reasons else fits(lambda: self._wanted.changed(found, want))
        reasons += unfit
        if value is not None and driver.status.state is PowerState.SAVED:
            reasons += saved_state.change_reasons(old, value.definition)
        if value is not None and not reasons and _same(value, record):
            return Decision(note="it is so already")
        return Decision(
            plan=value,
            effects=() if value is None else self._effects(name, driver, value.definition),
            blockers=tuple(reasons),
            refusal=f"the VM {name} cannot be changed like this",
            hint="Correct every field named in the reasons.",
        )

    def _effects(self, name: str, driver: Driver, vm: Definition) -> tuple[str, ...]:
        lines = [f"changes {name}"]
        plan = driver.plan(vm)
        if plan is not None:
            lines += [effect.describe() for effect in plan.hot]
            lines += [f"at the next cold start: {words}" for words in plan.pending]
        return tuple(lines)

    async def _carry_out(
        self,
        found: Record[VmRecord],
        driver: Driver,
        value: VmRecord,
        asked: wire.VmChange,
        progress: Progress,
    ) -> dict[str, str]:
        context, old, vm = self._context, found.value.definition, value.definition
        source = Source(context.storage, context.network, found.id, found.root)
        known = {disk.name for disk in old.disks}
        fresh = tuple(disk for disk in vm.disks if disk.name not in known)
        for disk in fresh:  # a file of that name is of a change that was cut off, and not what is asked now
            if not disk.volume:
                await provision.release_volume(source, old, disk)
        volumes = [disk.volume for disk in fresh if disk.volume]
        try:
            with context.storage.attachments.volumes.take_all(volumes, found.id, "vm.change"):
                async with progress.step("volumes"):
                    made = await provision.make_volumes(source, vm, fresh, context, progress)
                    if vm.firmware is wire.Firmware.UEFI:
                        await asyncio.to_thread(provision.make_variables, source, context)
                async with progress.step("record"), self._table.turn:
                    await self._commit(found, driver, asked, {disk.name: disk.size_bytes for disk in made})
        except Exception:  # an agent that ends leaves what it made: the commit may be on its way
            await provision.discard(source, fresh, directory=self._table.find(found.id) is None)
            raise
        try:
            async with progress.step("apply"):
                pending = await driver.follow()
        finally:  # also when a guest does not let go: what the record has no more is not this VM's
            kept = await self._released(source, old, vm)
        notes = {"kept": ", ".join(kept)} if kept else {}
        return {**notes, "pending": "; ".join(pending)} if pending else notes

    async def _commit(
        self, found: Record[VmRecord], driver: Driver, asked: wire.VmChange, made: dict[str, int]
    ) -> None:
        """Decided once more, for a name, MAC or volume that somebody took while the volumes were made."""
        decision = self._decide(found, lifecycle.YES, driver, asked, made=made.keys())
        decision.refuse()
        assert decision.plan is not None
        given = decision.plan.assigned
        value = replace(decision.plan, assigned=replace(given, disks=given.disks | made))
        await self._table.respec(found.id, value)

    async def _released(self, source: Source, old: Definition, vm: Definition) -> list[str]:
        """The names under which volumes that the VM has no more stay."""
        stay = {disk.name for disk in vm.disks}
        gone: list[Disk] = [disk for disk in old.disks if not disk.volume and disk.name not in stay]
        return [name for disk in gone if (name := await provision.release_volume(source, old, disk))]

    # ── delete ───────────────────────────────────────────────────────────────────────────────────

    async def delete(self, call: Call[wire.DeleteRequest]) -> Started | DryRun:
        found, driver = self._table.asked(call.path["vm"], call.if_match)
        keep = bool(call.input and call.input.keep_volumes)
        name = found.value.spec.name

        def decide() -> Decision[bool]:
            decision = driver.decide(Verb.DELETE)
            if decision.blockers:
                return replace(decision, refusal=f"{name}: {decision.blockers[0].message}")
            if decision.plan is None:
                return decision
            return replace(decision, effects=(f"deletes {name}{'' if keep else ' and its volumes'}",))

        async def act(decision: Decision[bool]) -> Started:
            if decision.plan is None:
                for task in self._context.tasks.all():
                    if task.subject == found.id and task.verb == "vm.delete":
                        return Started(task=task, subject=found.id)
            driver.monitor.cancel_restart()
            with driver.holding(Verb.DELETE):
                await self._table.noted(
                    found.id,
                    lambda now: replace(now, phase=Phase.DELETING, keep_volumes=keep, intent=Intent.STOPPED),
                )
                await driver.became(PowerState.DELETING)
            return Started(task=self.finish_delete(found.id, owner=call.user), subject=found.id)

        return await run.now(call, decide, act)

    def finish_delete(self, id: str, *, owner: str = "") -> Task:
        """Start, or after a restart go on with, the work of a delete."""
        driver = self._table.drivers[id]

        async def work(progress: Progress) -> None:
            try:
                await driver.became(PowerState.DELETING)
                await provision.delete(id, self._table, progress)
            except Exception as error:
                why = getattr(error, "detail", "") or f"{type(error).__name__}: {error}"
                await driver.became(PowerState.FAILED, why)
                raise
            await driver.close()
            self._table.drivers.pop(id, None)
            self._context.events.publish("vm.deleted", id)

        return self._context.tasks.start("vm.delete", id, work, owner=owner)


def _same(new: VmRecord, old: VmRecord) -> bool:
    """Does it change nothing? A MAC that was given counts as one that was asked for."""
    devices = {"disks": (), "nics": ()}
    return new.definition == old.definition and replace(new.spec, **devices) == replace(old.spec, **devices)
