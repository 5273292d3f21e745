"""One dnsmasq per NAT switch: started, told of new VMs, started again when it dies, adopted after a restart.

    <run>/network/<bridge>/   dnsmasq.conf hosts names leases dnsmasq.log pid
                              process.json     which process it is and what it was told

Invariant: a dnsmasq that runs is in `running`, with what it was last told; it outlives the agent.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble.core.problem import Code, Problem
from thimble.network.render import DhcpPlan
from thimble.sys import files, process

#: Seconds a dnsmasq may take until it answers.
_START = 10.0
_BACKOFF_MAX = 30.0


class _Running(msgspec.Struct, frozen=True):
    who: process.Identity
    told: DhcpPlan


class Dhcp:
    """`run`: the directory above the bridges' ones."""

    def __init__(self, run: Path, *, program: str = "dnsmasq") -> None:
        self._run = run
        self._program = program
        self._running: dict[str, _Running] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
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
            except (OSError, ValueError):
                continue
            if process.alive(running.who):
                self._running[bridge] = running
                self._watch(bridge)

    async def start(self, plan: DhcpPlan) -> None:
        """Start it anew with `plan`; returns when it answers. Raises `Problem`."""
        await self.stop(plan.bridge)
        self.why[plan.bridge] = "DHCP and DNS are being started"
        directory = self._run / plan.bridge
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        await self._stray(directory)
        _write(directory / "dnsmasq.conf", plan.config)
        self._files(plan)
        (directory / "pid").unlink(missing_ok=True)
        (directory / "dnsmasq.log").write_bytes(b"")
        who = process.spawn(
            [self._program, "--keep-in-foreground", f"--conf-file={directory}/dnsmasq.conf"],
            output=directory / "dnsmasq.log",
        )
        self._remember(_Running(who, plan))
        await self._ready(who, directory)
        del self.why[plan.bridge]
        self._watch(plan.bridge)

    def tell(self, plan: DhcpPlan) -> None:
        """Let a running one read the VMs' names and addresses again."""
        running = self._running[plan.bridge]
        self._files(plan)
        process.send(running.who, signal.SIGHUP)
        self._remember(_Running(running.who, plan))

    async def stop(self, bridge: str) -> None:
        """Stop it and remove its files; fine when there is none."""
        watch = self._watches.pop(bridge, None)
        if watch is not None:
            watch.cancel()
        running = self._running.pop(bridge, None)
        if running is not None:
            await _end(running.who)
        self.why.pop(bridge, None)
        import shutil

        shutil.rmtree(self._run / bridge, ignore_errors=True)

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
        watches = list(self._watches.values())
        self._watches.clear()
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    def _files(self, plan: DhcpPlan) -> None:
        directory = self._run / plan.bridge
        _write(directory / "hosts", plan.hosts)
        _write(directory / "names", plan.names)

    def _remember(self, running: _Running) -> None:
        self._running[running.told.bridge] = running
        path = self._run / running.told.bridge / "process.json"
        files.write_atomic(path, msgspec.json.encode(running), durable=False)

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

    async def _stray(self, directory: Path) -> None:
        """End one whose start was not written down before the agent died."""
        with suppress(OSError, ValueError):
            pid = int((directory / "pid").read_text())
            if os.fsencode(directory / "dnsmasq.conf") in Path(f"/proc/{pid}/cmdline").read_bytes():
                who = process.identify(pid)
                if who is not None:
                    await _end(who)

    def _watch(self, bridge: str) -> None:
        old = self._watches.pop(bridge, None)
        if old is not None:
            old.cancel()
        self._watches[bridge] = asyncio.get_running_loop().create_task(self._supervise(bridge))

    async def _supervise(self, bridge: str) -> None:
        """Wait until it dies, start it again; more and more slowly while it does not stay."""
        loop = asyncio.get_running_loop()
        pause = 0.5
        while True:
            began = loop.time()
            await process.exited(self._running[bridge].who)
            running = self._running[bridge]  # it may have been told of more since
            self.why[bridge] = f"DHCP and DNS ended: {_last_words(self._run / bridge)}"
            if loop.time() - began > 60:
                pause = 0.5
            await asyncio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_MAX)
            del self._watches[bridge]  # so that `start` does not cancel us
            try:
                await self.start(running.told)
            except Problem as error:
                self.why[bridge] = error.detail
                self._running[bridge] = running
                self._watches[bridge] = asyncio.current_task()  # type: ignore[assignment]
                continue
            return


async def _end(who: process.Identity, timeout: float = 5.0) -> None:
    process.send(who, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.exited(who), timeout)
    except TimeoutError:
        process.send(who, signal.SIGKILL)
        await process.exited(who)


def _write(path: Path, text: str) -> None:
    # readable for dnsmasq, which has dropped root by the time it reads them again
    files.write_atomic(path, text.encode(), mode=0o644, durable=False)


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / "dnsmasq.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("dnsmasq: ").strip() if lines else "without a word"
