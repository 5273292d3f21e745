"""A server with nothing to do: memory, processor time, disk writes; Thimble against Debian + libvirt.

In use = MemTotal − MemAvailable, the image included (it lies in RAM). Private = Private_Clean + Private_Dirty
of all user processes. The probe's own share is left out on both sides.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import thimble_server
from benchmarks.context import Context
from benchmarks.machine import alternate, powered_on, tried
from benchmarks.promise import Bound, Promised, Row

NAME = "idle"
TITLE = "idle server: memory, processor time, disk writes"
TIMEOUT_S = 300.0
SETTLE_S = 20
KIB = 1024
MIB = 1 << 20
PEER = "Debian + libvirt"


def measure(context: Context) -> list[Row]:
    """Both, in turns; fewer rounds suffice, memory does not drift."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []

    def thimble() -> None:
        ours.append(tried(lambda: _thimble(context), context.report))
        context.say(f"thimble idle: {ours[-1]}")

    def libvirt() -> None:
        theirs.append(tried(lambda: _libvirt(context), context.report))
        context.say(f"libvirt idle: {theirs[-1]}")

    alternate(min(context.rounds, 2), [thimble, libvirt])
    return rows(ours, theirs)


def rows(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[Row]:
    """Pure."""

    def row(what: str, unit: str, of: Any, promised: Promised | None, note: str = "") -> Row:
        return Row(
            promise=NAME,
            what=what,
            unit=unit,
            ours=tuple(of(one) for one in ours),
            peer=PEER,
            theirs=tuple(of(one) for one in theirs),
            promised=promised,
            note=note,
        )

    no_more = Promised(bound=Bound.TIMES_OF_PEER, limit=1.0)
    a_third = Promised(bound=Bound.TIMES_OF_PEER, limit=1 / 3)
    return [
        row("memory in use, image included", "MiB", _in_use_mib, no_more),
        row(
            "private memory of user processes",
            "MiB",
            lambda one: one["private_kib"] / KIB,
            a_third,
            _shares(ours[-1]) if ours else "",
        ),
        row("user processes", "", lambda one: float(one["processes"]), None),
        row("processor time of user processes, a minute", "s", lambda one: _a_minute(one, "cpu_s"), None),
        row("written to disk, a minute", "KiB", lambda one: _a_minute(one, "written_bytes") / KIB, None),
        Row(
            promise=NAME,
            what="processor time of agent and PID 1, a minute",
            unit="s",
            ours=tuple(_a_minute(one, "agent_cpu_s") for one in ours),
        ),
    ]


def _in_use_mib(one: dict[str, Any]) -> float:
    return float(one["total_kib"] - one["available_kib"]) / KIB


def _shares(one: dict[str, Any]) -> str:
    return ", ".join(f"{name} {kib / KIB:.1f}" for kib, name in one.get("by_process", ()))


def _a_minute(one: dict[str, Any], name: str) -> float:
    return float(one[name]) * 60 / float(one["over_s"])


def _thimble(context: Context) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="thimble-bench.") as scratch:
        system = thimble_server.with_child(context.image, Path(scratch), state_disk=True)
        with (
            powered_on(system, timeout=TIMEOUT_S) as (server, _),
            thimble_server.orders(server, timeout=60) as orders,
        ):
            (found,) = orders.give(what="idle", settle_s=SETTLE_S, over_s=context.idle_s)
            return found


def _libvirt(context: Context) -> dict[str, Any]:
    system = context.peer_system(more=f"bench.probe={SETTLE_S},{context.idle_s:.0f}")
    with powered_on(system, timeout=TIMEOUT_S) as (server, _):
        server.wait_for(b"probe: ", timeout=SETTLE_S + context.idle_s + TIMEOUT_S)
        found: dict[str, Any] = json.loads(server.wait_for(b"}", timeout=10))
        return found
