"""The VMs as a part of the agent: puts the table, the verbs, startup and shutdown together; what
`app` asks of them.

    VmTable ◄── Wanted, Read, Power ◄── Create, Reconfigure ◄── Startup, Shutdown
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from thimble.console.serial import Consoles
from thimble.contract.vm import HostShutdown, PowerState
from thimble.core.problem import Problem
from thimble.host.hardware import Accel
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.sys import command
from thimble.vm.qemu import programs
from thimble.vm.qemu.context import Context
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.record import lifecycle
from thimble.vm.shutdown import Shutdown
from thimble.vm.startup import Startup, cgroup_root
from thimble.vm.table import VmTable
from thimble.vm.verbs.create import Create
from thimble.vm.verbs.power import Power
from thimble.vm.verbs.read import Read
from thimble.vm.verbs.reconfigure import Reconfigure
from thimble.vm.verbs.wanted import Wanted


class Vms:
    """`own_users`: each QEMU as its own user; None: when we are root and that user can reach QEMU."""

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
        root = os.geteuid() == 0
        self._private = own_users is None and root and not programs.usable_by_others(qemu)
        self.context = Context(
            storage=storage, network=network, consoles=consoles, events=events, tasks=tasks, accel=accel,
            qemu=qemu, run=run, clock=clock, entropy=entropy,
            own_users=(root and not self._private) if own_users is None else own_users,
            cgroups=cgroup_root(run) if root else None,
        )  # fmt: skip
        self.table = VmTable(self.context, durable=durable)
        storage.ports.volume_users = self.table.volume_users
        storage.ports.image_users = self.table.image_users
        wanted = Wanted(self.table)
        self.read = Read(self.table)
        self.power = Power(self.table)
        self.create = Create(self.table, self.power, wanted)
        self.reconfigure = Reconfigure(self.table, wanted)
        self._startup = Startup(self.table, self.power, self.create, self.reconfigure)
        self._shutdown = Shutdown(self.table, self.power)
        self._version = ""

    def services(self) -> dict[str, object]:
        """What the API binds verbs to."""
        return {"vm": (self.read, self.power, self.create, self.reconfigure)}

    async def open(self) -> None:
        """Read the records, adopt running QEMUs; nothing slow unless there are any."""
        await self._startup.open()

    async def autostart(self) -> None:
        """After ready: warm up, finish what was interrupted, start what starts with the host."""
        await self._startup.autostart()

    async def stop_all(self, timeout: float, how: HostShutdown | None = None) -> None:
        """The host goes down: each VM as its `host_shutdown` says, or all as `how`. Then nothing starts."""
        await self._shutdown.stop_all(timeout, how)

    def stay_up(self) -> None:
        """The host does not go down after all."""
        self._shutdown.stay_up()

    async def close(self) -> None:
        """Let go of everything; QEMUs run on."""
        await self.context.background.close()
        for driver in self.table.drivers.values():
            await driver.close()

    def counts(self) -> tuple[int, int]:
        """(all, running)."""
        drivers = self.table.drivers.values()
        return len(drivers), sum(driver.status.state in lifecycle.LIVE for driver in drivers)

    def states(self) -> dict[str, int]:
        """How many VMs are in each state."""
        found: dict[str, int] = {}
        for driver in self.table.drivers.values():
            found[driver.status.state] = found.get(driver.status.state, 0) + 1
        return found

    def named(self) -> tuple[tuple[str, str], ...]:
        """Name and state of each."""
        drivers = self.table.drivers
        return tuple(sorted((r.value.spec.name, drivers[r.id].status.state.value) for r in self.table.all()))

    def in_memory(self) -> tuple[str, ...]:
        """The names of VMs whose datastore does not outlast a reboot."""
        stores = self.context.storage.datastores
        return tuple(sorted(r.value.spec.name for r in self.table.all() if not stores.view(r.root).durable))

    def warnings(self) -> tuple[str, ...]:
        """What an administrator should know: records not used, saved VMs that cannot go on."""
        lines = [f"{path}: not used, {why}" for path, why in self.table.broken.items()]
        for r in self.table.all():
            status = self.table.drivers[r.id].status
            lost = status.state in (PowerState.SAVED, PowerState.FAILED)
            if r.value.noted.saved and status.why and lost:
                lines.append(f"{r.value.spec.name} is saved and cannot go on: {status.why}")
        if self._private:
            lines.append("VMs run as root, not as users of their own: QEMU lies in a private directory")
        return tuple(lines)

    async def qemu_version(self) -> str:
        """QEMU's own version, or why it is not known; asked once."""
        if not self._version:
            try:
                result = await command.run([self.context.qemu.program, "--version"])
            except Problem as problem:
                return problem.detail
            words = result.stdout.decode(errors="replace").split()
            self._version = words[3] if len(words) > 3 else "unknown"
        return self._version
