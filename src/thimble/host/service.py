"""The verbs of the host: get, change, log, reboot, shutdown. Its record holds what was asked: the name."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
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
from thimble.core.problem import Code, Problem, refuse
from thimble.host import hardware
from thimble.host.boot import Init
from thimble.state.store import Collection
from thimble.state.tasks import Progress, Tasks
from thimble.sys import clock, log

if TYPE_CHECKING:
    from thimble.host.writes import Writes


#: Bytes. Records need little, and each is written anew before the old one goes.
STATE_RESERVE = 1 << 20


class HostRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = ""


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
        self._writes: Writes | None = None
        self.ready_s = 0.0

    @property
    def name(self) -> str:
        record = self._records.find("host")
        return (record.value.name if record else "") or socket.gethostname()

    async def get(self, _call: Call[None]) -> wire.Host:
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
        )

    async def count_writes(self) -> None:
        """Watches what is written to the boot medium, for ever."""
        from thimble.host.writes import Writes

        self._writes = Writes(self._init)
        await self._writes.run()

    def warnings(self) -> tuple[str, ...]:
        """Everything an operator should know now, in words."""
        return (*self._init.warnings, *state_warnings(self._facts.state), *self._warnings())

    async def change(self, call: Call[wire.HostChange]) -> wire.Host | DryRun:
        wanted = call.input.name
        if wanted is UNSET:
            return await self.get(call)  # type: ignore[arg-type]
        reasons = name_reasons(wanted, "$.name")
        if call.dry_run:
            effects = () if reasons else (Effect(what=f"renames the host {self.name} to {wanted}"),)
            return DryRun(possible=not reasons, effects=effects, blockers=tuple(reasons))
        refuse(reasons, "this cannot be a host name")
        self._records.put("host", HostRecord(name=wanted), expect=call.if_match)
        if not self._facts.hosted:
            socket.sethostname(wanted)
        return await self.get(call)  # type: ignore[arg-type]

    async def log(self, call: Call[None]) -> wire.HostLog:
        try:
            count = int(call.query.get("lines", "200"))
        except ValueError:
            count = 0
        if not 1 <= count <= 5000:
            raise Problem(Code.INVALID, "lines must be a number from 1 to 5000", where="?lines")
        return wire.HostLog(lines=_log_lines(self._facts.run)[-count:])

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
