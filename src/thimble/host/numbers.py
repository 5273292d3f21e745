"""The host in numbers, for `/metrics`: what the kernel counts, and what the watch saw last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from thimble.contract.hardware import Level
from thimble.host import hardware, pressure
from thimble.sys import clock

if TYPE_CHECKING:
    from thimble.host.health import Watch
    from thimble.state.tasks import Tasks

#: (name, value, labels, help)
Number = tuple[str, float, dict[str, str], str]


def host(tasks: Tasks, started: float) -> Iterator[Number]:
    """`started`: seconds since boot when the agent began."""
    total, available = hardware.memory()
    yield "memory_bytes", total, {}, "RAM of the host"
    yield "memory_available_bytes", available, {}, "RAM guests can still have"
    yield "load1", os.getloadavg()[0], {}, "load average over a minute"
    yield "uptime_seconds", clock.since_boot() - started, {}, ""
    yield "tasks_running", sum(task.ended is None for task in tasks.all()), {}, "tasks not ended yet"


def machine(watch: Watch) -> Iterator[Number]:
    """Samples of one name come together. Asks no device."""
    if watch.health is not None:
        order = list(Level)
        yield "health", order.index(watch.health.level), {}, "0 ok, 1 warning, 2 critical"
        for level in order[1:]:
            count = sum(one.level is level for one in watch.health.findings)
            yield "health_findings", count, {"level": level}, "things that are not well"
    for resource, pressed in pressure.read().items():
        labels = {"resource": resource}
        yield "pressure_percent", pressed.some[1], labels, "of the last minute in which somebody waited"
    sensors = (*watch.sensors, *watch.bmc_sensors)
    for kind, name in (("temperature", "celsius"), ("fan", "fan_rpm"), ("power", "watts")):
        for one in sensors:
            if one.kind == kind and one.value is not None:
                yield f"sensor_{name}", one.value, {"chip": one.chip, "sensor": one.name}, f"{kind} sensors"
    if watch.time is not None and watch.time.managed:
        yield "clock_synchronized", watch.time.synchronized, {}, "1 when a time server is followed"
        if watch.time.offset_s is not None:
            yield "clock_offset_seconds", watch.time.offset_s, {}, "how far the clock is off"
    for disk in watch.disks:
        if disk.smart is not None and disk.smart.passed is not None:
            yield "disk_passed", disk.smart.passed, {"disk": disk.name}, "1 when the disk calls itself well"
