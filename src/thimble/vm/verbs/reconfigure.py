"""The verbs that change VMs and take them away.

Each: look everything up, `decide`, check, answer a dry run, commit the record, start the task. A VM's record
exists until the last step of its delete; an agent that dies before finds there what to finish.
"""

from __future__ import annotations

import builtins

import msgspec

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Deny, Ignore
from thimble.core.problem import refuse
from thimble.state.store import Record, check
from thimble.state.tasks import Progress
from thimble.vm import provision
from thimble.vm.driver import Driver
from thimble.vm.qemu.launch_fds import Source
from thimble.vm.record import assign, change, layout, lifecycle, rules, spec
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import Phase, VmRecord, volume_ref
from thimble.vm.table import dry, refuse_verb
from thimble.vm.verbs.create import CreateVerbs

replace = msgspec.structs.replace


class ShapingVerbs(CreateVerbs):
    async def change(self, call: Call[wire.VmChange]) -> Started | DryRun:
        found, driver = self._find(call)
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.CHANGE)
        blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
        old = found.value
        want = rules.normalise(change.as_spec(old, call.input, found.root), found.root)
        own = {disk.name: volume_ref(found.root, found.id, disk) for disk in old.disks}
        want = replace(want, seed=spec.kept_seed(want.seed, old.seed))
        blockers += change.disk_reasons(old.disks, want.disks, own) + self._blockers(want, found)
        value = None if blockers else self._changed(found, want)
        if value is not None and driver.status.state is PowerState.SAVED:
            from thimble.vm.record import saved_state

            blockers += saved_state.change_reasons(old, value)
        if call.dry_run:
            lines = [] if value is None else self._change_effects(found, driver, value)
            return DryRun(
                possible=not blockers,
                effects=tuple(Effect(what=line) for line in lines),
                blockers=tuple(blockers),
            )
        refuse(blockers, f"{old.name} cannot become so", hint="Correct every field named in the reasons.")
        assert value is not None

        async def work(progress: Progress) -> dict[str, str]:
            async with driver.changing:
                check(found.rev, self.store.get(found.id).rev, "VM")
                return await self._carry_out_change(found, driver, value, progress)

        return self._task("vm.change", found.id, work, call)

    def _changed(self, found: Record[VmRecord], want: wire.VmCreate) -> VmRecord:
        """The record that `want` means. Raises `Problem` when devices do not fit."""
        old = found.value
        known = {disk.name: disk for disk in old.disks}
        others = [p for p in self.port_uses() if p.vm_id != found.id]
        nics = assign.make_nics(
            want, old.nics, {p.mac for p in others}, {p.ip for p in others}, self._entropy,
            self.world.network.address_for,
        )  # fmt: skip
        disks = tuple(
            change.merged_disk(disk, known[disk.name]) if disk.name in known else self._disk(disk, found.root)
            for disk in want.disks
        )
        fields = {f: getattr(want, f) for f in change.PLAIN}
        value = replace(old, **fields, disks=disks, nics=nics, cdroms=change.merged_cdroms(want.cdroms))
        return replace(value, addresses=layout.assign(value))

    def _change_effects(self, found: Record[VmRecord], driver: Driver, value: VmRecord) -> builtins.list[str]:
        if value == found.value:
            return []
        lines = [f"changes {found.value.name}"]
        plan = driver.plan(value)
        if plan is not None:
            lines += [effect.describe() for effect in plan.hot]
            lines += [f"at the next cold start: {words}" for words in plan.pending]
        return lines

    async def _carry_out_change(
        self, found: Record[VmRecord], driver: Driver, value: VmRecord, progress: Progress
    ) -> dict[str, str]:
        old = found.value
        if value == old:
            return {"note": "it is so already"}
        source = Source(self.world.storage, self.world.network, found.id, found.root)
        known = {disk.name for disk in old.disks}
        fresh = tuple(disk for disk in value.disks if disk.name not in known)
        for disk in fresh:  # a file of that name is of a change that was cut off, and not what is asked now
            if not disk.volume:
                provision.release_volume(source, old, disk)
        try:
            async with progress.step("volumes"):
                made = await provision.make_volumes(source, value, fresh, self.world, progress)
                if value.firmware is wire.Firmware.UEFI:
                    provision.make_variables(source, self.world)
            async with progress.step("record"):
                sized = {disk.name: disk for disk in made}
                value = replace(value, disks=tuple(sized.get(d.name, d) for d in value.disks))
                record = self.store.put(found.id, value, expect=found.rev)
                self.world.events.publish("vm.changed", found.id, name=value.name, rev=str(record.rev))
        except BaseException:
            await provision.discard(source, fresh, directory=self.store.find(found.id) is None)
            raise
        try:
            async with progress.step("apply"):
                pending = await driver.ask(driver.follow)
        finally:  # also when a guest does not let go: what the record has no more is not this VM's
            kept = [
                provision.release_volume(source, old, disk)
                for disk in old.disks
                if not disk.volume and disk.name not in {d.name for d in value.disks}
            ]
        notes = {"kept": ", ".join(filter(None, kept))} if any(kept) else {}
        return {**notes, "pending": "; ".join(pending)} if pending else notes

    async def delete(self, call: Call[wire.DeleteRequest]) -> Started | DryRun:
        found, driver = self._find(call)
        keep = bool(call.input and call.input.keep_volumes)
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.DELETE)
        if call.dry_run:
            blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
            return dry(blockers, verdict, f"deletes {found.value.name}{'' if keep else ' and its volumes'}")
        refuse_verb(verdict, found)
        if isinstance(verdict, Ignore):
            running = [t for t in self.world.tasks.all() if t.subject == found.id and t.verb == "vm.delete"]
            if running:
                return Started(task=running[0], subject=found.id)
        self._put(found.id, phase=Phase.DELETING, keep_volumes=keep, intent=Intent.STOPPED)
        return Started(task=self.finish_delete(found.id, owner=call.user), subject=found.id)

    def finish_delete(self, id: str, *, owner: str = "") -> Task:
        driver = self.drivers[id]
        if driver.status.state is not PowerState.DELETING:
            driver.deleting()

        async def work(progress: Progress) -> None:
            try:
                await provision.delete(id, driver, self.world, self.store, progress)
            except Exception as error:
                driver.delete_failed(getattr(error, "detail", "") or f"{type(error).__name__}: {error}")
                raise
            await driver.close()
            self.drivers.pop(id, None)
            self.world.events.publish("vm.deleted", id)

        return self.world.tasks.start("vm.delete", id, work, owner=owner)
