"""One dnsmasq per NAT switch: started, told of new VMs, started again when it dies, adopted after a restart.

    <run>/network/<bridge>/   dnsmasq.conf hosts names leases dnsmasq.log pid
                              process.json     which process it is and what it was told

Invariant: a dnsmasq that runs is in `running`, with what it was last told; it outlives the agent. Whoever
starts or stops one, or starts it again, has the bridge's turn: so there are never two for one bridge.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.network.render import DhcpPlan
from thimble.state.background import Background
from thimble.sys import files, process
from thimble.sys.worker import Worker

#: Seconds a dnsmasq may take until it answers.
_START = 10.0
#: Seconds before one that died is started again, at first and at most; and how long it must live to count
#: as well again.
_PAUSE, _PAUSE_MAX, _STEADY = 0.5, 30.0, 60.0


class _Running(msgspec.Struct, frozen=True):
    who: process.Identity
    told: DhcpPlan


class Dhcp:
    """`run`: the directory above the bridges' ones. `why`: by bridge, what keeps it from answering."""

    def __init__(self, run: Path, *, program: str = "dnsmasq") -> None:
        self._run = run
        self._program = program
        self._running: dict[str, _Running] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._background = Background()
        self._worker = Worker("dhcp")
        self.why: dict[str, str] = {}

    def told(self) -> dict[str, DhcpPlan]:
        """What every living dnsmasq was last told, by bridge."""
        return {
            bridge: running.told for bridge, running in self._running.items() if process.alive(running.who)
        }

    def adopt(self) -> None:
        """Find those that an earlier agent started."""
        for path in self._run.glob("*/process.json"):
            bridge = path.parent.name
            if bridge in self._running:
                continue
            try:
                running = msgspec.json.decode(path.read_bytes(), type=_Running)
            except (OSError, ValueError, msgspec.MsgspecError):
                continue
            if process.alive(running.who):
                self._running[bridge] = running
                self._watch(bridge)

    async def start(self, plan: DhcpPlan) -> None:
        """Start it with `plan`, in place of one with another configuration; returns when it answers.

        Raises `Problem`.
        """
        async with self._turns[plan.bridge]:
            running = self._running.get(plan.bridge)
            if running is not None and running.told.config == plan.config and process.alive(running.who):
                await self._tell(plan)
                return
            self._unwatch(plan.bridge)
            await self._start(plan)
            self._watch(plan.bridge)

    async def tell(self, plan: DhcpPlan) -> None:
        """Let a running one read the VMs' names and addresses again."""
        async with self._turns[plan.bridge]:
            if plan.bridge in self._running:
                await self._tell(plan)

    async def stop(self, bridge: str) -> None:
        """Stop it and remove its files; fine when there is none."""
        async with self._turns[bridge]:
            self._unwatch(bridge)
            await self._stop(bridge)
            self.why.pop(bridge, None)

    def leases(self, bridge: str) -> list[tuple[str, str, str]]:
        """(mac, address, name) of all that asked and got one."""
        try:
            lines = (self._run / bridge / "leases").read_text(errors="replace").splitlines()
        except OSError:
            return []
        words = [line.split() for line in lines]
        return [
            (w[1], w[2], "" if w[3] == "*" else w[3]) for w in words if len(w) >= 4 and w[1].count(":") == 5
        ]

    async def close(self) -> None:
        """Stop watching; they run on."""
        self._watches.clear()
        await self._background.close()

    # ── by whoever has the bridge's turn ─────────────────────────────────────────────────────────

    async def _start(self, plan: DhcpPlan) -> None:
        self.why[plan.bridge] = "DHCP and DNS are being started"
        directory = self._run / plan.bridge
        await self._end_stray(directory)
        await self._stop(plan.bridge)
        who = await self._worker.run(lambda: self._spawn(plan))
        await self._remember(_Running(who, plan))
        try:
            await self._ready(who, directory)
        except Problem:
            del self._running[plan.bridge]
            await _end(who)
            raise
        del self.why[plan.bridge]

    async def _stop(self, bridge: str) -> None:
        running = self._running.pop(bridge, None)
        if running is not None:
            await _end(running.who)
        await self._worker.run(lambda: shutil.rmtree(self._run / bridge, ignore_errors=True))

    async def _tell(self, plan: DhcpPlan) -> None:
        who = self._running[plan.bridge].who
        await self._worker.run(lambda: _write_hosts(self._run / plan.bridge, plan))
        process.send(who, signal.SIGHUP)
        await self._remember(_Running(who, plan))

    def _spawn(self, plan: DhcpPlan) -> process.Identity:
        """Blocks. Raises `Problem`."""
        directory = self._run / plan.bridge
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(directory / "dnsmasq.conf", plan.config)
        _write_hosts(directory, plan)
        (directory / "pid").unlink(missing_ok=True)
        (directory / "dnsmasq.log").write_bytes(b"")
        return process.spawn(
            [self._program, "--keep-in-foreground", f"--conf-file={directory}/dnsmasq.conf"],
            output=directory / "dnsmasq.log",
        )

    async def _remember(self, running: _Running) -> None:
        bridge, data = running.told.bridge, msgspec.json.encode(running)
        self._running[bridge] = running
        path = self._run / bridge / "process.json"
        await self._worker.run(lambda: files.write_atomic(path, data, durable=False))

    async def _ready(self, who: process.Identity, directory: Path) -> None:
        """dnsmasq writes its pid file when its sockets are bound."""
        deadline = asyncio.get_running_loop().time() + _START
        while not (directory / "pid").exists():
            if not process.alive(who):
                process.reap(who)
                raise Problem(Code.FAILED, f"{self._program}: {_last_words(directory)}")
            if asyncio.get_running_loop().time() > deadline:
                raise Problem(Code.TIMEOUT, f"{self._program} did not start within {_START:.0f} s")
            await asyncio.sleep(0.02)

    async def _end_stray(self, directory: Path) -> None:
        """End one whose start was not written down before the agent died."""
        with suppress(OSError, ValueError):
            pid = int((directory / "pid").read_text())
            if os.fsencode(directory / "dnsmasq.conf") in Path(f"/proc/{pid}/cmdline").read_bytes():
                who = process.identify(pid)
                if who is not None:
                    await _end(who)

    def _watch(self, bridge: str) -> None:
        self._unwatch(bridge)
        self._watches[bridge] = self._background.keep(f"dnsmasq on {bridge}", self._supervise(bridge))

    def _unwatch(self, bridge: str) -> None:
        """Whoever is watched is not being started again: for that, too, one has to have the turn."""
        if (watch := self._watches.pop(bridge, None)) is not None:
            watch.cancel()

    # ── watching ─────────────────────────────────────────────────────────────────────────────────

    async def _supervise(self, bridge: str) -> None:
        """Wait until it dies, start it again; more and more slowly while it does not stay."""
        loop = asyncio.get_running_loop()
        pause = _PAUSE
        while True:
            began, who = loop.time(), self._running[bridge].who
            await process.exited(who)
            if loop.time() - began > _STEADY:
                pause = _PAUSE
            self.why[bridge] = f"DHCP and DNS ended: {_last_words(self._run / bridge)}"
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_MAX)
            async with self._turns[bridge]:
                lost = self._running[bridge]  # it may have been told of more VMs since
                try:
                    await self._start(lost.told)
                except Problem as error:
                    self.why[bridge] = error.detail
                    self._running.setdefault(bridge, lost)


async def _end(who: process.Identity, timeout: float = 5.0) -> None:
    process.send(who, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.exited(who), timeout)
    except TimeoutError:
        process.send(who, signal.SIGKILL)
        await process.exited(who)


def _write_hosts(directory: Path, plan: DhcpPlan) -> None:
    _write(directory / "hosts", plan.hosts)
    _write(directory / "names", plan.names)


def _write(path: Path, text: str) -> None:
    # readable for dnsmasq, which has dropped root by the time it reads them again
    files.write_atomic(path, text.encode(), mode=0o644, durable=False)


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / "dnsmasq.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("dnsmasq: ").strip() if lines else "without an error message"
