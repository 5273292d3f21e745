"""The seam of the VMs: `VmService` for `app` and the API. Here what is read; verbs that act are inherited:
`shaping` (change, delete) over `creating` over `power` (start, stop, …) over `desk` (records and drivers).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from thimble.console.serial import Consoles, Session
from thimble.contract import vm as wire
from thimble.contract.call import Call
from thimble.contract.vm import HostShutdown, PowerState
from thimble.core.problem import Code, Problem
from thimble.host.hardware import Accel
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.vm import startup
from thimble.vm.qemu import process
from thimble.vm.qemu.context import World
from thimble.vm.qemu.process import QemuPaths
from thimble.vm.record import lifecycle, spec
from thimble.vm.record.lifecycle import Verb
from thimble.vm.record.spec import volume_ref
from thimble.vm.table import refuse_verb
from thimble.vm.verbs.reconfigure import ShapingVerbs


class VmService(ShapingVerbs):
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
        """`own_users`: each QEMU as its own user; None: when we are root and that user can reach QEMU."""
        root = os.geteuid() == 0
        self._private = own_users is None and root and not process.usable_by_others(qemu)
        world = World(
            storage=storage, network=network, consoles=consoles, events=events, tasks=tasks, accel=accel,
            qemu=qemu, run=run, clock=clock,
            own_users=(root and not self._private) if own_users is None else own_users,
            cgroups=startup.cgroup_root(run) if root else None,
        )  # fmt: skip
        super().__init__(world, entropy, durable=durable)
        world.restart = self._restart
        storage.ports.volume_users, storage.ports.image_users = self.volume_users, self.image_users
        self._boot = startup.Boot(self, entropy)

    # ── for app ──────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Read the records, take running QEMUs in hand; nothing slow unless there are any."""
        await self._boot.open()

    async def autostart(self) -> None:
        """After ready: warm up, finish what was interrupted, start what starts with the host."""
        await self._boot.autostart()

    async def stop_all(self, timeout: float, how: HostShutdown | None = None) -> None:
        """The host goes down: each VM as its `host_shutdown` says, or all as `how`; see `down`."""
        from thimble.vm import shutdown

        await shutdown.stop_all(self, timeout, how)

    async def close(self) -> None:
        """Let go of everything; QEMUs run on."""
        self._boot.close()
        for driver in self.drivers.values():
            await driver.close()

    def counts(self) -> tuple[int, int]:
        """(all, running)."""
        live = sum(driver.status.state in lifecycle.LIVE for driver in self.drivers.values())
        return len(self.drivers), live

    def in_memory(self) -> tuple[str, ...]:
        """The names of VMs whose datastore does not outlast a reboot."""
        stores = self.world.storage.datastores
        return tuple(sorted(r.value.name for r in self.store.all() if not stores.view(r.root).durable))

    def states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for driver in self.drivers.values():
            found[driver.status.state] = found.get(driver.status.state, 0) + 1
        return found

    def named(self) -> tuple[tuple[str, str], ...]:
        """Name and state of each."""
        return tuple(sorted((r.value.name, self.drivers[r.id].status.state.value) for r in self.store.all()))

    def volume_users(self) -> dict[str, str]:
        """volume ref → VM id. Disks beside a record that cannot be read are that VM's."""
        found = {volume_ref(r.root, r.id, disk): r.id for r in self.store.all() for disk in r.value.disks}
        for name, home in self.world.storage.homes().items() if self.store.broken else ():
            for record in self.store.broken:
                if home in record.parents:
                    id = record.parent.name
                    found |= {f"{name}/{id}.{path.stem}": id for path in record.parent.iterdir()}
        return found

    def image_users(self) -> dict[str, str]:
        """image ref → VM id, for CD-ROMs and direct boot."""
        found: dict[str, str] = {}
        for r in self.store.all():
            refs = [cdrom.image for cdrom in r.value.cdroms]
            if r.value.direct:
                refs += [r.value.direct.kernel, r.value.direct.initrd]
            found |= {ref if "/" in ref else f"{r.root}/{ref}": r.id for ref in refs if ref}
        return found

    def warnings(self) -> tuple[str, ...]:
        lines = [f"{path}: not used, {why}" for path, why in self.store.broken.items()]
        for r in self.store.all():
            status = self.drivers[r.id].status
            if r.value.saved and status.why and status.state in (PowerState.SAVED, PowerState.FAILED):
                lines.append(f"{r.value.name} is saved and cannot go on: {status.why}")
        if self._private:
            lines.append("VMs run as root, not as users of their own: QEMU lies in a private directory")
        return tuple(lines)

    async def qemu_version(self) -> str:
        return await self._boot.qemu_version()

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
        return spec.view(found.id, found.rev, found.root, found.value, status, verbs, role=call.role)

    async def log(self, call: Call[None]) -> wire.ConsoleLog:
        found = self.find(call.path["vm"])
        data = self.world.consoles.tail(found.id)
        log = self.drivers[found.id].rundir.serial_log
        if not data:
            data = process.tail(log, 64 * 1024)
        longer = log.exists() and log.stat().st_size > len(data)
        return wire.ConsoleLog(text=data.decode(errors="replace"), truncated=longer)

    async def console(self, call: Call[None]) -> Session:
        found = self.find(call.path["vm"])
        if not found.value.serial:
            raise Problem(Code.CONFLICT, "this VM was made without a serial port")
        refuse_verb(
            lifecycle.decide(self.drivers[found.id].status.state, found.value.phase, Verb.CONSOLE), found
        )
        return await self.world.consoles.session(found.id)
