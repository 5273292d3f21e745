"""At the agent's start: which VMs there are, what each is, and which start; then what goes on beside.

A file `<run>/vms/.opened`, made by the first agent after the host's start, tells whether only the agent is
new or the whole host.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from zlib import crc32

from thimble.contract.common import Event
from thimble.contract.vm import CrashPolicy, Intent, PowerState
from thimble.core.problem import Problem
from thimble.state.store import Record
from thimble.sys import cgroup, log, logfile
from thimble.vm import registration
from thimble.vm.driver import Driver
from thimble.vm.qemu import qmp
from thimble.vm.record.spec import STATE_FILE, Phase, VmRecord
from thimble.vm.table import VmTable
from thimble.vm.verbs.create import Create
from thimble.vm.verbs.power import Power
from thimble.vm.verbs.reconfigure import Reconfigure

TRIM_EVERY_S = 30.0


def cgroup_root(run: Path) -> Path | None:
    """Below which the VMs' groups are made; one per agent, so that several can live on one host."""
    mount = cgroup.mount_point()
    if mount is None or not os.access(mount, os.W_OK):
        return None
    suffix = "" if str(run) == "/run/thimble" else f"-{crc32(os.fsencode(run)):08x}"
    return mount / f"thimble{suffix}"


class Startup:
    """`create`, `reconfigure`, `power`: whose interrupted work is finished."""

    def __init__(self, table: VmTable, power: Power, create: Create, reconfigure: Reconfigure) -> None:
        self._table = table
        self._context = table.context
        self._power = power
        self._create = create
        self._reconfigure = reconfigure
        self._mark = self._context.run / "vms" / ".opened"
        self._same_boot = False
        self._adopt: list[Driver] = []
        self._lost: list[Driver] = []
        self._interrupted: list[str] = []
        self._changed = asyncio.Event()  # datastores came or went
        self._coming: set[str] = set()  # datastores whose records are being read
        self._seen: set[str] = set()  # those that were here since the agent began
        self._begun = False  # autostart: what comes from now on is begun when it comes

    async def open(self) -> None:
        """Read the records, adopt running QEMUs; nothing slow unless there are any."""
        self._same_boot = self._mark.exists()
        self._mark.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._mark.touch()
        homes, own = self._context.storage.homes(), self._context.storage.default
        for name in sorted(homes, key=lambda name: name != own):  # where names clash, our own were first
            self._seen.add(name)
            self._take(name, homes[name], self._table.take(name, homes[name]))
        self._context.events.listen(self._heard)
        self._context.background.keep("VMs of datastores", self._follow_datastores())
        if self._adopt or self._lost:
            await self._catch_up()

    def _take(self, name: str, home: Path, found: list[Record[VmRecord]]) -> None:
        """See what each VM of a datastore is whose records were read."""
        if not found:
            return
        taken = registration.Taken(record for record in self._table.all() if record.root != name)
        for record in found:
            settled = self._settle(record, home, taken)
            if settled is not None:
                taken.add(settled)
                self._table.drivers[record.id] = self._judge(settled, home)

    def _settle(
        self, record: Record[VmRecord], home: Path, taken: registration.Taken
    ) -> Record[VmRecord] | None:
        """The record as it can be used here; None when it is refused."""
        context, old = self._context, record.value
        why = registration.refusal(record, taken)
        if not why:
            try:
                value = registration.settled(old, taken, context.entropy, context.network.address_for)
                if value == old:
                    return record
                if context.own_users and value.assigned.uid != old.assigned.uid:
                    registration.hand_over(home / record.id, value.definition)
                log.say(f"{record.id} came with {record.root}: {registration.differences(old, value)}")
                return self._table.settle(record.id, value)
            except (Problem, OSError) as error:
                why = f"it has to change and cannot: {error}"
        self._table.refuse(record.id, why)
        return None

    def _judge(self, record: Record[VmRecord], home: Path) -> Driver:
        noted = record.value.noted
        if noted.phase is not Phase.READY:
            self._interrupted.append(record.id)
            creating = noted.phase is Phase.CREATING
            return self._driver(record.id, PowerState.CREATING if creating else PowerState.DELETING)
        driver = self._driver(record.id, PowerState.STOPPED)
        if driver.rundir.directory.exists():
            if driver.monitor.adoptable():
                self._adopt.append(driver)
                return driver
            if driver.rundir.process.exists():
                self._lost.append(driver)
                return driver
        if (home / record.id / STATE_FILE).exists():
            driver.was(PowerState.SAVED)
            if self._same_boot and noted.intent is Intent.RUNNING:
                self._interrupted.append(driver.id)
        elif noted.saved:
            driver.was(PowerState.FAILED, "its saved state is missing")
        elif noted.intent is Intent.RUNNING or noted.start:
            self._judge_intent(driver, record.value)
        return driver

    def _driver(self, id: str, state: PowerState) -> Driver:
        return Driver(id, self._context, self._table, state)

    def _judge_intent(self, driver: Driver, value: VmRecord) -> None:
        """It ought to run and nothing of it does."""
        if not self._same_boot:
            driver.was(PowerState.STOPPED, "the host was restarted")
        elif value.spec.on_crash is CrashPolicy.STOP and logfile.tail(driver.rundir.qemu_log, 1):
            driver.was(PowerState.CRASHED, "it crashed before the agent was restarted")
        else:
            driver.was(PowerState.STOPPED, "its start was interrupted")
            self._interrupted.append(driver.id)

    def _heard(self, event: Event) -> None:
        if event.kind == "datastore.changed":
            self._changed.set()

    async def _follow_datastores(self) -> None:
        """VMs come and go with their datastores; one that hangs holds up only itself."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._look_at_datastores()

    def _look_at_datastores(self) -> None:
        homes = self._context.storage.homes()
        for name in homes.keys() - self._table.roots - self._coming:
            self._coming.add(name)
            self._context.background.keep(f"VMs of the datastore {name}", self._bring(name, homes[name]))
        for name in self._table.roots - homes.keys() - self._coming:
            self._table.drop(name)

    async def _bring(self, name: str, home: Path) -> None:
        """The VMs of a datastore that came after the agent's start."""
        try:
            found = await self._table.bring(name, home)
            first = name not in self._seen
            self._seen.add(name)
            late = self._begun  # else they are among those that autostart will look at
            self._take(name, home, found)
            for record in found:
                if (driver := self._table.drivers.get(record.id)) is not None:
                    self._context.events.publish("vm.changed", record.id, state=driver.status.state)
            await self._catch_up()
            self._coming.discard(name)
            self._changed.set()  # it may have gone meanwhile
            if late:
                await self._begin([record.id for record in found], first=first)
        except (Problem, OSError) as error:
            log.say(f"VMs of the datastore {name}: {error}")
        finally:
            self._coming.discard(name)

    async def _catch_up(self) -> None:
        adopt, self._adopt = self._adopt, []
        lost, self._lost = self._lost, []
        await asyncio.gather(*(driver.adopt() for driver in adopt))
        for driver in lost:
            await driver.was_lost()
        for driver in (*adopt, *lost):  # a resume, or a save for the host's sake, that was cut off
            found = self._table.find(driver.id)
            wanted = found is not None and found.value.noted.intent is Intent.RUNNING
            if wanted and driver.status.state is PowerState.SAVED:
                self._interrupted.append(driver.id)

    async def autostart(self) -> None:
        """Finish first, then start in order; each start is a task of its own."""
        qmp.warm()
        self._context.background.keep("VM logs", self._trim())
        self._context.background.keep("restarts after crashes", self._restart())
        self._begun = True
        await self._begin([record.id for record in self._table.all()], first=True)

    async def _begin(self, ids: list[str], *, first: bool) -> None:
        """What of these was interrupted, then what starts with the host: the `first` time they are here."""
        await self._finish_interrupted()
        if first and not self._same_boot:
            await self._start_in_order(ids)

    async def _finish_interrupted(self) -> None:
        interrupted, self._interrupted = self._interrupted, []
        for id in interrupted:
            record = self._table.find(id)
            if record is None:
                continue
            try:
                if record.value.noted.phase is Phase.CREATING:
                    self._create.finish(id)
                elif record.value.noted.phase is Phase.DELETING:
                    self._reconfigure.finish_delete(id)
                else:
                    await self._power.begin(id, "interrupted start")
            except Problem as problem:
                log.say(f"{record.value.spec.name}: what was interrupted cannot go on: {problem.detail}")

    async def _start_in_order(self, ids: list[str]) -> None:
        drivers = self._table.drivers
        there = [record for id in ids if id in drivers and (record := self._table.find(id)) is not None]
        ready = [r for r in there if r.value.noted.phase is Phase.READY]
        ready.sort(key=lambda r: (r.value.spec.autostart.order, r.value.spec.name))
        # First those that were saved because the host went down: they do not wait for a guest's boot.
        saved = [r for r in ready if r.value.noted.intent is Intent.RUNNING and self._is_saved(r.id)]
        rest = [r for r in ready if r.value.spec.autostart.enabled and r not in saved]
        for record in (*saved, *rest):
            if record.id not in drivers:
                continue
            spec = record.value.spec
            try:
                task = await self._power.begin(record.id, "autostart")
                await self._context.tasks.wait(task.id)
            except Problem as problem:
                log.say(f"autostart of {spec.name}: {problem.detail}")
            if spec.autostart.delay_s and record not in saved:
                await asyncio.sleep(spec.autostart.delay_s)

    def _is_saved(self, id: str) -> bool:
        return self._table.drivers[id].status.state is PowerState.SAVED

    async def _restart(self) -> None:
        """Start again what crashed, as its crash policy says."""
        while True:
            self._power.restart(await self._context.restarts.get())

    async def _trim(self) -> None:
        """Serial logs lie in RAM and guests can be loud."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            for driver in self._table.drivers.values():
                if not driver.off.is_set():
                    driver.rundir.trim()
