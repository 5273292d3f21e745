"""A table of VMs without QEMU, storage or network: for verbs, drivers and what becomes of records."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from msgspec.structs import replace
from vm_examples import record

from thimble.contract.call import Call
from thimble.contract.vm import PowerState
from thimble.host.hardware import Accel
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.sys import clock
from thimble.vm.driver import Driver
from thimble.vm.qemu.context import Context
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.record.spec import Phase, VmRecord
from thimble.vm.table import VmTable


def context(where: Path, **more: Any) -> Context:
    """With homes `local` below `where`."""
    events = Events(base=0, clock=clock.now)
    numbers = itertools.count(1)
    (where / "vms").mkdir(exist_ok=True)
    made = Context(
        storage=cast(Any, SimpleNamespace(homes=lambda: {"local": where / "vms"}, default="local")),
        network=cast(Any, SimpleNamespace(close_port=_nothing)),
        consoles=cast(Any, SimpleNamespace(detach=_nothing, forget=_nothing)),
        events=events,
        tasks=Tasks(events, clock=clock.now, entropy=clock.entropy),
        accel=Accel(name="kvm", why=""),
        qemu=QemuPaths(),
        run=where,
        clock=lambda: 1000.0,
        entropy=lambda count: next(numbers).to_bytes(count, "big"),
        own_users=False,
        cgroups=None,
    )
    for name, value in more.items():
        setattr(made, name, value)
    made.background = Background()
    return made


async def _nothing(*_: object, **__: object) -> None:
    pass


def noted(value: VmRecord, **fields: Any) -> VmRecord:
    return replace(value, noted=replace(value.noted, **fields))


def ready(name: str = "web", *, on_crash: Any = None, **fields: Any) -> VmRecord:
    """A VM that was created; `fields` of what is noted."""
    value = record(name) if on_crash is None else record(name, on_crash=on_crash)
    return noted(value, **({"phase": Phase.READY, "start": False} | fields))


class TableWorld:
    """One VM, `vm-1`, in `state`."""

    def __init__(self, where: Path, state: PowerState, value: VmRecord, **more: Any) -> None:
        self.context = context(where, **more)
        self.table = VmTable(self.context, durable=False)
        self.table.take("local", where / "vms")
        self.table._store.put("vm-1", value, root="local")
        self.driver = self.add("vm-1", state)

    def add(self, id: str, state: PowerState, **more: Any) -> Driver:
        driver = self.table.drivers[id] = Driver(id, self.context, self.table, state, **more)
        if state is PowerState.RUNNING:
            driver.off.clear()
        return driver

    def call(self, input: Any = None, ref: str = "vm-1", **more: Any) -> Call[Any]:
        return Call(input=input, path={"vm": ref}, user="test", **more)
