"""The verb that makes VMs: decide, commit the record, start the task that makes what the record says.

A VM's record exists from the commit of its create; an agent that dies in the midst of the task finds there
what to finish.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Task, TaskState
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.decision import Decision
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem
from thimble.dispatch import run
from thimble.state.tasks import Progress
from thimble.vm import provision
from thimble.vm.record import rules
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import Noted, VmRecord
from thimble.vm.table import VmTable
from thimble.vm.verbs.power import Power
from thimble.vm.verbs.wanted import Wanted, fits

replace = msgspec.structs.replace

#: How long the answer to an idempotency key stays the same.
KEY_LIFE_S = 86_400.0


class Create:
    def __init__(self, table: VmTable, power: Power, wanted: Wanted) -> None:
        self._table = table
        self._context = table.context
        self._power = power
        self._wanted = wanted

    async def create(self, call: Call[wire.VmCreate]) -> Started | DryRun:
        digest = _digest(call.input) if call.key else ""
        key = f"{call.user}/{call.key}" if call.key else ""  # nobody is told of another's VM by a guessed key
        want = rules.normalise(call.input, self._context.storage.default)
        noted = Noted(start=want.start, key=key, digest=digest)
        await self._table.known(want.datastore)

        async def act(decision: Decision[VmRecord]) -> Started:
            if decision.plan is None:
                again = self._same(key, digest)
                assert again is not None
                return again
            return await self._commit(decision.plan, want.datastore, call.user)

        def decide() -> Decision[VmRecord]:
            if key and not call.dry_run and self._same(key, digest) is not None:
                return Decision()
            return self._decide(want, noted)

        return await run.now(call, decide, act, turn=self._table.turn)

    def _decide(self, want: wire.VmCreate, noted: Noted) -> Decision[VmRecord]:
        reasons = self._wanted.blockers(want)
        record, unfit = (None, []) if reasons else fits(lambda: self._wanted.new(want, noted))
        return Decision(
            plan=record,
            effects=self._wanted.effects(want),
            blockers=(*reasons, *unfit),
            warnings=(*self._wanted.warnings(want), *self._power.slow_warning()),
            refusal=f"the VM {want.name!r} cannot be created",
            hint="Correct every field named in the reasons.",
        )

    async def _commit(self, record: VmRecord, root: str, owner: str) -> Started:
        id = identity("vm", self._context.entropy(5))
        volumes = [disk.volume for disk in record.spec.disks if disk.volume]
        try:
            with self._context.storage.attachments.volumes.take_all(volumes, id, "vm.create"):
                await self._table.add(id, record, root)
        except Problem:
            with suppress(OSError):
                self._table.directory(id, root).rmdir()
            raise
        task = self.finish(id, owner=owner)
        await self._context.tasks.begun(task.id)  # a cancel finds it where it takes all back
        return Started(task=task, subject=id)

    def _same(self, key: str, digest: str) -> Started | None:
        """The answer to a create that came before under the same key."""
        now = self._context.clock()
        found = next(
            (
                r
                for r in self._table.all()
                if r.value.noted.key == key and now - r.value.assigned.created < KEY_LIFE_S
            ),
            None,
        )
        if found is None:
            return None
        if found.value.noted.digest != digest:
            raise Problem(
                Code.CONFLICT,
                f"the idempotency key {key.partition('/')[2]!r} was used for another request",
                hint="Use a new key for a new VM.",
            )
        tasks = [t for t in self._context.tasks.all() if t.subject == found.id and t.verb == "vm.create"]
        created = found.value.assigned.created
        ended = Task(
            id="task-forgotten", verb="vm.create", subject=found.id, state=TaskState.DONE, progress=1.0,
            created=created, ended=created, result={"vm": found.id},
        )  # fmt: skip
        return Started(task=tasks[0] if tasks else ended, subject=found.id)

    def finish(self, id: str, *, owner: str = "") -> Task:
        """Start, or after a restart go on with, the work of a create."""
        driver = self._table.drivers[id]

        async def work(progress: Progress) -> dict[str, str]:
            try:
                await provision.create(id, self._table, progress)
            except BaseException as error:
                if self._table.find(id) is None:
                    self._table.drivers.pop(id, None)
                else:
                    why = getattr(error, "detail", "") or type(error).__name__
                    await driver.became(PowerState.FAILED, why)
                raise
            start = self._table.get(id).value.noted.start
            with driver.holding(Verb.START if start else Verb.CHANGE):
                await driver.became(PowerState.STOPPED)
                if not start:
                    return {"vm": id}
                await self._table.noted(id, lambda noted: replace(noted, start=False, intent=Intent.RUNNING))
                return {"vm": id, **await self._power.carry_out_start(driver, progress)}

        return self._context.tasks.start("vm.create", id, work, owner=owner, cancellable=True)


def _digest(value: wire.VmCreate) -> str:
    import hashlib  # loads libcrypto: only for those who use idempotency keys

    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
