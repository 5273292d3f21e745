"""What all VMs of an agent share: the parts of the host they use, and who keeps their records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from thimble.console.serial import Consoles
from thimble.contract.vm import Intent
from thimble.host import hardware
from thimble.host.hardware import Accel
from thimble.network.service import Network
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Record
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.record.spec import VmRecord


class Context:
    """The parts, the same for every VM. `memory`: (all, available) of the host, in bytes.

    `host_stopping`: no VM starts any more.
    """

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
        own_users: bool,
        cgroups: Path | None,
        memory: Callable[[], tuple[int, int]] = hardware.memory,
    ) -> None:
        self.storage = storage
        self.network = network
        self.consoles = consoles
        self.events = events
        self.tasks = tasks
        self.accel = accel
        self.qemu = qemu
        self.run = run
        self.clock = clock
        self.entropy = entropy
        self.own_users = own_users
        self.cgroups = cgroups
        self.memory = memory
        self.background = Background()
        self.host_stopping = False
        #: Ids of VMs that are to be started again after a crash; `startup` takes them.
        self.restarts: asyncio.Queue[str] = asyncio.Queue()

    def group(self, id: str) -> Path | None:
        """Its control group; None where there are none."""
        return None if self.cgroups is None else self.cgroups / id


class Records(Protocol):
    """What a VM's driver may do with its record: read it, and have something noted. See `table.VmTable`."""

    def get(self, id: str) -> Record[VmRecord]: ...

    async def intend(self, id: str, intent: Intent) -> None:
        """Raises `Problem` when it could not be kept."""

    async def note(self, id: str, *, saved: bool, intent: Intent | None = None) -> None:
        """What is so already; when it cannot be kept the log says so."""

    async def pin(self, id: str, machine_type: str) -> None:
        """The machine QEMU made for it at its first start is its machine for life."""
