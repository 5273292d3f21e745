"""The verbs of the host: get, change, log, reboot, shutdown. Its record holds what was asked: name, syslog.

Those of the machine below (hardware, health, logs, …) are `machine`'s, which is not there before "ready".
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from thimble import __version__
from thimble.contract import host as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun
from thimble.contract.verbs import Started
from thimble.core.decision import Decision, nothing, unless
from thimble.core.ids import name_reasons
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem
from thimble.dispatch import run
from thimble.host import hardware
from thimble.host.pid1 import Init
from thimble.host.power import GuestsStopped, Power
from thimble.host.records import HostFacts, HostRecord
from thimble.host.state_disk import StateDisk
from thimble.state.store import Collection, check
from thimble.state.tasks import Tasks
from thimble.sys import clock

if TYPE_CHECKING:
    from thimble.contract import hardware as parts
    from thimble.contract.common import Nothing
    from thimble.host.machine import MachineService
    from thimble.host.numbers import Number
    from thimble.host.wear import Writes


#: Seconds after "ready" in which VMs start and nobody looks at sensors.
SETTLE_S = 10.0


class HostService:
    """`vms` answers (all, running); `warnings`: those of the rest of the agent."""

    def __init__(
        self,
        *,
        records: Collection[HostRecord],
        tasks: Tasks,
        init: Init,
        facts: HostFacts,
        vms: Callable[[], tuple[int, int]],
        qemu: Callable[[], Awaitable[str]],
        guests_stopped: GuestsStopped,
        warnings: Callable[[], tuple[str, ...]],
        rev: Callable[[], int],
        machine: Lazy[MachineService],
    ) -> None:
        self._records = records
        self._tasks = tasks
        self._init = init
        self._facts = facts
        self._vms = vms
        self._qemu = qemu
        self._warnings = warnings
        self._rev = rev
        self._machine = machine
        self._writes: Writes | None = None
        self._changing = asyncio.Lock()
        self._state = StateDisk(facts.state)
        self.power = Power(tasks, init, running=lambda: vms()[1], guests_stopped=guests_stopped)
        self.ready_s = 0.0

    @property
    def record(self) -> HostRecord:
        """What was asked for."""
        found = self._records.find("host")
        return found.value if found else HostRecord()

    @property
    def name(self) -> str:
        return self.record.name or socket.gethostname()

    async def get(self, _call: Call[None]) -> wire.Host:
        return await self.view()

    async def view(self) -> wire.Host:
        """The host as it is now."""
        from thimble.host import pressure

        await self._state.look()
        total, available = hardware.memory()
        running = self._vms()
        kind, where = self._init.state
        return wire.Host(
            name=self.name,
            version=__version__,
            hosted=self._facts.hosted,
            accel=self._facts.accel.name,
            accel_why=self._facts.accel.why,
            kernel=os.uname().release,
            qemu=await self._qemu(),
            cpus=os.cpu_count() or 1,
            cpu_model=hardware.cpu_model(),
            memory_bytes=total,
            memory_available_bytes=available,
            uptime_s=round(clock.since_boot() - self._facts.started, 2),
            ready_s=round(self.ready_s, 2),
            load=os.getloadavg(),
            addresses=hardware.addresses(),
            state=kind or "directory",
            state_where=where or str(self._facts.state),
            warnings=self.warnings(),
            vms=running[0],
            vms_running=running[1],
            certificate_sha256=self._facts.certificate_sha256,
            medium_writes=self._writes.view(clock.since_boot()) if self._writes else None,
            health=self._health(),
            pressure=pressure.read(),
            syslog=self.record.syslog,
        )

    def _health(self) -> str:
        machine = self._machine.made
        return machine.watch.health.level if machine is not None and machine.watch.health else ""

    def numbers(self) -> Iterable[Number]:
        """For the metrics; nothing is asked for them."""
        from thimble.host import numbers

        yield from numbers.host(self._tasks, self._facts.started)
        if (machine := self._machine.made) is not None:
            yield from numbers.machine(machine.watch)

    async def watch(self) -> None:
        """Watches the machine's health and sends the log away, for ever; not while the first VMs start."""
        await asyncio.sleep(SETTLE_S)
        await self._machine.get().begin(self.record.syslog)

    async def count_writes(self) -> None:
        """Watches what is written to the boot medium, for ever."""
        from thimble.host.wear import Writes

        self._writes = Writes(self._init)
        await self._writes.run()

    async def current_warnings(self) -> tuple[str, ...]:
        """The same as `warnings`, when the disk of the state has been asked."""
        await self._state.look()
        return self.warnings()

    def warnings(self) -> tuple[str, ...]:
        """Everything an operator should know now, in words; of the state's disk, what was seen last."""
        machine = self._machine.made
        sender = machine.sender if machine is not None else None
        lost = (sender.problem,) if sender is not None and sender.problem else ()
        return (*self._init.warnings, *self._state.warnings, *self._own_warnings(), *self._warnings(), *lost)

    def _own_warnings(self) -> Iterator[str]:
        for path, why in self._records.broken.items():
            yield f"{path}: not used, {why}"
        if self._facts.accel.name != "kvm":
            yield f"VMs run emulated (TCG), many times slower than with KVM: {self._facts.accel.why}"
        if not self._facts.durable:
            yield "state is kept in RAM: everything, the VMs included, is gone at the next reboot"

    async def change(self, call: Call[wire.HostChange]) -> wire.Host | DryRun:
        async def act(decision: Decision[HostRecord]) -> wire.Host:
            if (new := decision.plan) is not None:
                old = self.record
                await self._records.commit("host", new)
                if new.name != old.name and not self._facts.hosted:
                    socket.sethostname(new.name)
                if new.syslog != old.syslog:
                    self._machine.get().send_log(new.syslog)
            return await self.view()

        return await run.now(call, lambda: self._decide(call), act, turn=self._changing)

    def _decide(self, call: Call[wire.HostChange]) -> Decision[HostRecord]:
        from thimble.host.rules import syslog_reasons

        old, name, target = self.record, call.input.name, call.input.syslog
        found = self._records.find("host")
        check(call.if_match, found.rev if found else 0, "host")
        reasons, effects, new = [], [], old
        if name is not UNSET and name != old.name:
            reasons += name_reasons(name, "$.name")
            effects.append(f"renames the host {self.name} to {name}")
            new = msgspec.structs.replace(new, name=name)
        if target is not UNSET and target != old.syslog:
            reasons += syslog_reasons(target, "$.syslog")
            effects.append(f"sends the log to {target}" if target else "sends the log nowhere")
            new = msgspec.structs.replace(new, syslog=target)
        if not effects:
            return nothing("the host is so already")
        refusal = f"the host cannot be changed: {reasons[0].message}" if reasons else ""
        return unless(reasons, Decision(plan=new, effects=tuple(effects)), refusal=refusal)

    async def log(self, call: Call[None]) -> wire.HostLog:
        from thimble.host import journal

        try:
            count = int(call.query.get("lines", "200"))
        except ValueError:
            count = 0
        if not 1 <= count <= 5000:
            raise Problem(Code.INVALID, "lines must be a number from 1 to 5000", where="?lines")
        lines = await asyncio.to_thread(journal.text, self._facts.run)
        return wire.HostLog(lines=lines[-count:])

    # ── the machine itself ───────────────────────────────────────────────────────────────────────

    async def hardware(self, call: Call[None]) -> parts.Hardware:
        return await self._machine.get().hardware(call)

    async def sensors(self, call: Call[None]) -> parts.Sensors:
        return await self._machine.get().sensors(call)

    async def health(self, call: Call[None]) -> parts.Health:
        return await self._machine.get().health(call)

    async def time(self, call: Call[None]) -> parts.Time:
        return await self._machine.get().time(call)

    async def logs(self, call: Call[None]) -> parts.Logs:
        return await self._machine.get().logs(call)

    def follow(self, call: Call[None]) -> AsyncIterator[list[parts.LogLine]]:
        return self._machine.get().follow(call)

    async def bundle(self, call: Call[None]) -> bytes:
        return await self._machine.get().bundle(call)

    async def blink(self, call: Call[wire.Blink]) -> Nothing | DryRun:
        return await self._machine.get().blink(call)

    # ── power ────────────────────────────────────────────────────────────────────────────────────

    async def reboot(self, call: Call[wire.PowerRequest]) -> Started | DryRun:
        return await self.power.off("reboot", call)

    async def shutdown(self, call: Call[wire.PowerRequest]) -> Started | DryRun:
        return await self.power.off("poweroff", call)
