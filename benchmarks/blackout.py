"""How long an installed host does not answer while it is updated: by kexec, beside by its firmware."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.context import Context
from benchmarks.machine import VCPUS, alternate
from benchmarks.promise import Row
from thimble.contract.deploy import Reboot
from thimble.core.problem import Code, Problem
from thimble.lab.command import spec_of_image
from thimble.lab.outer import with_retries
from thimble.lab.spec import LabFirmware
from thimble.rehearsal import command
from thimble.rehearsal.site import Site
from thimble.rehearsal.update import Update

NAME = "black-out"
TITLE = "an update's black-out with and without kexec"
MEMORY_MIB = 1536
#: Nobody waits longer for a host to go down, or to come back.
LIMIT_S = 300.0


def measure(context: Context) -> list[Row]:
    """Updates to and fro on one installed host, by UEFI, in turns."""
    name = "bench-black-out"
    spec = spec_of_image(context.image.where, name=name, cpus=VCPUS, memory_mib=MEMORY_MIB)
    samples: dict[Reboot, list[float]] = {Reboot.KEXEC: [], Reboot.FIRMWARE: []}
    with tempfile.TemporaryDirectory(prefix="thimble-bench.") as scratch:
        scenario = command.update(spec, context.image.where, Path(scratch), LabFirmware.UEFI, context.report)
        site = with_retries(lambda _: scenario.prepare(), say=context.say)
        try:
            sides = [_side(context, scenario, site, way, into) for way, into in samples.items()]
            alternate(context.rounds, sides)
        finally:
            site.server.down(force=True)
    return rows(samples[Reboot.KEXEC], samples[Reboot.FIRMWARE])


def rows(kexec: list[float], firmware: list[float]) -> list[Row]:
    """Context: nothing is promised. Pure."""
    return [
        Row(
            promise=NAME,
            what="the API does not answer",
            unit="s",
            ours=tuple(kexec),
            peer="by the firmware (OVMF)",
            theirs=tuple(firmware),
        )
    ]


def _side(
    context: Context, scenario: Update, site: Site, way: Reboot, into: list[float]
) -> Callable[[], None]:
    def once() -> float:
        scenario.ask_for(way)
        dark = gap(lambda: answers(site), limit_s=LIMIT_S)
        scenario.settled()
        return dark

    def again(attempt: int) -> float:
        if attempt > 1:  # the server's own QEMU broke: its power is off
            site.server.power_on()
            site.ready()
            scenario.settled()
        return once()

    def turn() -> None:
        into.append(with_retries(again, say=context.say))
        context.say(f"update by {way}: no answer for {into[-1]:.1f} s")

    return turn


def answers(site: Site) -> bool:
    """Whether the API does, within a second. Raises `OuterCrash`."""
    try:
        with site.client(timeout=1.0) as client:
            client.call("host.get")
    except Problem as problem:
        site.server.check()
        return problem.code not in (Code.UNAVAILABLE, Code.TIMEOUT)
    return True


def gap(
    asked: Callable[[], bool],
    *,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
    nap_s: float = 0.1,
) -> float:
    """Seconds from the last answer before the silence to the first after it. Raises TIMEOUT."""
    began = last = clock()
    silent = False
    while clock() - began < limit_s:
        before = clock()
        if asked():
            if silent:
                return clock() - last
            last = before
        else:
            silent = True
        time.sleep(nap_s)
    raise Problem(Code.TIMEOUT, f"no silence with an end in {limit_s:.0f} s")
