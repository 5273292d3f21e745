"""Looks at the machine's health now and then; an event says when it changes. It begins after "ready".

    every 45 s   sensors, free space, mirrors, memory errors, pressure, clock, warnings
    every 10 min disks (SMART), the management controller

Each question has its own thread and deadline (`probes`). Between rounds nothing runs and only the last
answers are kept; `now` is for those who do not want to wait for the next round. What is asked seldom may take
a minute (a BMC does): the rounds do not wait for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from thimble.contract import hardware as wire
from thimble.contract.hardware import Finding, Health
from thimble.core.problem import Problem
from thimble.host import devices, inventory, ntp, pressure, sensors, smbios
from thimble.host.bmc import Controller
from thimble.host.diagnosis import Mirror, Readings, Sign, Space, signs, worst
from thimble.host.pid1 import Init
from thimble.host.probes import Probes
from thimble.state.background import Background
from thimble.state.events import Events
from thimble.sys import clock, ipmi, log
from thimble.sys.sysfs import entries, number, word

T = TypeVar("T")

EVERY_S = 45.0
SELDOM_S = 600.0
#: Seconds that a part of the machine may take to answer.
ANSWER_S = 5.0
SLOW_S = 20.0
BMC_S = 120.0
FRESH_S = 5.0


class Watch:
    """`warnings`: what the rest of the agent warns of; `mounts`: datastore → directory."""

    def __init__(
        self,
        *,
        init: Init,
        events: Events,
        warnings: Callable[[], Awaitable[tuple[str, ...]]],
        mounts: Callable[[], Mapping[str, Path]],
        root: Path = Path("/"),
    ) -> None:
        self.probes = Probes()
        self.health: Health | None = None
        self.bmc: wire.Bmc | None = None
        self.bmc_sensors: tuple[wire.Sensor, ...] = ()
        self.disks: tuple[wire.DiskInfo, ...] = ()
        self.sensors: tuple[wire.Sensor, ...] = ()
        self.time: wire.Time | None = None
        self._init, self._events = init, events
        self._warnings, self._mounts = warnings, mounts
        self._root = root
        self._controller = Controller()
        self._silent: dict[str, str] = {}
        self._found: dict[str, tuple[Sign, float]] = {}
        self._looked = self._disks_at = self._bmc_at = float("-inf")
        self._round, self._asking_disks, self._asking_bmc = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._background = Background()

    async def run(self) -> None:
        """For ever."""
        self.load_drivers()
        seldom: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    await self.look()
                except Exception as error:  # a fault of ours must not end the watch
                    log.trouble("health", error)
                if seldom is None or seldom.done():
                    seldom = self._background.keep("health of disks", self.look_seldom(SELDOM_S))
                await asyncio.sleep(EVERY_S)
        finally:
            await self._background.close()

    def load_drivers(self) -> None:
        """Those that no device asks for by itself: the controller's."""
        try:
            table = (self._root / "sys/firmware/dmi/tables/DMI").read_bytes()
        except OSError:
            table = b""
        there = smbios.has_controller(table) or (self._root / "sys/module/ipmi_si").is_dir()
        if there and self._init.present:
            with suppress(Problem):
                self._init.tell("load", modules=["ipmi_si", "ipmi_devintf"])

    async def now(self, *, fresh: float = FRESH_S) -> Health:
        """Not older than `fresh` seconds; what is asked seldom may be."""
        if clock.since_boot() - self._looked > fresh:
            await self.look()
        assert self.health is not None
        return self.health

    async def look(self) -> None:
        """One round."""
        async with self._round:
            self._judge(await self._read())
            self._looked = clock.since_boot()

    async def look_seldom(self, fresh: float) -> None:
        """Ask disks and controller, and judge anew."""
        before = (self._disks_at, self._bmc_at)
        await asyncio.gather(self.look_at_disks(fresh), self.look_at_controller(fresh))
        if before != (self._disks_at, self._bmc_at):
            await self.look()

    async def look_at_disks(self, fresh: float) -> None:
        """Ask every disk of its health, unless that was done within `fresh` seconds."""
        async with self._asking_disks:
            if clock.since_boot() - self._disks_at < fresh:
                return
            listed = await self._ask("disks", lambda: devices.disks(self._root), SLOW_S) or ()
            self.disks = tuple(await asyncio.gather(*map(self._with_health, listed)))
            self._forget("disk ", {f"disk {disk.name}" for disk in self.disks})
            self._disks_at = clock.since_boot()

    async def _with_health(self, disk: wire.DiskInfo) -> wire.DiskInfo:
        """A disk that does not answer keeps no other one from being asked."""
        if disk.transport not in devices.TELLING:
            return disk
        name = f"disk {disk.name}"
        found = await self._ask(name, lambda: devices.health(self._root, disk), SLOW_S)
        why = self._silent.get(name, "")
        return msgspec.structs.replace(disk, smart=wire.Smart(why=why) if why else found)

    async def look_at_controller(self, fresh: float) -> None:
        """Ask the BMC, unless that was done within `fresh` seconds."""
        async with self._asking_bmc:
            if clock.since_boot() - self._bmc_at < fresh:
                return
            self.bmc, self.bmc_sensors = await self._ask("BMC", self._ask_bmc, BMC_S) or (None, ())
            self._bmc_at = clock.since_boot()

    def _ask_bmc(self) -> tuple[wire.Bmc | None, tuple[wire.Sensor, ...]]:
        if self._root != Path("/") or not ipmi.DEVICE.exists():
            return None, ()
        return self._controller.ask()

    async def _read(self) -> Readings:
        spaces = [asyncio.ensure_future(self._space(*one)) for one in self._mounts().items()]
        there = {_chip_words(path): path for path in sensors.chips(self._root)}
        self._forget("sensors of ", set(there))
        chips = [asyncio.ensure_future(self._chip(*one)) for one in there.items()]
        mirrors, errors, time = await asyncio.gather(
            self._ask("mirrors", lambda: all_mirrors(self._root), ANSWER_S),
            self._ask("memory errors", lambda: inventory.memory_errors(self._root), ANSWER_S),
            self._ask("clock", lambda: ntp.ask(clock.now(), managed=self._init.present), SLOW_S),
        )
        self.sensors = tuple(one for found in await asyncio.gather(*chips) for one in found)
        self.time = time
        corrected, uncorrected = errors or (0, 0)
        pressed = pressure.read(self._root)
        return Readings(
            warnings=await self._warnings(),
            sensors=(*self.sensors, *self.bmc_sensors),
            disks=self.disks,
            spaces=tuple(await asyncio.gather(*spaces)),
            mirrors=mirrors or (),
            corrected=corrected or 0,
            uncorrected=uncorrected or 0,
            pressure={name: one.some[2] for name, one in pressed.items()},
            time=time,
            uptime_s=clock.since_boot(),
            bmc=self.bmc,
            silent=dict(self._silent),
        )

    async def _ask(self, name: str, question: Callable[[], T], timeout: float) -> T | None:
        answer = await self.probes.ask(name, question, timeout=timeout)
        self._silent.pop(name, None)
        if answer.why:
            self._silent[name] = answer.why
        return answer.value

    async def _chip(self, name: str, path: Path) -> tuple[wire.Sensor, ...]:
        return await self._ask(name, lambda: sensors.sensors(path), ANSWER_S) or ()

    def _forget(self, kind: str, there: set[str]) -> None:
        """What was taken out and did not answer is no longer missed."""
        gone = [name for name in self._silent if name.startswith(kind) and name not in there]
        for name in gone:
            del self._silent[name]

    async def _space(self, name: str, where: Path) -> Space:
        answer = await self.probes.ask(f"datastore {name}", lambda: os.statvfs(where), timeout=ANSWER_S)
        if answer.value is None:
            return Space(name=name, why=answer.why)
        unit = answer.value.f_frsize
        return Space(
            name=name, size_bytes=answer.value.f_blocks * unit, free_bytes=answer.value.f_bavail * unit
        )

    def _judge(self, seen: Readings) -> None:
        """Publish what is new, what changed its level, and what is over."""
        found = {sign.key: sign for sign in signs(seen, frozenset(self._found))}
        now, before = clock.now(), self._found
        self._found = {key: (sign, before[key][1] if key in before else now) for key, sign in found.items()}
        self.health = Health(
            level=worst(tuple(sign.level for sign in found.values())),
            checked=now,
            findings=tuple(_finding(sign, since) for sign, since in self._found.values()),
        )
        for key, sign in found.items():
            if key not in before or before[key][0].level is not sign.level:
                self._report(sign.component, sign.level, sign.reason)
        for key, (sign, _) in before.items():
            if key not in found:
                self._report(sign.component, wire.Level.OK, f"no longer: {sign.reason}")

    def _report(self, component: str, level: wire.Level, reason: str) -> None:
        assert self.health is not None
        self._events.publish("host.health", component, level=level, reason=reason, host=self.health.level)


def _chip_words(path: Path) -> str:
    return f"sensors of {sensors.chip_name(path) or path.name} ({path.name})"


def _finding(sign: Sign, since: float) -> Finding:
    fields = msgspec.structs.asdict(sign)
    del fields["key"]
    return Finding(**fields, since=since)


def all_mirrors(root: Path) -> tuple[Mirror, ...]:
    """Every md array with redundancy, by its own files (admin-guide/md.rst)."""
    found = []
    for array in entries(root / "sys/block"):
        missing = number(array / "md/degraded")
        if missing is not None:
            action = word(array / "md/sync_action")
            found.append(Mirror(name=array.name, missing=missing, recovering=action in ("recover", "resync")))
    return tuple(found)
