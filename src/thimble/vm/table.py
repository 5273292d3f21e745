"""All VMs: their records and their drivers. The only writer of VM records (a test sees to it).

add, respec     what was asked: under `turn`, by the verbs create and change
intend, note    what has become of it
pin, sized      what was given to it later
take, drop      records come and go with their datastore
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from thimble.contract.vm import Intent, PowerState
from thimble.core.problem import Code, Problem, Reason
from thimble.network.records import PortUse
from thimble.state.store import Collection, Record, check
from thimble.storage.homes import VM_RECORD
from thimble.sys import log
from thimble.sys import process as linux
from thimble.vm.driver import Driver
from thimble.vm.qemu.context import Context
from thimble.vm.record import memory
from thimble.vm.record.memory import Promise
from thimble.vm.record.spec import Assigned, Noted, Phase, VmRecord, volume_ref
from thimble.vm.record.upgrades import UPGRADES

replace = msgspec.structs.replace


#: Seconds that a request waits for a datastore whose VMs are still being read.
KNOWN_S = 10.0


class VmTable:
    """`turn`: held by who decides on what VMs share (names, MACs, volumes) until it is committed."""

    def __init__(self, context: Context, *, durable: bool = True) -> None:
        self.context = context
        self.drivers: dict[str, Driver] = {}
        self.turn = asyncio.Lock()
        self._more = asyncio.Event()  # the next datastore's VMs are known
        self._store: Collection[VmRecord] = Collection(
            VmRecord, noun="VM", inside=VM_RECORD, upgrades=UPGRADES, durable=durable
        )

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def all(self) -> list[Record[VmRecord]]:
        return self._store.all()

    def get(self, id: str) -> Record[VmRecord]:
        """Raises `Problem` NOT_FOUND."""
        return self._store.get(id)

    def find(self, id: str) -> Record[VmRecord] | None:
        """By id; None when it is not there, or not any more."""
        return self._store.find(id)

    def named(self, ref: str) -> Record[VmRecord]:
        """By id or name. Raises `Problem` NOT_FOUND."""
        found = self._store.find(ref) or next((r for r in self.all() if r.value.spec.name == ref), None)
        if found is None:
            raise Problem(Code.NOT_FOUND, f"there is no VM {ref!r}", hint="`thimble vm list` shows all.")
        return found

    def asked(self, ref: str, if_match: int | None) -> tuple[Record[VmRecord], Driver]:
        """The VM a request is about. Raises `Problem` NOT_FOUND, STALE."""
        found = self.named(ref)
        check(if_match, found.value.generation, "VM")
        return found, self.drivers[found.id]

    @property
    def broken(self) -> Mapping[Path, str]:
        """Records that are not used, and why."""
        return self._store.broken

    @property
    def roots(self) -> frozenset[str]:
        """The datastores whose records were read."""
        return self._store.roots

    def directory(self, id: str, root: str) -> Path:
        """Where the VM's record is."""
        return self._store.path(id, root).parent

    def port_uses(self) -> list[PortUse]:
        """Every NIC of every VM."""
        return [
            PortUse(
                vm_id=r.id, vm_name=r.value.spec.name, nic=nic.name, switch=nic.switch, mac=nic.mac, ip=nic.ip
            )
            for r in self.all()
            for nic in r.value.definition.nics
        ]  # fmt: skip

    def volume_users(self) -> dict[str, str]:
        """volume ref → VM id. Disks beside a record that cannot be read are that VM's."""
        found = {
            volume_ref(r.root, r.id, disk): r.id for r in self.all() for disk in r.value.definition.disks
        }
        for name, home in self.context.storage.homes().items() if self.broken else ():
            for record in self.broken:
                if home in record.parents:
                    id = record.parent.name
                    found |= {f"{name}/{id}.{path.stem}": id for path in record.parent.iterdir()}
        return found

    def image_users(self) -> dict[str, str]:
        """image ref → VM id, for CD-ROMs and direct boot."""
        found: dict[str, str] = {}
        for r in self.all():
            spec = r.value.spec
            refs = [cdrom.image for cdrom in spec.cdroms]
            if spec.direct:
                refs += [spec.direct.kernel, spec.direct.initrd]
            found |= {ref if "/" in ref else f"{r.root}/{ref}": r.id for ref in refs if ref}
        return found

    def memory_reasons(self, id: str, memory_mib: int) -> list[Reason]:
        """Why the VM `id` cannot start beside all that run or were told to start."""
        promises = tuple(
            Promise(vm=other, promised=self._promised(other, driver), touched=_touched(driver))
            for other, driver in self.drivers.items()
            if other != id and driver.starts
        )
        return memory.reasons(memory_mib, self.context.memory()[1], promises)

    def _promised(self, id: str, driver: Driver) -> int:
        """What it runs with counts, not what waits for its next cold start."""
        running = driver.engine.running
        size = self.get(id).value.spec.memory_mib if running is None else running.record.memory_mib
        return memory.need(size)

    # ── what was asked ───────────────────────────────────────────────────────────────────────────

    async def add(self, id: str, record: VmRecord, root: str) -> Driver:
        """A new VM, in phase `creating`. Raises `Problem`; then there is nothing of it."""
        driver = self.drivers[id] = Driver(id, self.context, self, PowerState.CREATING)
        try:
            await self._store.commit(id, record, root=root, expect=0)
        except Exception:
            self.drivers.pop(id, None)
            raise
        name = record.spec.name
        self.context.events.publish("vm.changed", id, state=PowerState.CREATING, name=name)
        return driver

    async def respec(self, id: str, value: VmRecord) -> Record[VmRecord]:
        """Another spec, with what is assigned for it; what was noted meanwhile stays.

        Raises `Problem` STALE when somebody else changed the spec since `value` was made from it.
        """

        def change(now: VmRecord) -> VmRecord:
            check(value.generation, now.generation, "VM")
            given = replace(value.assigned, machine_type=now.assigned.machine_type)
            return replace(now, spec=value.spec, assigned=given, generation=now.generation + 1)

        record = await self._store.amend(id, change)
        rev = str(record.value.generation)
        self.context.events.publish("vm.changed", id, name=record.value.spec.name, rev=rev)
        return record

    # ── what has become of it ────────────────────────────────────────────────────────────────────

    async def noted(self, id: str, change: Callable[[Noted], Noted]) -> Record[VmRecord]:
        """Raises `Problem` when it could not be kept."""
        return await self._store.amend(id, lambda record: replace(record, noted=change(record.noted)))

    async def intend(self, id: str, intent: Intent) -> None:
        """The commit of a start or stop. Raises `Problem`."""
        await self.noted(id, lambda noted: replace(noted, intent=intent))

    async def intend_off(self, id: str) -> str:
        """That it is to stay off; what must be told when that could not be kept. It goes off all the same."""
        try:
            await self.intend(id, Intent.STOPPED)
        except Problem as problem:
            note = f"that it is to stay off could not be kept: {problem.detail}"
            log.say(f"{id}: {note}")
            return note
        return ""

    async def note(self, id: str, *, saved: bool, intent: Intent | None = None) -> None:
        """Whether there is a saved state; the file itself is the truth, so not being kept is only said."""
        try:
            await self.noted(id, lambda noted: replace(noted, saved=saved, intent=intent or noted.intent))
        except Problem as problem:
            log.say(f"{id}: its record is behind: {problem.detail}")

    # ── what was given to it later ───────────────────────────────────────────────────────────────

    async def pin(self, id: str, machine_type: str) -> None:
        """The machine QEMU made for it at its first start is its machine for life."""
        try:
            await self._assign(id, lambda given: replace(given, machine_type=machine_type))
        except Problem as problem:
            log.say(f"{id}: its record is behind: {problem.detail}")

    async def ready(self, id: str, sizes: dict[str, int]) -> None:
        """Created: its disks have these sizes in bytes. Raises `Problem`."""

        def change(record: VmRecord) -> VmRecord:
            given = replace(record.assigned, disks=record.assigned.disks | sizes)
            return replace(record, assigned=given, noted=replace(record.noted, phase=Phase.READY))

        await self._store.amend(id, change)

    async def _assign(self, id: str, change: Callable[[Assigned], Assigned]) -> None:
        await self._store.amend(id, lambda record: replace(record, assigned=change(record.assigned)))

    # ── coming and going ─────────────────────────────────────────────────────────────────────────

    def take(self, name: str, home: Path) -> list[Record[VmRecord]]:
        """Read the records of a datastore; who takes them gives each a driver, or refuses it."""
        return self._came(self._store.add_root(name, home))

    async def bring(self, name: str, home: Path) -> list[Record[VmRecord]]:
        """The same for a datastore that came later; its disk is read in a thread."""
        return self._came(await self._store.bring_root(name, home))

    def _came(self, found: list[Record[VmRecord]]) -> list[Record[VmRecord]]:
        self._more.set()
        self._more = asyncio.Event()
        return found

    async def known(self, name: str) -> None:
        """Wait until the VMs of a datastore that has just come are known; not for ever."""
        try:
            async with asyncio.timeout(KNOWN_S):
                while name not in self.roots and name in self.context.storage.homes():
                    await self._more.wait()
        except TimeoutError:
            pass  # a blocker says so

    def settle(self, id: str, value: VmRecord) -> Record[VmRecord]:
        """A record that came with a datastore, as it can be used here. Raises `Problem`."""
        return self._store.put(id, value)

    def refuse(self, id: str, why: str) -> None:
        """Do not use a record that was read."""
        self._store.refuse(id, why)

    def drop(self, name: str) -> None:
        """Forget the VMs of a datastore that went, unless one runs."""
        there = [record.id for record in self.all() if record.root == name]
        drivers = [self.drivers[id] for id in there if id in self.drivers]
        if all(driver.off.is_set() for driver in drivers):
            for id in there:
                self.drivers.pop(id, None)
            self._store.drop_root(name)

    async def remove(self, id: str) -> None:
        """The record's file; the driver is closed by who deletes. Raises `Problem`."""
        await self._store.remove(id)


def _touched(driver: Driver) -> int:
    who = driver.engine.who
    return linux.memory(who) if who is not None else 0
