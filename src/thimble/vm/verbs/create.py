"""The verb that makes VMs, and what stands against a VM that is asked for, new or changed.

Look everything up, check, answer a dry run, commit the record, start the task. A VM's record exists from the
commit of its create; an agent that dies in the midst of the task finds there what to finish.
"""

from __future__ import annotations

import asyncio
import builtins
from contextlib import suppress

import msgspec

from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task, TaskState
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import show_size
from thimble.state.store import Record
from thimble.state.tasks import Progress
from thimble.vm import provision
from thimble.vm.driver import Driver
from thimble.vm.record import assign, rules
from thimble.vm.record.spec import Disk, VmRecord
from thimble.vm.verbs.power import PowerVerbs

replace = msgspec.structs.replace

#: How long the answer to an idempotency key stays the same.
KEY_LIFE_S = 86_400.0


class CreateVerbs(PowerVerbs):
    async def create(self, call: Call[wire.VmCreate]) -> Started | DryRun:
        digest = _digest(call.input) if call.key else ""
        key = f"{call.user}/{call.key}" if call.key else ""  # nobody is told of another's VM by a guessed key
        if call.key and not call.dry_run and (again := self._same(key, digest)) is not None:
            return again
        want = rules.normalise(call.input, self.world.storage.default)
        blockers = self._blockers(want)
        if call.dry_run:
            return DryRun(
                possible=not blockers,
                effects=tuple(Effect(what=line) for line in self._create_effects(want)),
                blockers=tuple(blockers),
                warnings=tuple(self._warnings_of(want)),
            )
        refuse(blockers, f"the VM {want.name!r} cannot be", hint="Correct every field named in the reasons.")
        id = identity("vm", self._entropy(5))
        value = replace(self._draft(want), key=key, digest=digest)
        try:
            self.store.put(id, value, root=want.datastore, expect=0)
        except Problem:
            with suppress(OSError):
                self.store.path(id, want.datastore).parent.rmdir()
            raise
        self.drivers[id] = Driver(id, self.world, PowerState.CREATING)
        self.world.events.publish("vm.changed", id, state=PowerState.CREATING, name=want.name)
        task = self.finish_create(id, owner=call.user)
        await asyncio.sleep(0)  # the work has begun now: a cancel finds it where it takes all back
        return Started(task=task, subject=id)

    def _draft(self, want: wire.VmCreate) -> VmRecord:
        others = self.port_uses()
        nics = assign.make_nics(
            want,
            (),
            {p.mac for p in others},
            {p.ip for p in others},
            self._entropy,
            self.world.network.address_for,
        )
        return assign.record(
            want,
            uid=assign.free_uid({r.value.uid for r in self.store.all()}),
            created=self.world.clock(),
            entropy=self._entropy,
            nics=nics,
            disks=tuple(self._disk(disk, want.datastore) for disk in want.disks),
        )

    def _disk(self, want: wire.DiskSpec, home: str) -> Disk:
        """Raises `Problem` NOT_FOUND when volume or image went meanwhile."""
        if want.volume is not None:
            facts = self.world.storage.resolve_volume(want.volume, home)
            ref = want.volume if "/" in want.volume else f"{home}/{want.volume}"
            return Disk(
                name=want.name, volume=ref, size_bytes=facts.size_bytes,
                format=wire.DiskFormat(facts.format), bus=want.bus, read_only=want.read_only,
            )  # fmt: skip
        size = want.size_bytes or 0
        if not size and want.image is not None:
            size = self.world.storage.resolve_image(want.image, home).size_bytes
        return Disk(
            name=want.name, image=want.image or "", size_bytes=size, format=want.format, bus=want.bus,
            read_only=want.read_only,
        )  # fmt: skip

    def _same(self, key: str, digest: str) -> Started | None:
        """The answer to a create that came before under the same key."""
        now = self.world.clock()
        found = next(
            (r for r in self.store.all() if r.value.key == key and now - r.value.created < KEY_LIFE_S), None
        )
        if found is None:
            return None
        if found.value.digest != digest:
            raise Problem(
                Code.CONFLICT,
                f"the idempotency key {key.partition('/')[2]!r} was used for another request",
                hint="Use a new key for a new VM.",
            )
        tasks = [t for t in self.world.tasks.all() if t.subject == found.id and t.verb == "vm.create"]
        ended = Task(
            id="task-forgotten", verb="vm.create", subject=found.id, state=TaskState.DONE, progress=1.0,
            created=found.value.created, ended=found.value.created, result={"vm": found.id},
        )  # fmt: skip
        return Started(task=tasks[0] if tasks else ended, subject=found.id)

    def finish_create(self, id: str, *, owner: str = "") -> Task:
        """Start, or after a restart go on with, the work of a create."""

        async def work(progress: Progress) -> dict[str, str]:
            try:
                await provision.create(id, self.world, self.store, progress)
            except BaseException as error:
                driver = self.drivers.get(id)
                if self.store.find(id) is None:
                    self.drivers.pop(id, None)
                elif driver is not None:
                    driver.create_failed(getattr(error, "detail", "") or type(error).__name__)
                raise
            driver = self.drivers[id]
            driver.created()
            warning = {}
            if self.store.get(id).value.start:
                self._put(id, start=False, intent=Intent.RUNNING)
                warning = await self._start(driver, progress)
            return {"vm": id, **warning}

        return self.world.tasks.start("vm.create", id, work, owner=owner, cancellable=True)

    def _blockers(self, want: wire.VmCreate, old: Record[VmRecord] | None = None) -> builtins.list[Reason]:
        """Everything against `want`, ours and the neighbours'. `old`: the VM that is to become so."""
        host, storage, network = self._facts(), self.world.storage, self.world.network
        reasons = rules.check(want, host)
        same = [r for r in self.store.all() if r.value.name == want.name and (old is None or r.id != old.id)]
        if same:
            message = f"there is a VM {want.name!r} already"
            reasons.append(Reason(message=message, code=Code.EXISTS, path="$.name"))
        me = old.id if old else ""
        home = want.datastore
        reasons += storage.check_home(home, "$.datastore")
        if any(reason.path == "$.datastore" for reason in reasons):
            return reasons
        kept = {disk.name for disk in old.value.disks} if old else set()
        for n, disk in enumerate(want.disks):
            if disk.name not in kept:
                reasons += storage.check_disk(disk, home, f"$.disks[{n}]", vm=me)
        for n, nic in enumerate(want.nics):
            reasons += network.check_nic(nic, f"$.nics[{n}]", vm=me)
        for n, cdrom in enumerate(want.cdroms):
            if cdrom.image is not None:
                reasons += storage.check_image(cdrom.image, home, f"$.cdroms[{n}].image")
        if want.direct:
            reasons += storage.check_image(want.direct.kernel, home, "$.direct.kernel")
            if want.direct.initrd:
                reasons += storage.check_image(want.direct.initrd, home, "$.direct.initrd")
        if not reasons and old is None:
            try:
                self._draft(want)
            except Problem as problem:
                reasons.append(Reason(message=f"{problem.detail}. {problem.hint}", code=problem.code))
        return reasons

    def _create_effects(self, want: wire.VmCreate) -> builtins.list[str]:
        lines = [f"creates VM {want.name} on {want.datastore}"]
        for disk in want.disks:
            if disk.volume is None:
                size = f" ({show_size(disk.size_bytes)})" if disk.size_bytes else ""
                copy = f", a copy of {disk.image}" if disk.image else ""
                lines.append(f"creates volume {disk.name}{size}{copy}")
        lines += [f"makes a port for {nic.name} on switch {nic.switch}" for nic in want.nics]
        return [*lines, "starts it"] if want.start else lines

    def _warnings_of(self, want: wire.VmCreate) -> builtins.list[str]:
        storage = self.world.storage
        lines = [w for disk in want.disks for w in storage.disk_warnings(disk, want.datastore, disk.name)]
        if self.world.accel.name != "kvm":
            lines.append(self._slow())
        return lines


def _digest(value: wire.VmCreate) -> str:
    import hashlib  # loads libcrypto: only for those who use idempotency keys

    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
