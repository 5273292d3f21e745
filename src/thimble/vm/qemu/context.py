"""What all VMs of an agent share: the neighbours below, and the few doors back to the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from thimble.console.serial import Consoles
from thimble.contract.vm import Intent
from thimble.host.hardware import Accel
from thimble.network.service import Network
from thimble.state.events import Events
from thimble.state.store import Record
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.vm.qemu.process import QemuPaths
from thimble.vm.record.spec import VmRecord


class World:
    """What all drivers share. What is only declared belongs to the service."""

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
        own_users: bool,
        cgroups: Path | None,
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
        self.own_users = own_users
        self.cgroups = cgroups
        self.host_stopping = False
        self.record: Callable[[str], Record[VmRecord]]
        self.intend: Callable[[str, Intent], None]
        self.restart: Callable[[str], None]
        self.note_saved: Callable[[str, Intent | None], None]
        self.note_unsaved: Callable[[str], None]
        self.pin: Callable[[str, str], None]

    def group(self, id: str) -> Path | None:
        return None if self.cgroups is None else self.cgroups / id
