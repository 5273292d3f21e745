"""The verbs of the host: get, change, log, reboot, shutdown. Its record holds what was asked: name, syslog.

Those of the machine below (hardware, health, logs, …) are `machine`'s, which is not there before "ready".
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from thimble import __version__
from thimble.contract import host as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Effect, Task
from thimble.contract.verbs import Started
from thimble.contract.vm import HostShutdown
from thimble.core.ids import name_reasons
from thimble.core.lazy import Lazy
from thimble.core.problem import Code, Problem, refuse
from thimble.host import hardware
from thimble.host.pid1 import Init
from thimble.state.store import Collection
from thimble.state.tasks import Progress, Tasks
from thimble.sys import clock, log

if TYPE_CHECKING:
    from thimble.contract import hardware as parts
    from thimble.contract.common import Nothing
    from thimble.host.machine import MachineService
    from thimble.host.numbers import Number
    from thimble.host.wear import Writes


#: Seconds after "ready" in which VMs start and nobody looks at sensors.
SETTLE_S = 10.0
#: Bytes. Records need little, and each is written anew before the old one goes.
STATE_RESERVE = 1 << 20


class HostRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""
    syslog: str = ""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What app.py knows of the surroundings and does not change while we run."""

    hosted: bool
    accel: hardware.Accel
    state: Path
    run: Path
    started: float  # clock.since_boot() when the agent's process began; 0 in the image: the kernel's start
    certificate_sha256: str


class HostService:
    """`vms` answers (all, running); `stop_guests` ends every VM: so many seconds for each, how."""

    def __init__(
        self,
        *,
        records: Collection[HostRecord],
        tasks: Tasks,
        init: Init,
        facts: HostFacts,
        vms: Callable[[], tuple[int, int]],
        qemu: Callable[[], Awaitable[str]],
        stop_guests: Callable[[float, HostShutdown | None], Awaitable[None]],
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
        self._stop_guests = stop_guests
        self._warnings = warnings
        self._rev = rev
        self._machine = machine
        self._begun = False
        self._writes: Writes | None = None
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
        from thimble.host import pressure

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
        machine = self._machine.made if self._begun else None
        return machine.watch.health.level if machine is not None and machine.watch.health else ""

    def numbers(self) -> Iterable[Number]:
        """For the metrics."""
        from thimble.host.numbers import numbers

        return numbers(self._machine.get().watch) if self._begun else ()

    async def watch(self) -> None:
        """Watches the machine's health and sends the log away, for ever; not while the first VMs start."""
        await asyncio.sleep(SETTLE_S)
        self._begun = True
        await self._machine.get().begin(self.record.syslog)

    async def count_writes(self) -> None:
        """Watches what is written to the boot medium, for ever."""
        from thimble.host.wear import Writes

        self._writes = Writes(self._init)
        await self._writes.run()

    def warnings(self) -> tuple[str, ...]:
        """Everything an operator should know now, in words."""
        sender = self._machine.get().sender if self._begun else None
        lost = (sender.problem,) if sender is not None and sender.problem else ()
        return (*self._init.warnings, *state_warnings(self._facts.state), *self._warnings(), *lost)

    async def change(self, call: Call[wire.HostChange]) -> wire.Host | DryRun:
        from thimble.host.rules import syslog_reasons

        old, name, target = self.record, call.input.name, call.input.syslog
        reasons, effects, new = [], [], old
        if name is not UNSET and name != old.name:
            reasons += name_reasons(name, "$.name")
            effects.append(Effect(what=f"renames the host {self.name} to {name}"))
            new = msgspec.structs.replace(new, name=name)
        if target is not UNSET and target != old.syslog:
            reasons += syslog_reasons(target, "$.syslog")
            effects.append(Effect(what=f"sends the log to {target}" if target else "sends the log nowhere"))
            new = msgspec.structs.replace(new, syslog=target)
        if call.dry_run:
            shown = () if reasons else tuple(effects)
            return DryRun(possible=not reasons, effects=shown, blockers=tuple(reasons))
        refuse(reasons, f"the host cannot be so: {reasons[0].message if reasons else ''}")
        if effects:
            self._records.put("host", new, expect=call.if_match)
        if new.name != old.name and not self._facts.hosted:
            socket.sethostname(new.name)
        if new.syslog != old.syslog:
            self._machine.get().send_log(new.syslog)
            self._begun = True
        return await self.get(call)  # type: ignore[arg-type]

    async def log(self, call: Call[None]) -> wire.HostLog:
        try:
            count = int(call.query.get("lines", "200"))
        except ValueError:
            count = 0
        if not 1 <= count <= 5000:
            raise Problem(Code.INVALID, "lines must be a number from 1 to 5000", where="?lines")
        return wire.HostLog(lines=_log_lines(self._facts.run)[-count:])

    # ── the machine itself ───────────────────────────────────────────────────────────────────────

    async def hardware(self, call: Call[None]) -> parts.Hardware:
        return await self._machine.get().hardware(call)

    async def sensors(self, call: Call[None]) -> parts.Sensors:
        return await self._machine.get().sensors(call)

    async def health(self, call: Call[None]) -> parts.Health:
        found = await self._machine.get().health(call)
        self._begun = True  # there is something to tell now, also before the watch begins
        return found

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
        return self._power("reboot", call)

    async def shutdown(self, call: Call[wire.PowerRequest]) -> Started | DryRun:
        return self._power("poweroff", call)

    def _power(self, verb: str, call: Call[wire.PowerRequest]) -> Started | DryRun:
        if call.dry_run:
            running = self._vms()[1]
            return DryRun(
                possible=self._init.present,
                effects=(Effect(what=f"ends {running} running VMs"), Effect(what=f"{verb}s the host")),
                warnings=() if self._init.present else ("the agent runs inside another operating system",),
            )
        if not self._init.present:
            self._init.tell(verb)  # raises the reason
        task = self.begin(verb, call.input.guest_timeout_s, call.input.guests, owner=call.user)
        return Started(task=task, subject="host")

    def begin(
        self, verb: str, guest_timeout: float, guests: HostShutdown | None = None, *, owner: str = ""
    ) -> Task:
        """Stop the guests, then hand over to PID 1; also what the power button asks for."""

        async def work(progress: Progress) -> None:
            log.say(f"{verb} asked for{' by ' + owner if owner else ''}: stopping the guests")
            async with progress.step("guests"):
                await self._stop_guests(guest_timeout, guests)
            async with progress.step(verb):
                self._init.tell(verb)

        return self._tasks.start(f"host.{verb}", "host", work, owner=owner)


def state_warnings(state: Path) -> tuple[str, ...]:
    """What is wrong with the place where everything is kept."""
    try:
        facts = os.statvfs(state)
    except OSError as error:
        return (f"the state in {state} cannot be read: {error.strerror}",)
    if facts.f_flag & os.ST_RDONLY:
        return ("the state went read-only after an error of its disk: no change is kept; see the log",)
    if facts.f_bfree * facts.f_frsize < STATE_RESERVE:
        return ("the state partition is full: changes are refused until something on it is removed",)
    return ()


def _log_lines(run: Path) -> tuple[str, ...]:
    """PID 1's ring in RAM, which holds ours too; hosted only our own."""
    lines: list[str] = []
    for name in ("log.1", "log"):
        path = run / name
        if path.is_file():
            lines += path.read_text(errors="replace").splitlines()
    return tuple(lines) if lines else tuple(log.ring)
