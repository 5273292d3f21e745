"""The VM verbs: checks, commits records, starts tasks. Writes specs and intents; drivers do the rest.

Every mutation: look everything up, `decide`, check, answer a dry run, commit the record, start the task.
Invariant: a VM's record exists from the commit of its create to the last step of its delete, and an agent
that dies between finds in it what to finish.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from thimble.console.serial import Consoles, Session
from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task, TaskState
from thimble.contract.verbs import Started
from thimble.contract.vm import Intent, PowerState
from thimble.core.ids import identity
from thimble.core.problem import Code, Problem, Reason, refuse
from thimble.core.units import MIB, show_size
from thimble.core.verdict import Deny, Ignore
from thimble.host import hardware
from thimble.host.hardware import Accel
from thimble.network.records import PortUse
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.store import Collection, Record, check
from thimble.state.tasks import Progress, Tasks, Work
from thimble.storage.service import Storage
from thimble.vm import boot, change, draft, layout, lifecycle, making, process, rules, spec
from thimble.vm.driver import Driver, World
from thimble.vm.lifecycle import Verb
from thimble.vm.outfit import Source
from thimble.vm.process import QemuPaths
from thimble.vm.rules import HostFacts
from thimble.vm.spec import Disk, Phase, VmRecord, volume_ref

replace = msgspec.structs.replace

#: What QEMU itself needs beside the guest's memory, about.
OVERHEAD = 64 * MIB
KEY_LIFE_S = 86_400.0


class VmService:
    def __init__(
        self,
        *,
        storage: Storage,
        network: Network,
        consoles: Consoles,
        events: Events,
        tasks: Tasks,
        accel: Accel,
        qemu: QemuPaths,
        run: Path,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        own_users: bool | None = None,
        durable: bool = True,
    ) -> None:
        """`own_users`: each QEMU as a user of its own; None: when we are root and that user can reach QEMU."""
        self.store: Collection[VmRecord] = Collection(VmRecord, noun="VM", inside="vm.json", durable=durable)
        root = os.geteuid() == 0
        self._private = own_users is None and root and not process.usable_by_others(qemu)
        self.world = World(
            storage=storage, network=network, consoles=consoles, events=events, tasks=tasks, accel=accel,
            qemu=qemu, run=run, clock=clock,
            own_users=(root and not self._private) if own_users is None else own_users,
            cgroups=boot.cgroup_root(run) if root else None,
        )  # fmt: skip
        self.world.record = self.store.get
        self.world.intend = self._intend
        self.world.restart = self._restart
        self._entropy = entropy
        self.drivers: dict[str, Driver] = {}
        self._boot = boot.Boot(self)

    # ── for app ──────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Read the records, take running QEMUs in hand; nothing slow unless there are any."""
        await self._boot.open()

    async def autostart(self) -> None:
        """After ready: warm up, finish what was interrupted, start what starts with the host."""
        await self._boot.autostart()

    async def stop_all(self, timeout: float) -> None:
        """The host goes down: every guest gets its shutdown request and `timeout` seconds; intents stay."""
        self.world.host_stopping = True
        await asyncio.gather(*(self._stop_for_host(driver, timeout) for driver in self.drivers.values()))

    async def _stop_for_host(self, driver: Driver, timeout: float) -> None:
        driver._cancel_restart()
        if driver.status.state not in lifecycle.LIVE:
            return
        try:
            await driver.ask(driver.begin_stop)
            await asyncio.wait_for(driver.off.wait(), timeout)
        except (Problem, TimeoutError):
            driver.kill()
            await driver.off.wait()

    async def close(self) -> None:
        """Let go of everything; QEMUs run on."""
        self._boot.close()
        for driver in self.drivers.values():
            await driver.close()

    def counts(self) -> tuple[int, int]:
        """(all, running)."""
        live = sum(driver.status.state in lifecycle.LIVE for driver in self.drivers.values())
        return len(self.drivers), live

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for driver in self.drivers.values():
            found[driver.status.state] = found.get(driver.status.state, 0) + 1
        return found

    def port_uses(self) -> list[PortUse]:
        """Every NIC of every VM."""
        return [
            PortUse(vm_id=r.id, vm_name=r.value.name, nic=nic.name, switch=nic.switch, mac=nic.mac, ip=nic.ip)
            for r in self.store.all()
            for nic in r.value.nics
        ]

    def volume_users(self) -> dict[str, str]:
        """volume ref → VM id."""
        return {volume_ref(r.shelf, r.id, disk): r.id for r in self.store.all() for disk in r.value.disks}

    def image_users(self) -> dict[str, str]:
        """image ref → VM id, for CD-ROMs and direct boot."""
        found: dict[str, str] = {}
        for r in self.store.all():
            refs = [cdrom.image for cdrom in r.value.cdroms]
            if r.value.direct:
                refs += [r.value.direct.kernel, r.value.direct.initrd]
            found |= {ref if "/" in ref else f"{r.shelf}/{ref}": r.id for ref in refs if ref}
        return found

    def warnings(self) -> tuple[str, ...]:
        lines = [f"{path}: not used, {why}" for path, why in self.store.broken.items()]
        if self.world.accel.name != "kvm":
            lines.append(f"VMs run emulated (TCG), many times slower than with KVM: {self.world.accel.why}")
        if self._private:
            lines.append("VMs run as root, not as users of their own: QEMU lies in a private directory")
        return tuple(lines)

    async def qemu_version(self) -> str:
        return await self._boot.qemu_version()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def find(self, ref: str) -> Record[VmRecord]:
        """By id or name. Raises `Problem` NOT_FOUND."""
        found = self.store.find(ref) or next((r for r in self.store.all() if r.value.name == ref), None)
        if found is None:
            raise Problem(Code.NOT_FOUND, f"there is no VM {ref!r}", hint="`thimble vm list` shows all.")
        return found

    def _find(self, call: Call[Any]) -> tuple[Record[VmRecord], Driver]:
        found = self.find(call.path["vm"])
        check(call.if_match, found.rev, "VM")
        return found, self.drivers[found.id]

    async def list(self, _call: Call[None]) -> wire.VmList:
        """From memory only."""
        rows = []
        for r in self.store.all():
            status = self.drivers[r.id].status
            rows.append(
                spec.summary(r.id, r.rev, r.value, status, lifecycle.allowed(status.state, r.value.phase))
            )
        rows.sort(key=lambda row: row.name)
        return wire.VmList(rev=self.world.events.rev, vms=tuple(rows))

    async def get(self, call: Call[None]) -> wire.Vm:
        found = self.find(call.path["vm"])
        status = self.drivers[found.id].status
        verbs = lifecycle.allowed(status.state, found.value.phase)
        return spec.view(found.id, found.rev, found.shelf, found.value, status, verbs, role=call.role)

    async def log(self, call: Call[None]) -> wire.ConsoleLog:
        found = self.find(call.path["vm"])
        data = self.world.consoles.tail(found.id)
        log = self.drivers[found.id].place.serial_log
        if not data:
            data = process.tail(log, 64 * 1024)
        longer = log.exists() and log.stat().st_size > len(data)
        return wire.ConsoleLog(text=data.decode(errors="replace"), truncated=longer)

    async def console(self, call: Call[None]) -> Session:
        found = self.find(call.path["vm"])
        if not found.value.serial:
            raise Problem(Code.CONFLICT, "this VM was made without a serial port")
        _refuse(lifecycle.decide(self.drivers[found.id].status.state, found.value.phase, Verb.CONSOLE), found)
        return await self.world.consoles.session(found.id)

    # ── create ───────────────────────────────────────────────────────────────────────────────────

    async def create(self, call: Call[wire.VmCreate]) -> Started | DryRun:
        digest = hashlib.sha256(msgspec.json.encode(call.input)).hexdigest() if call.key else ""
        if call.key and (again := self._same(call.key, digest)) is not None:
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
        value = replace(self._draft(want), key=call.key, digest=digest)
        self.store.put(id, value, shelf=want.datastore, expect=0)
        self.drivers[id] = Driver(id, self.world, PowerState.CREATING)
        self.world.events.publish("vm.changed", id, state=PowerState.CREATING, name=want.name)
        return Started(task=self.finish_create(id, owner=call.user), subject=id)

    def _draft(self, want: wire.VmCreate) -> VmRecord:
        others = self.port_uses()
        nics = draft.make_nics(
            want,
            (),
            {p.mac for p in others},
            {p.ip for p in others},
            self._entropy,
            self.world.network.address_for,
        )
        return draft.record(
            want,
            uid=draft.free_uid({r.value.uid for r in self.store.all()}),
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
                f"the idempotency key {key!r} was used for another request",
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
                await making.create(id, self.world, self.store, progress)
            except BaseException:
                self.drivers.pop(id, None)
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

    def _slow(self) -> str:
        return f"it runs emulated (TCG), many times slower than with KVM: {self.world.accel.why}"

    def _facts(self) -> HostFacts:
        total, available = hardware.memory()
        accel = self.world.accel
        return HostFacts(
            cpus=os.cpu_count() or 1, memory_bytes=total, memory_available_bytes=available,
            accel=accel.name, accel_why=accel.why,
        )  # fmt: skip

    # ── power ────────────────────────────────────────────────────────────────────────────────────

    async def start(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._find(call)
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.START)
        blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
        if not blockers and not isinstance(verdict, Ignore):
            blockers += self._memory_reasons(found.value)
        if call.dry_run:
            return _dry(blockers, verdict, f"starts {found.value.name}", self._slow_warning())
        refuse(blockers, f"{found.value.name} cannot be started now", hint=_hint(blockers))
        self._intend(found.id, Intent.RUNNING)

        async def work(progress: Progress) -> dict[str, str]:
            if isinstance(verdict, Ignore):
                return {"note": verdict.why}
            return await self._start(driver, progress)

        return self._task("vm.start", found.id, work, call)

    async def _start(self, driver: Driver, progress: Progress) -> dict[str, str]:
        refuse(self._memory_reasons(self.store.get(driver.id).value), "not enough memory to start it")
        try:
            await driver.ask(lambda: driver.start(progress))
        except Problem:
            if self.store.find(driver.id) is not None:
                self._intend(driver.id, Intent.STOPPED)
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
            try:
                refuse(self._memory_reasons(self.store.get(id).value), "not enough memory to start it")
                await driver.ask(lambda: driver.start(progress))
            except Problem as problem:
                driver.restart_failed(problem.detail)
                raise

        self.world.tasks.start("vm.start", id, work, owner="crash policy")

    def begin(self, id: str, owner: str) -> Task:
        """Start it without anybody asking: with the host, or because the asking was interrupted."""
        self._intend(id, Intent.RUNNING)
        driver = self.drivers[id]

        async def work(progress: Progress) -> dict[str, str]:
            return await self._start(driver, progress)

        return self.world.tasks.start("vm.start", id, work, owner=owner)

    async def stop(self, call: Call[wire.StopRequest]) -> Started | DryRun:
        found, driver = self._find(call)
        ask = call.input or wire.StopRequest()

        async def work(progress: Progress) -> dict[str, str]:
            async with progress.step("ask"):
                await driver.ask(driver.begin_stop)
            async with progress.step("wait"):
                return await self._await_off(driver, ask)

        return self._power(call, Verb.STOP, found, driver, work, Intent.STOPPED, "asks {} to shut down")

    async def _await_off(self, driver: Driver, ask: wire.StopRequest) -> dict[str, str]:
        try:
            await asyncio.wait_for(driver.off.wait(), ask.timeout_s)
            return {}
        except TimeoutError:
            if ask.force:
                driver.kill()
                await driver.off.wait()
                return {"note": "the guest did not obey in time and was killed"}
        await driver.ask(lambda: driver.stop_refused(ask.timeout_s))
        raise Problem(
            Code.TIMEOUT,
            f"the guest did not shut down within {ask.timeout_s:.0f} s and runs on",
            hint="Look at its console; stop it with force, or kill it.",
        )

    async def kill(self, call: Call[None]) -> Started | DryRun:
        found, driver = self._find(call)

        async def work(progress: Progress) -> None:
            async with progress.step("kill"):
                if driver.status.state in lifecycle.LIVE:
                    driver.kill()
                    await driver.off.wait()
                else:
                    await driver.ask(driver.give_up)

        return self._power(call, Verb.KILL, found, driver, work, Intent.STOPPED, "powers {} off at once")

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

        return self._power(call, verb, found, driver, work, None, effect)

    def _power(
        self,
        call: Call[Any],
        verb: Verb,
        found: Record[VmRecord],
        driver: Driver,
        work: Work,
        intent: Intent | None,
        effect: str,
    ) -> Started | DryRun:
        verdict = lifecycle.decide(driver.status.state, found.value.phase, verb)
        if call.dry_run:
            blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
            return _dry(blockers, verdict, effect.format(found.value.name))
        _refuse(verdict, found)
        if intent is not None:
            self._intend(found.id, intent)
        if isinstance(verdict, Ignore):
            why = verdict.why

            async def nothing(_: Progress) -> dict[str, str]:
                return {"note": why}

            return self._task(f"vm.{verb}", found.id, nothing, call)
        return self._task(f"vm.{verb}", found.id, work, call)

    # ── change and delete ────────────────────────────────────────────────────────────────────────

    async def change(self, call: Call[wire.VmChange]) -> Started | DryRun:
        found, driver = self._find(call)
        verdict = lifecycle.decide(driver.status.state, found.value.phase, Verb.CHANGE)
        blockers = list(verdict.reasons) if isinstance(verdict, Deny) else []
        old = found.value
        want = rules.normalise(change.as_spec(old, call.input, found.shelf), found.shelf)
        own = {disk.name: volume_ref(found.shelf, found.id, disk) for disk in old.disks}
        want = replace(want, seed=spec.kept_seed(want.seed, old.seed))
        blockers += change.disk_reasons(old.disks, want.disks, own) + self._blockers(want, found)
        value = None if blockers else self._changed(found, want)
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
            return await self._carry_out_change(found, driver, value, progress)

        return self._task("vm.change", found.id, work, call)

    def _changed(self, found: Record[VmRecord], want: wire.VmCreate) -> VmRecord:
        """The record that `want` means. Raises `Problem` when devices do not fit."""
        old = found.value
        known = {disk.name: disk for disk in old.disks}
        others = [p for p in self.port_uses() if p.vm_id != found.id]
        nics = draft.make_nics(
            want, old.nics, {p.mac for p in others}, {p.ip for p in others}, self._entropy,
            self.world.network.address_for,
        )  # fmt: skip
        disks = tuple(
            change.merged_disk(disk, known[disk.name])
            if disk.name in known
            else self._disk(disk, found.shelf)
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
        source = Source(self.world.storage, self.world.network, found.id, found.shelf)
        known = {disk.name for disk in old.disks}
        async with progress.step("volumes"):
            fresh = tuple(disk for disk in value.disks if disk.name not in known)
            made = {d.name: d for d in await making.make_volumes(source, value, fresh, self.world, progress)}
            if value.firmware is wire.Firmware.UEFI:
                making.make_variables(source, self.world)
        async with progress.step("record"):
            value = replace(
                value,
                disks=tuple(made.get(d.name, d) for d in value.disks),
                intent=self.store.get(found.id).value.intent,
            )
            record = self.store.put(found.id, value, expect=found.rev)
            self.world.events.publish("vm.changed", found.id, name=value.name, rev=str(record.rev))
        async with progress.step("apply"):
            pending = await driver.ask(driver.follow)
        kept = [
            making.release_volume(source, old, disk)
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
            return _dry(blockers, verdict, f"deletes {found.value.name}{'' if keep else ' and its volumes'}")
        _refuse(verdict, found)
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
                await making.delete(id, driver, self.world, self.store, progress)
            except Problem as problem:
                driver.delete_failed(problem.detail)
                raise
            await driver.close()
            self.drivers.pop(id, None)
            self.world.events.publish("vm.deleted", id)

        return self.world.tasks.start("vm.delete", id, work, owner=owner)

    # ── records ──────────────────────────────────────────────────────────────────────────────────

    def _put(self, id: str, **fields: object) -> None:
        self.store.put(id, replace(self.store.get(id).value, **fields))

    def _intend(self, id: str, intent: Intent) -> None:
        """The commit of a start or stop."""
        if self.store.get(id).value.intent is not intent:
            self._put(id, intent=intent)

    def _task(self, verb: str, id: str, work: Work, call: Call[Any]) -> Started:
        return Started(task=self.world.tasks.start(verb, id, work, owner=call.user), subject=id)


def _refuse(verdict: object, found: Record[VmRecord]) -> None:
    if isinstance(verdict, Deny):
        reasons = list(verdict.reasons)
        refuse(reasons, f"{found.value.name}: {reasons[0].message}", hint=_hint(reasons))


def _hint(reasons: builtins.list[Reason]) -> str:
    if any(reason.code is Code.NO_MEMORY for reason in reasons):
        return "Stop another VM, or give this one less memory."
    return "`allowed` of the VM names what can be done with it now."


def _dry(
    blockers: builtins.list[Reason], verdict: object, effect: str, warnings: tuple[str, ...] = ()
) -> DryRun:
    effects = () if isinstance(verdict, Ignore) else (Effect(what=effect),)
    return DryRun(possible=not blockers, effects=effects, blockers=tuple(blockers), warnings=warnings)
