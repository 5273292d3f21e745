"""API call → VM created; start call → guest's first line, against the very same QEMU command line by hand.

Everything happens inside one Thimble server (see inside/start.py), so both sides share processor, page cache
and the moment. libvirt takes 1.6 times bare QEMU on the same virtual server.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import thimble_server
from benchmarks.context import Context
from benchmarks.machine import powered_on, tried
from benchmarks.promise import Bound, Promised, Row
from thimble.guest import tiny

NAME = "start"
TITLE = "API call → VM created, start call → guest's first line"
TIMEOUT_S = 300.0
MARKER = "tiny guest: up"
NEARLY_BARE = Promised(bound=Bound.TIMES_OF_PEER, limit=1.15)


def guest_spec(cmdline: str) -> dict[str, Any]:
    """256 MiB, one processor, quiet, nothing to slow either side. Pure."""
    return {
        "name": "bench",
        "memory_mib": 256,
        "firmware": "direct",
        "direct": {"kernel": "local/bench-vmlinuz", "initrd": "local/bench-initrd", "cmdline": cmdline},
        "vga": False,
        "tablet": False,
        "guest_agent": False,
        "on_crash": "stop",
    }


def measure(context: Context) -> list[Row]:
    """One server, many rounds."""
    return rows(tried(lambda: _samples(context), context.report))


def rows(samples: list[dict[str, Any]]) -> list[Row]:
    """Pure."""

    def of(side: str, field: str = "seconds") -> tuple[float, ...]:
        return tuple(float(one[field]) for one in samples if one["side"] == side)

    def cpu_of(side: str) -> tuple[float, ...]:
        """Processor time of the whole server between a side's beginning and its end."""
        pairs = pairwise(samples)
        return tuple(
            b["cpu_s"] - a["cpu_s"] for a, b in pairs if (a["side"], b["side"]) == (f"{side}-begins", side)
        )

    return [
        Row(promise=NAME, what="API call → VM created", unit="s", ours=of("create")),
        Row(promise=NAME, what="start call → answer", unit="s", ours=of("api", "answered")),
        Row(
            promise=NAME,
            what="start call → guest's first line",
            unit="s",
            ours=of("api"),
            peer="same QEMU by hand",
            theirs=of("hand"),
            promised=NEARLY_BARE,
        ),
        Row(
            promise=NAME,
            what="the same, processor time of the virtual server",
            unit="s",
            ours=cpu_of("api"),
            peer="same QEMU by hand",
            theirs=cpu_of("hand"),
            note="steadier than the clock on a busy machine",
        ),
    ]


def _samples(context: Context) -> list[dict[str, Any]]:
    guest = tiny.ensure(context.report)
    files = {"vmlinuz": guest.kernel.read_bytes(), "initrd": guest.initrd.read_bytes()}
    found = []
    with tempfile.TemporaryDirectory(prefix="thimble-bench.") as scratch:
        system = thimble_server.with_child(context.image, Path(scratch), files=files)
        with powered_on(system, timeout=TIMEOUT_S) as (server, _):
            word = thimble_server.password(server, timeout=60)
            with thimble_server.orders(server, timeout=60) as orders:
                spec = guest_spec(guest.cmdline)
                order = {"password": word, "marker": MARKER, "rounds": context.rounds, "spec": spec}
                for said in orders.give(what="start", **order):
                    found.append({**said, "cpu_s": server.cpu_seconds()})
                    if said["side"] in ("create", "api", "hand"):
                        context.say(f"{said['side']}: {said['seconds']:.2f} s")
    return found
