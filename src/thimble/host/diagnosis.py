"""From what was measured to what is not well. Pure: numbers in, findings out.

A thing that is not well has to be clearly better before it counts as well again (`before`), so that a
temperature at its limit does not cause an event a minute.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from thimble.contract.hardware import Bmc, DiskInfo, Level, Sensor, Time
from thimble.host import ipmi

#: Degrees below its limit before a temperature is well again.
_COOLER = 3.0
#: Parts of a datastore that are free: below, it is a warning, critical; above the first plus the third, well.
_LOW, _VERY_LOW, _MORE = 0.10, 0.03, 0.02
#: Seconds from the start of the kernel in which nobody expects the right time.
_SETTLING_S = 900.0
#: Corrected memory errors since boot that are no accident.
_MANY_CORRECTED = 10
#: PSI over five minutes, percent: (memory, io, cpu).
_PRESSED = {"memory": 20.0, "io": 60.0, "cpu": 80.0}


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not well. `key` stays the same while the words change with the numbers."""

    key: str
    component: str
    level: Level
    reason: str
    hint: str = ""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """A datastore's file system. `why`: it could not be asked."""

    name: str
    size_bytes: int = 0
    free_bytes: int = 0
    why: str = ""


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    missing: int  # members it should have and has not in step
    recovering: bool = False


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one round of looking gave. `silent`: what did not answer, and how."""

    warnings: tuple[str, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    disks: tuple[DiskInfo, ...] = ()
    spaces: tuple[Space, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    corrected: int = 0
    uncorrected: int = 0
    pressure: dict[str, float] = {}  # resource → `some` over 300 s
    time: Time | None = None
    uptime_s: float = 0.0
    bmc: Bmc | None = None
    silent: dict[str, str] = {}


def worst(levels: Iterator[Level] | tuple[Level, ...]) -> Level:
    order = list(Level)
    return max(levels, key=order.index, default=Level.OK)


def signs(seen: Readings, before: frozenset[str] = frozenset()) -> tuple[Sign, ...]:
    """Everything that is not well, the worst first. `before`: keys of what was not well the last time."""
    found = [
        *_warnings(seen),
        *_temperatures(seen, before),
        *_disks(seen),
        *_spaces(seen, before),
        *_mirrors(seen),
        *_memory(seen),
        *_pressure(seen, before),
        *_time(seen),
        *_bmc(seen),
        *_silent(seen),
    ]
    once = {one.key: one for one in reversed(found)}
    order = list(Level)
    return tuple(sorted(once.values(), key=lambda one: (-order.index(one.level), one.component, one.key)))


def _warnings(seen: Readings) -> Iterator[Sign]:
    for line in seen.warnings:
        yield Sign(key=f"host:{line}", component="host", level=Level.WARNING, reason=line)


def _temperatures(seen: Readings, before: frozenset[str]) -> Iterator[Sign]:
    for one in seen.sensors:
        key, component = f"sensor:{one.chip}:{one.name}", f"sensor {one.chip} {one.name}"
        level, shown = one.level, f"{one.value:g} {one.unit}" if one.value is not None else "no reading"
        if level is Level.OK and key in before and _hardly_cooler(one):
            level = Level.WARNING
        if level is not Level.OK:
            limits = [
                f"{name} {value:g}"
                for name, value in (("warning at", one.warn), ("critical at", one.critical))
                if value
            ]
            hint = "Look at fans and air flow." if one.kind in ("temperature", "fan") else ""
            reason = f"{shown}" + (f" ({', '.join(limits)})" if limits else "")
            yield Sign(key=key, component=component, level=level, reason=reason, hint=hint)


def _hardly_cooler(one: Sensor) -> bool:
    limit = one.warn or one.critical
    if one.kind != "temperature" or one.value is None or not limit:
        return False
    return one.value > limit - _COOLER


def _disks(seen: Readings) -> Iterator[Sign]:
    for one in seen.disks:
        smart, component = one.smart, f"disk {one.name}"
        if smart is not None and smart.passed is False:
            words = ", ".join(smart.critical) or "it says that it fails"
            hint = "Copy what is on it, and replace it."
            yield Sign(
                key=f"smart:{one.name}", component=component, level=Level.CRITICAL, reason=words, hint=hint
            )
        elif smart is not None and smart.worn is not None and smart.worn >= 95:
            reason = f"{smart.worn} % of its life is used"
            yield Sign(
                key=f"worn:{one.name}", component=component, level=Level.WARNING, reason=reason,
                hint="Replace it soon.",
            )  # fmt: skip
        if one.read_only and not one.removable:
            reason = "it is read-only"
            yield Sign(key=f"ro:{one.name}", component=component, level=Level.WARNING, reason=reason)


def _spaces(seen: Readings, before: frozenset[str]) -> Iterator[Sign]:
    for one in seen.spaces:
        key, component = f"space:{one.name}", f"datastore {one.name}"
        if one.why:
            yield Sign(key=f"{key}:why", component=component, level=Level.CRITICAL, reason=one.why)
        if not one.size_bytes:
            continue
        free = one.free_bytes / one.size_bytes
        level = Level.CRITICAL if free < _VERY_LOW else Level.WARNING
        if free < _LOW or (key in before and free < _LOW + _MORE):
            hint = "Delete volumes or images, or move VMs elsewhere: guests whose disks cannot grow stop."
            yield Sign(key=key, component=component, level=level, reason=f"{free:.0%} is free", hint=hint)


def _mirrors(seen: Readings) -> Iterator[Sign]:
    for one in seen.mirrors:
        if one.missing:
            reason = "a disk is being brought up to date" if one.recovering else "a disk is missing or failed"
            hint = (
                "" if one.recovering else "Replace it, then `thimble host install` with that disk as mirror."
            )
            component = f"mirror {one.name}"
            yield Sign(
                key=f"mirror:{one.name}", component=component, level=Level.WARNING, reason=reason, hint=hint
            )


def _memory(seen: Readings) -> Iterator[Sign]:
    hint = "Find the module with `thimble host hardware`, and replace it."
    if seen.uncorrected:
        reason = f"{seen.uncorrected} uncorrectable errors since boot"
        yield Sign(key="memory:ue", component="memory", level=Level.CRITICAL, reason=reason, hint=hint)
    if seen.corrected >= _MANY_CORRECTED:
        reason = f"{seen.corrected} corrected errors since boot"
        yield Sign(key="memory:ce", component="memory", level=Level.WARNING, reason=reason, hint=hint)


def _pressure(seen: Readings, before: frozenset[str]) -> Iterator[Sign]:
    words = {"memory": "for memory", "io": "for disks", "cpu": "for a CPU"}
    for name, value in seen.pressure.items():
        limit, key = _PRESSED.get(name, 101.0), f"pressure:{name}"
        if value >= limit or (key in before and value >= limit * 0.75):
            reason = f"for five minutes something waited {words[name]} {value:.0f} % of the time"
            hint = "Stop or move VMs, or give them less."
            yield Sign(key=key, component=name, level=Level.WARNING, reason=reason, hint=hint)


def _time(seen: Readings) -> Iterator[Sign]:
    time = seen.time
    if time is None or not time.managed or seen.uptime_s < _SETTLING_S:
        return
    if not time.synchronized:
        reason = "it is not synchronized" + (f": {time.why}" if time.why else "")
        hint = "Are the time servers reached? `thimble host time` shows them."
        yield Sign(key="time:sync", component="clock", level=Level.WARNING, reason=reason, hint=hint)
    elif time.offset_s is not None and abs(time.offset_s) > 1.0:
        reason = f"it is {abs(time.offset_s):.1f} s off"
        yield Sign(key="time:offset", component="clock", level=Level.WARNING, reason=reason)


def _bmc(seen: Readings) -> Iterator[Sign]:
    for one in ipmi.standing(seen.bmc.events) if seen.bmc else ():
        yield Sign(
            key=f"sel:{one.sensor}:{one.what}",
            component=f"BMC {one.sensor}",
            level=one.level,
            reason=f"{one.what} (event log entry {one.id})",
            hint="When it is mended, clear the BMC's event log.",
        )


def _silent(seen: Readings) -> Iterator[Sign]:
    for name, why in seen.silent.items():
        reason = f"cannot be asked: {why}"
        yield Sign(key=f"silent:{name}", component=name, level=Level.WARNING, reason=reason)
