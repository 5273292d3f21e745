"""What the VM service does once: at the agent's start, and all the time in the background.

A file `<run>/vms/.opened`, made by the first agent after the host's start, tells whether only the agent is
new or the whole host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from thimble.contract.common import Event
from thimble.contract.vm import CrashPolicy, Intent, PowerState
from thimble.core.problem import Problem
from thimble.state.store import Record
from thimble.sys import cgroup, command, log
from thimble.vm import registration
from thimble.vm.driver import Driver
from thimble.vm.qemu import process, qmp
from thimble.vm.record.spec import STATE_FILE, Phase, VmRecord

if TYPE_CHECKING:
    from thimble.vm.service import VmService

TRIM_EVERY_S = 30.0


def cgroup_root(run: Path) -> Path | None:
    """Below which the VMs' groups are made; one per agent, so that several can live on one host."""
    mount = cgroup.mount_point()
    if mount is None or not os.access(mount, os.W_OK):
        return None
    suffix = "" if str(run) == "/run/thimble" else f"-{crc32(os.fsencode(run)):08x}"
    return mount / f"thimble{suffix}"


class Boot:
    def __init__(self, service: VmService, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._service = service
        self._world = service.world
        self._mark = self._world.run / "vms" / ".opened"
        self._same_boot = False
        self._adopt: list[Driver] = []
        self._lost: list[Driver] = []
        self._interrupted: list[str] = []
        self._trimming: asyncio.Task[None] | None = None
        self._version = ""

    async def open(self) -> None:
        self._same_boot = self._mark.exists()
        self._mark.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._mark.touch()
        homes, own = self._world.storage.homes(), self._world.storage.default
        for name in sorted(homes, key=lambda name: name != own):  # where names clash, our own were first
            self._take(name, homes[name])
        self._world.events.listen(self._heard)
        if self._adopt or self._lost:
            await self._catch_up()

    def _take(self, name: str, home: Path) -> None:
        """Read a datastore's records and see what each VM is."""
        service = self._service
        found = service.store.add_root(name, home)
        if not found:
            return
        taken = registration.Taken(record for record in service.store.all() if record.root != name)
        for record in found:
            settled = self._settle(record, home, taken)
            if settled is not None:
                taken.add(settled)
                service.drivers[record.id] = self._judge(settled, home)

    def _settle(
        self, record: Record[VmRecord], home: Path, taken: registration.Taken
    ) -> Record[VmRecord] | None:
        """The record as it can be used here; None when it is refused."""
        store, old = self._service.store, record.value
        why = registration.refusal(record, taken)
        if not why:
            try:
                value = registration.settled(old, taken, self._entropy, self._world.network.address_for)
                if value == old:
                    return record
                if self._world.own_users and value.uid != old.uid:
                    registration.hand_over(home / record.id, value)
                log.say(f"{record.id} came with {record.root}: {registration.differences(old, value)}")
                return store.put(record.id, value)
            except (Problem, OSError) as error:
                why = f"it has to change and cannot: {error}"
        store.refuse(record.id, why)
        return None

    def _judge(self, record: Record[VmRecord], home: Path) -> Driver:
        value = record.value
        if value.phase is not Phase.READY:
            self._interrupted.append(record.id)
            creating = value.phase is Phase.CREATING
            return Driver(record.id, self._world, PowerState.CREATING if creating else PowerState.DELETING)
        driver = Driver(record.id, self._world, PowerState.STOPPED)
        if driver.rundir.directory.exists():
            if driver.adoptable():
                self._adopt.append(driver)
                return driver
            if driver.rundir.process.exists():
                self._lost.append(driver)
                return driver
        if (home / record.id / STATE_FILE).exists():
            driver.was("", PowerState.SAVED)
            if self._same_boot and value.intent is Intent.RUNNING:
                self._interrupted.append(driver.id)
        elif value.saved:
            driver.was("its saved state is missing", PowerState.FAILED)
        elif value.intent is Intent.RUNNING or value.start:
            self._judge_intent(driver, value)
        return driver

    def _judge_intent(self, driver: Driver, value: VmRecord) -> None:
        """It ought to run and nothing of it does."""
        if not self._same_boot:
            driver.was("the host was restarted", PowerState.STOPPED)
        elif value.on_crash is CrashPolicy.STOP and process.tail(driver.rundir.qemu_log, 1):
            driver.was("it crashed before the agent was restarted", PowerState.CRASHED)
        else:
            driver.was("its start was interrupted", PowerState.STOPPED)
            self._interrupted.append(driver.id)

    def _heard(self, event: Event) -> None:
        """A datastore came or went."""
        if event.kind != "datastore.changed":
            return
        homes, service = self._world.storage.homes(), self._service
        known = service.store.roots  # also those without VMs: another directory may come under the name
        for name, home in homes.items():
            if name not in service.store.roots:
                self._take(name, home)
        for name in known - set(homes):
            self._drop(name)
        if self._adopt or self._lost:
            self._later = asyncio.get_running_loop().create_task(self._catch_up())

    async def _catch_up(self) -> None:
        adopt, self._adopt = self._adopt, []
        lost, self._lost = self._lost, []
        await asyncio.gather(*(driver.adopt() for driver in adopt))
        for driver in lost:
            await driver.was_lost()
        for driver in (*adopt, *lost):  # a resume, or a save for the host's sake, that was cut off
            found = self._service.store.find(driver.id)
            if driver.status.state is PowerState.SAVED and found and found.value.intent is Intent.RUNNING:
                self._interrupted.append(driver.id)

    def _drop(self, name: str) -> None:
        """Forget the VMs of a datastore that went, unless one runs."""
        service = self._service
        for record in service.store.all():
            if record.root == name and not service.drivers[record.id].off.is_set():
                return
        for record in service.store.all():
            if record.root == name:
                service.drivers.pop(record.id)
        service.store.drop_root(name)

    async def autostart(self) -> None:
        """Finish first, then start in order; each start is a task of its own."""
        qmp.warm()
        self._trimming = asyncio.get_running_loop().create_task(self._trim())
        service = self._service
        for id in self._interrupted:
            record = service.store.find(id)
            if record is None:
                continue
            try:
                if record.value.phase is Phase.CREATING:
                    service.finish_create(id)
                elif record.value.phase is Phase.DELETING:
                    service.finish_delete(id)
                else:
                    service.begin(id, "interrupted start")
            except Problem as problem:
                log.say(f"{record.value.name}: what was interrupted cannot go on: {problem.detail}")
        self._interrupted = []
        if not self._same_boot:
            await self._start_in_order()

    async def _start_in_order(self) -> None:
        service = self._service
        ready = [r for r in service.store.all() if r.value.phase is Phase.READY and r.id in service.drivers]
        ready.sort(key=lambda r: (r.value.autostart.order, r.value.name))
        # First those that were saved because the host went down: they do not wait for a guest's boot.
        saved = [r for r in ready if r.value.intent is Intent.RUNNING and self._is_saved(r.id)]
        rest = [r for r in ready if r.value.autostart.enabled and r not in saved]
        for record in (*saved, *rest):
            if record.id not in service.drivers:
                continue
            try:
                task = service.begin(record.id, "autostart")
                await self._world.tasks.wait(task.id)
            except Problem as problem:
                log.say(f"autostart of {record.value.name}: {problem.detail}")
            if record.value.autostart.delay_s and record not in saved:
                await asyncio.sleep(record.value.autostart.delay_s)

    def _is_saved(self, id: str) -> bool:
        return self._service.drivers[id].status.state is PowerState.SAVED

    async def _trim(self) -> None:
        """Serial logs lie in RAM and guests can be loud."""
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            for driver in self._service.drivers.values():
                if not driver.off.is_set():
                    process.trim(driver.rundir)

    async def qemu_version(self) -> str:
        """Asked once."""
        if not self._version:
            try:
                result = await command.run([self._world.qemu.program, "--version"])
            except Problem as problem:
                return problem.detail
            words = result.stdout.decode(errors="replace").split()
            self._version = words[3] if len(words) > 3 else "unknown"
        return self._version

    def close(self) -> None:
        if self._trimming is not None:
            self._trimming.cancel()
