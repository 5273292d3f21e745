"""The verbs of the machine itself: hardware, sensors, health, time, logs, bundle, blink. Made after "ready".

It owns the watch over the health and the line to a syslog server; both run from `begin` on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from thimble import __version__
from thimble.contract import hardware as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.contract.host import Blink
from thimble.core.decision import Decision
from thimble.core.problem import Code, Problem
from thimble.dispatch import run
from thimble.dispatch.registry import Registry
from thimble.host import inventory, locate_led, loglines, ntp
from thimble.host.health import ANSWER_S, SLOW_S, Watch
from thimble.host.journal import Logbook
from thimble.host.locate_led import Light
from thimble.host.pid1 import Init
from thimble.host.rules import syslog_target
from thimble.host.syslog import Sender
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import clock

#: Seconds an inventory is good for.
KEEP_S = 30.0


class MachineService:
    """`uses`: permanent MAC → what for. `secrets`: strings that no bundle may hold."""

    def __init__(
        self,
        *,
        init: Init,
        run: Path,
        events: Events,
        registry: Registry,
        warnings: Callable[[], Awaitable[tuple[str, ...]]],
        mounts: Callable[[], Mapping[str, Path]],
        uses: Callable[[], dict[str, str]],
        secrets: Callable[[], list[str]],
        host: Callable[[], str],
        root: Path = Path("/"),
    ) -> None:
        self._init, self._run, self._registry = init, run, registry
        self._uses, self._secrets, self._host, self._root = uses, secrets, host, root
        self.watch = Watch(init=init, events=events, warnings=warnings, mounts=mounts, root=root)
        self.logbook = Logbook(run, kernel=Path("/dev/kmsg") if init.present else None)
        self.sender: Sender | None = None
        self._sending: asyncio.Task[None] | None = None
        self._background = Background()
        self._known: tuple[float, wire.Hardware] | None = None

    async def begin(self, syslog: str) -> None:
        """For ever."""
        if self.sender is None:
            self.send_log(syslog)
        await self.watch.run()

    def send_log(self, target: str) -> None:
        """From now on, to this server; "" for none."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = self.sender = None
        where = syslog_target(target)
        if where is not None:
            self.sender = Sender(where, self.logbook, host=self._host)
            self._sending = self._background.keep(f"syslog to {where}", self.sender.run())

    async def hardware(self, _call: Call[None]) -> wire.Hardware:
        if self._known is not None and clock.since_boot() - self._known[0] < KEEP_S:
            return self._known[1]
        uses = self._uses()
        answer, _ = await asyncio.gather(
            self.watch.probes.ask(
                "inventory", lambda: inventory.hardware(self._root, use=uses), timeout=SLOW_S
            ),
            self.watch.look_at_disks(KEEP_S),
        )
        if answer.value is None:
            raise Problem(
                Code.TIMEOUT,
                f"the machine's parts cannot be listed: {answer.why}",
                hint="A device does not answer; the log of the kernel may say which.",
            )
        asked = {disk.device: disk for disk in self.watch.disks}
        disks = tuple(asked.get(disk.device, disk) for disk in answer.value.disks)
        found = msgspec.structs.replace(answer.value, disks=disks)
        self._known = (clock.since_boot(), found)
        return found

    async def sensors(self, _call: Call[None]) -> wire.Sensors:
        await self.watch.look_seldom(KEEP_S)
        health = await self.watch.now()
        silent = [
            f"{one.component} {one.reason}" for one in health.findings if "cannot be asked" in one.reason
        ]
        return wire.Sensors(
            sensors=(*self.watch.sensors, *self.watch.bmc_sensors), bmc=self.watch.bmc, problems=tuple(silent)
        )

    async def health(self, call: Call[None]) -> wire.Health:
        if call.query.get("thorough", "0") in ("1", "true"):
            await self.watch.look_seldom(0.0)
        return await self.watch.now()

    async def time(self, _call: Call[None]) -> wire.Time:
        answer = await self.watch.probes.ask(
            "time", lambda: ntp.ask(clock.now(), managed=self._init.present), timeout=2 * ANSWER_S
        )
        if answer.value is None:
            raise Problem(Code.UNAVAILABLE, f"the clock cannot be asked: {answer.why}")
        return answer.value

    async def logs(self, call: Call[None]) -> wire.Logs:
        wanted = loglines.wanted(call.query)
        return wire.Logs(lines=tuple(await asyncio.to_thread(self.logbook.lines, wanted)))

    def follow(self, call: Call[None]) -> AsyncIterator[list[wire.LogLine]]:
        """Raises `Problem` at once, not at the first step."""
        return self.logbook.follow(loglines.wanted(call.query, lines=10))

    async def bundle(self, _call: Call[None]) -> bytes:
        from thimble.host.bundle import Bundle

        made = Bundle(self._registry, self._run, known=self._secrets, now=clock.now)
        return await made.make(__version__)

    async def blink(self, call: Call[Blink]) -> Nothing | DryRun:
        seconds = call.input.seconds

        async def decide() -> Decision[Light]:
            light = await asyncio.to_thread(locate_led.find, call.input.what, self._root)
            return Decision(plan=light, effects=(f"blinks {light} for {seconds:.0f} s",))

        async def act(decision: Decision[Light]) -> Nothing:
            light = decision.plan
            assert light is not None
            asked = self.watch.probes.ask(
                f"light of {light}", lambda: light.blink(seconds), timeout=seconds + ANSWER_S
            )
            blinking = self._background.keep(f"light of {light}", asked)
            with suppress(TimeoutError):
                answer = await asyncio.wait_for(asyncio.shield(blinking), 0.5)
                if answer.why:
                    raise Problem(
                        Code.UNSUPPORTED, f"{light} cannot blink: {answer.why}",
                        hint="Its driver or its enclosure has no way to switch the light.",
                    )  # fmt: skip
            return Nothing()

        return await run.now(call, decide, act)
