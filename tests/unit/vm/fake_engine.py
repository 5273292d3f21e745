"""An engine without QEMU: starts and ends in a few turns of the loop, obeys what it is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from thimble.core.problem import Code, Problem
from thimble.vm.qemu import qmp
from thimble.vm.qemu.context import Context, Records
from thimble.vm.qemu.rundir import RunDir
from thimble.vm.record.lifecycle import Ending
from thimble.vm.record.spec import Definition, Running


class FakeEngine:
    """`died`: how the last one ended; `deaf`: the guest does not obey its power button."""

    def __init__(self, id: str, context: Context, records: Records, tell: qmp.OnEvent) -> None:
        self.id = id
        self.rundir = RunDir(context.run, id)
        self.who: Any = None
        self.qmp: Any = None
        self.running: Running | None = None
        self.killed = False
        self.deaf = False
        self.launches = 0
        self._records = records
        self._tell = tell
        self._died = Ending.DEATH
        self._word = "running"

    async def launch(self, progress: object, saved: object = None) -> Running:
        await asyncio.sleep(0)
        assert self.running is None, "two QEMUs of one VM"
        vm = self._records.get(self.id).value.definition
        self.running = Running(record=vm, ports=8, accel="kvm", started=1.0)
        self.who, self.qmp = SimpleNamespace(pid=-1), self
        self.launches += 1
        self._word = "running"
        await asyncio.sleep(0)
        if self.killed:
            raise Problem(Code.CANCELLED, "it was killed while starting")
        return self.running

    async def execute(self, name: str, *_: object, **__: object) -> dict[str, str]:
        await asyncio.sleep(0)
        if self.running is None:
            raise Problem(Code.UNAVAILABLE, "QEMU is gone")
        if name == "stop":
            self._word = "paused"
        if name == "cont":
            self._word = "running"
        if name == "system_powerdown" and not self.deaf:
            self.end(Ending.GUEST)
        return {"status": self._word}

    @property
    def control(self) -> Any:
        if self.running is None:
            raise Problem(Code.UNAVAILABLE, "QEMU does not answer on its control socket")
        return self

    def end(self, why: Ending) -> None:
        self._died = why
        self._tell("EXITED", {})

    def kill(self) -> None:
        self.killed = True
        if self.running is not None:
            self.end(Ending.SIGNAL)

    def ending(self) -> Ending:
        return self._died

    async def reach(self, _timeout: float) -> str:
        return (await self.execute("query-status"))["status"]

    async def release(self, _nics: object) -> None:
        await asyncio.sleep(0)
        self.running = self.who = self.qmp = None

    async def follow(self, vm: Definition, _home: str) -> None:
        await asyncio.sleep(0)

    def has(self, *_names: str) -> bool:
        return False

    async def close(self) -> None:
        pass
