"""The parts of the agent that "ready" needs, each made once and handed to the others; nothing runs yet.

options ─► state, events, tasks ─► access, storage, network, consoles ─► VMs
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from thimble.access.auth import Auth
from thimble.console.serial import Consoles
from thimble.contract.vm import HostShutdown
from thimble.dispatch.registry import Registry
from thimble.host import hardware
from thimble.host.pid1 import Init
from thimble.host.records import HostRecord
from thimble.network.service import Network
from thimble.options import Options
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.store import Collection, is_durable
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.sys import clock, log
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.service import Vms


def fault() -> Callable[[str], None]:
    """Where fault tests strike: THIMBLE_FAULT=`verb/step[.done]` ends the process right there."""
    wanted = os.environ.get("THIMBLE_FAULT", "")

    def strike(point: str) -> None:
        if point == wanted:
            log.say(f"fault test: ending at {point}")
            os._exit(137)

    return strike if wanted else lambda _: None


class Parts:
    """`fingerprint`, `ready`: told by the agent once they are known."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.started = clock.since_boot() if options.hosted else 0.0
        self.fingerprint = ""
        self.ready = False
        options.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        options.run.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.durable = is_durable(options.state)
        self.init = Init(options.run)
        self.accel = hardware.accel()
        self.background = Background()
        self.registry = Registry()
        self.events = Events(base=int(clock.now() * 1000), clock=clock.now)
        self.tasks = Tasks(self.events, clock=clock.now, entropy=clock.entropy, fault=fault())
        self.auth = Auth(
            options.state, durable=self.durable, clock=clock.now, entropy=clock.entropy,
            rev=lambda: self.events.rev,
        )  # fmt: skip
        self.hosts: Collection[HostRecord] = Collection(HostRecord, noun="host", durable=self.durable)
        self.hosts.add_root("", options.state / "host")
        qemu = QemuPaths.under(options.qemu_dir, options.share)
        self.storage = Storage(
            options.state, options.run, events=self.events, tasks=self.tasks, qemu_img=qemu.img
        )
        self.network = Network(
            options.state, options.run, events=self.events, hosts=lambda: self.vms.table.port_uses()
        )
        self.consoles = Consoles()
        self.vms = Vms(
            storage=self.storage, network=self.network, consoles=self.consoles, events=self.events,
            tasks=self.tasks, accel=self.accel, qemu=qemu, run=options.run, clock=clock.now,
            entropy=clock.entropy,
        )  # fmt: skip

    def name(self) -> str:
        """Of the host."""
        record = self.hosts.find("host")
        return record.value.name if record and record.value.name else os.uname().nodename

    @asynccontextmanager
    async def guests_stopped(self, timeout: float, how: HostShutdown | None) -> AsyncIterator[None]:
        """The VMs are down; when the host then stays up after all, they may be started again."""
        try:
            await self.vms.stop_all(timeout, how)
            yield
        except BaseException:
            self.vms.stay_up()
            raise
