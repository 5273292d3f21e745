"""One VM's QEMU: brought up, found again, asked, taken down. Knows nothing of states and intents.

A QEMU is (`who`, `qmp`, `running`): its process, its control connection, what it was started as. All three
are set by `launch`, or by `find` and `reach`, and given back together by `release`.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from thimble.contract.vm import Machine
from thimble.core.problem import Code, Problem
from thimble.state.store import Record
from thimble.state.tasks import Progress
from thimble.sys import cgroup, logfile
from thimble.sys import process as linux
from thimble.vm.qemu import hotplug, launch_fds, process, qmp, render
from thimble.vm.qemu.context import Context, Records
from thimble.vm.qemu.descriptors import LaunchFds
from thimble.vm.qemu.qmp import Control
from thimble.vm.qemu.rundir import RunDir
from thimble.vm.record import change, layout, lifecycle
from thimble.vm.record.lifecycle import Ending
from thimble.vm.record.spec import Definition, Nic, Running, VmRecord

if TYPE_CHECKING:
    from thimble.vm.qemu.saved_file import StateFile
    from thimble.vm.record.saved_state import Saved

replace = msgspec.structs.replace


class Engine:
    """`tell` gets QEMU's events, `qmp.LOST`, and `EXITED` when the process has ended."""

    def __init__(self, id: str, context: Context, records: Records, tell: qmp.OnEvent) -> None:
        self.id = id
        self.rundir = RunDir(context.run, id)
        self.who: linux.Identity | None = None
        self.qmp: Control | None = None
        self.running: Running | None = None
        self.killed = False
        self._context = context
        self._records = records
        self._tell = tell
        self._watch: asyncio.Task[None] | None = None

    @property
    def record(self) -> Record[VmRecord]:
        return self._records.get(self.id)

    def source(self) -> launch_fds.Source:
        return launch_fds.Source(self._context.storage, self._context.network, self.id, self.record.root)

    def state_file(self) -> StateFile:
        """Raises `Problem` when its datastore is not mounted."""
        from thimble.vm.qemu.saved_file import StateFile  # few VMs are saved on the way to ready

        return StateFile(self.source().directory)

    def has(self, *names: str) -> bool:
        """Is a file of one of these names in its directory? No when its datastore is not mounted."""
        try:
            directory = self.source().directory
        except Problem:
            return False
        return any((directory / name).exists() for name in names)

    def now(self) -> float:
        return self._context.clock()

    async def launch(self, progress: Progress, saved: Saved | None = None) -> Running:
        """Start QEMU; returns when it answers. `saved`: it is made for that, and waits for its memory.

        Raises `Problem`; call `release` then.
        """
        context, source = self._context, self.source()
        vm = self.record.value.definition
        if saved is not None:
            from thimble.vm.record.saved_state import goes_on_as

            vm = goes_on_as(saved, vm)
        with LaunchFds() as things:
            async with progress.step("open"):
                self.rundir.make()
                names = launch_fds.open_all(things, self.rundir, source, vm, context.qemu, context.accel.name)
            async with progress.step("ports"):
                for nic in vm.nics:
                    await launch_fds.open_nic(things, source, vm, nic)
            async with progress.step("spawn"):
                self._spawn(vm, things, names, saved)
        assert self.who is not None
        async with progress.step("connect"):
            await self._connect(vm)
            if vm.machine is Machine.Q35 and not vm.machine_type:
                await self._records.pin(self.id, await self.machine_type())
        self._watch_exit()
        assert self.running is not None
        return self.running

    async def machine_type(self) -> str:
        """QEMU's own versioned name for the machine it made, such as `pc-q35-10.0`. Raises `Problem`."""
        answer = await self.control.execute("qom-get", {"path": "/machine", "property": "type"})
        return str(answer).removesuffix("-machine")

    def _spawn(
        self, vm: Definition, things: LaunchFds, credentials: tuple[str, ...], saved: Saved | None
    ) -> None:
        context = self._context
        ports = layout.ports(vm) if saved is None else saved.running.ports
        given = render.Machinery(
            accel=context.accel.name,
            share=context.qemu.share,
            fds=things.fds,
            credentials=credentials,
            qboot=context.qemu.qboot,
            ports=ports,
            incoming=saved is not None,
        )
        argv = render.argv([context.qemu.program], render.render(vm, given))
        self.running = Running(record=vm, ports=ports, accel=context.accel.name, started=context.clock())
        self.rundir.write_running(self.running)
        self.who = process.spawn(self.rundir, argv, things, uid=vm.uid if context.own_users else None)
        process.remember(self.rundir, self.who, context.group(self.id))
        if self.killed:
            linux.send(self.who, signal.SIGKILL)

    async def _connect(self, vm: Definition) -> None:
        assert self.who is not None
        try:
            self.qmp = await qmp.connect(self.rundir.qmp, self.id, self._tell)
        except Problem as error:
            ended = not linux.alive(self.who)
            if not ended:
                with suppress(TimeoutError):
                    await asyncio.wait_for(linux.exited(self.who), 2.0)
                    ended = True
            if self.killed:
                raise Problem(Code.CANCELLED, "it was killed while starting") from error
            if ended:
                raise process.start_problem(logfile.tail(self.rundir.qemu_log, 4096)) from error
            raise
        if vm.serial:
            await self._context.consoles.attach(self.id, self.rundir.serial)

    def _watch_exit(self) -> None:
        async def watch(who: linux.Identity) -> None:
            await linux.exited(who)
            self._tell("EXITED", {})

        assert self.who is not None
        self._watch = asyncio.get_running_loop().create_task(watch(self.who))

    def find(self, vm: Definition) -> Running | None:
        """Take the QEMU of this VM in hand that an earlier agent left running; None when there is none."""
        who = self.rundir.identity()
        if who is None and self.rundir.directory.exists():
            who = process.find(vm, self._context.group(self.id))
        if who is None or not linux.alive(who):
            return None
        self.who = who
        self.running = self.rundir.was() or Running(
            record=vm,
            ports=layout.ports(vm),
            accel=self._context.accel.name,
            started=self._context.clock(),
        )
        return self.running

    async def attach(self) -> None:
        """See the end of what `find` found, and hear its console; `reach` connects."""
        assert self.running is not None
        self._watch_exit()
        if self.running.record.serial:
            await self._context.consoles.attach(self.id, self.rundir.serial)

    async def reach(self, timeout: float) -> str:
        """Connect unless we are, and ask QEMU what it is: its word. Raises `Problem`."""
        if self.qmp is None:
            self.qmp = await qmp.connect(self.rundir.qmp, self.id, self._tell, timeout=timeout)
        return str((await self.qmp.execute("query-status", timeout=timeout))["status"])

    async def lost(self) -> bool:
        """The connection broke. Does QEMU run on, or is it just ending?"""
        self.qmp = None
        if self.who is None or not linux.alive(self.who):
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(linux.exited(self.who), 1.0)
            return False
        return True

    async def follow(self, vm: Definition, home: str) -> None:
        """Carry out what of a change QEMU takes while it runs. Raises `Problem` where it stopped."""
        if self.running is None or self.qmp is None:
            return
        source = launch_fds.Source(self._context.storage, self._context.network, self.id, home)
        for effect in change.plan(self.running, vm).hot:
            await hotplug.carry_out(effect, self.qmp, source, vm)
            self.running = replace(self.running, record=effect.after(self.running.record))
            self.rundir.write_running(self.running)

    async def quit(self, timeout: float = 10.0) -> None:
        """End a QEMU that is needed no more; `release` makes sure."""
        with suppress(Problem):
            await self.control.execute("quit", timeout=timeout)
        if self.who is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(linux.exited(self.who), timeout)

    def kill(self) -> None:
        """End QEMU at once, also one that is just being started."""
        self.killed = True
        if self.who is not None:
            linux.send(self.who, signal.SIGKILL)

    @property
    def control(self) -> Control:
        if self.qmp is None:
            raise Problem(
                Code.UNAVAILABLE,
                "QEMU does not answer on its control socket",
                hint="Kill the VM if it hangs.",
            )
        return self.qmp

    def ending(self) -> Ending:
        """Why it ended, from its log."""
        return lifecycle.ending(logfile.tail(self.rundir.qemu_log, 8192).decode(errors="replace"))

    async def release(self, nics: tuple[Nic, ...]) -> None:
        """Give back everything a QEMU had; end it if it still runs."""
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
            self._watch = None
        if self.who is not None:
            linux.send(self.who, signal.SIGKILL)
            await linux.exited(self.who)
            self.who = None
        if self.qmp is not None:
            await self.qmp.close()
            self.qmp = None
        running, self.running = self.running, None
        await self._context.consoles.detach(self.id)
        for nic in running.record.nics if running else nics:
            await self._context.network.close_port(self.id, nic.name)
        if (group := self._context.group(self.id)) is not None:
            with suppress(Problem):
                cgroup.delete(group)
        self.rundir.clear()

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self.qmp is not None:
            await self.qmp.close()
