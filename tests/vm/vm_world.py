"""A whole VM service on real QEMU (TCG) and real storage, in a directory of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from thimble.console.serial import Consoles
from thimble.contract.call import Call
from thimble.contract.common import Task, TaskState
from thimble.contract.host import Role
from thimble.contract.vm import DirectBoot, Firmware, Machine, PowerState, Vm, VmCreate
from thimble.core.problem import Reason
from thimble.guest import tiny
from thimble.host.hardware import Accel
from thimble.image import toolbox
from thimble.state.events import Events
from thimble.state.tasks import Tasks
from thimble.storage.service import Storage
from thimble.sys import clock
from thimble.vm.qemu.programs import QemuPaths
from thimble.vm.service import Vms

FIRST_LINE = "tiny guest: up"
DEADLINE_S = 240.0  # machines that run tests are busy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class NoNetwork:
    """No switches: for VMs without NICs."""

    def check_nic(self, spec: Any, path: str, *, vm: str = "") -> list[Reason]:
        return []

    def address_for(self, switch: str, mac: str, taken: set[str]) -> str:
        return ""

    async def close_port(self, vm: str, nic: str) -> None:
        pass


class World:
    """An agent's worth of parts on `root`; A second one on it is a restart."""

    def __init__(
        self,
        root: Path,
        *,
        fault: Callable[[str], None] = lambda _: None,
        network: Any = None,
        qemu: QemuPaths | None = None,
    ) -> None:
        self.root = root
        self.events = Events(base=int(time.time() * 1000), clock=clock.now)
        self.tasks = Tasks(self.events, clock=clock.now, entropy=clock.entropy, fault=fault)
        tools = toolbox.ensure(lambda *_: None)
        self.storage = Storage(
            root / "state", root / "run", events=self.events, tasks=self.tasks,
            qemu_img=str(tools.wrappers / "qemu-img"),
        )  # fmt: skip
        self.network = network or NoNetwork()
        self.consoles = Consoles()
        self.vms = Vms(
            storage=self.storage, network=self.network, consoles=self.consoles, events=self.events,
            tasks=self.tasks, accel=Accel(name="tcg", why="this is a test"),
            qemu=qemu or QemuPaths.under(tools.wrappers, tools.path("usr/share")), run=root / "run",
            clock=clock.now, entropy=clock.entropy,
        )  # fmt: skip

    async def open(self) -> World:
        await self.storage.open()
        await self.vms.open()
        await self.vms.autostart()
        return self

    def put_tiny(self) -> DirectBoot:
        """The tiny guest's kernel and initrd as images."""
        guest = tiny.ensure()
        images = self.root / "state" / "datastores" / "local" / "images"
        for name, path in (("vmlinuz", guest.kernel), ("initrd", guest.initrd)):
            if not (images / name).exists():
                shutil.copy(path, images / name)
        return DirectBoot(kernel="vmlinuz", initrd="initrd", cmdline=guest.cmdline)

    def tiny(self, name: str = "web1", **more: Any) -> VmCreate:
        fields: dict[str, Any] = {"memory_mib": 128, "firmware": Firmware.DIRECT, "direct": self.put_tiny()}
        return VmCreate(name=name, **(fields | more))

    def call(self, ref: str = "", input: Any = None, **more: Any) -> Call[Any]:
        path = {"vm": ref} if ref else {}
        return Call(input=input, path=path, user="test", role=Role.ADMIN, **more)

    async def done(self, answer: Any) -> Task:
        """The task of a `Started`, ended well."""
        task = await self.ended(answer)
        assert task.state is TaskState.DONE, task
        return task

    async def ended(self, answer: Any) -> Task:
        task = await self.tasks.wait(answer.task.id, DEADLINE_S)
        assert task.ended is not None, task
        return task

    async def create(self, spec: VmCreate) -> str:
        answer = await self.vms.create.create(self.call(input=spec))
        await self.done(answer)
        return str(answer.subject)

    async def start(self, id: str) -> Task:
        return await self.done(await self.vms.power.start(self.call(id)))

    async def get(self, id: str) -> Vm:
        return await self.vms.read.get(self.call(id))

    async def state(self, id: str, *wanted: PowerState) -> Vm:
        """The VM as soon as it is in one of the `wanted` states."""
        rev = self.events.rev
        async with asyncio.timeout(DEADLINE_S):
            follow = self.events.follow(rev)
            while (vm := await self.get(id)).status.state not in wanted:
                await anext(follow)
        return vm

    async def says(self, id: str, text: str, *, times: int = 1) -> None:
        """Return when the guest has written `text` to its serial line, so many `times` since it was made."""
        session = await self.consoles.session(id)
        seen = b""
        async with asyncio.timeout(DEADLINE_S):
            async for piece in session:
                seen += piece
                if seen.count(text.encode()) >= times:
                    session.close()
                    return
        raise AssertionError(f"{text!r} never came: {seen!r}")

    async def types(self, id: str, text: str) -> None:
        session = await self.consoles.session(id)
        await session.write(text.encode())
        session.close()

    async def gone(self) -> None:
        """The agent ends; its QEMUs do not."""
        await self.vms.close()
        await self.consoles.close()

    def pids(self) -> list[int]:
        """QEMUs that were started from here."""
        found = []
        for driver in self.vms.table.drivers.values():
            who = driver.rundir.identity()
            if who is not None:
                found.append(who.pid)
        return found

    def kill_all(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def exit_code(life: Coroutine[Any, Any, None]) -> int:
    """Let an agent live in a process of its own; what it ends with, 1 when not by its own word."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            asyncio.run(life)
        os._exit(1)
    life.close()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def in_world(test: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a coroutine test in a fresh world; whatever it leaves running is killed."""

    @needs_root
    def outer(tmp_path: Path) -> None:
        async def run() -> None:
            world = await World(tmp_path).open()
            try:
                await test(world)
            finally:
                for path in (tmp_path / "run" / "vms").glob("*/process.json"):
                    from thimble.vm.qemu.rundir import RunDir

                    who = RunDir(tmp_path / "run", path.parent.name).identity()
                    if who is not None:
                        with suppress(ProcessLookupError):
                            os.kill(who.pid, signal.SIGKILL)
                await world.gone()

        asyncio.run(run())

    outer.__name__ = test.__name__
    outer.__doc__ = test.__doc__
    return outer


__all__ = ["FIRST_LINE", "Machine", "World", "in_world"]
