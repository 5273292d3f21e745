"""Power-on → ready for virtual machines: Thimble against Debian + libvirt in the same virtual server."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.context import Context
from benchmarks.machine import Moment, System, alternate, powered_on, tried
from benchmarks.promise import Bound, Promised, Row

NAME = "power-on"
TITLE = "power-on → ready, wall and processor time"
TIMEOUT_S = 300.0
SOONER = Promised(bound=Bound.TIMES_BETTER, limit=2.5)


def measure(context: Context) -> list[Row]:
    """Both, in turns."""
    ours: list[Moment] = []
    theirs: list[Moment] = []
    sides = [
        _side(context, context.thimble_system(), ours),
        _side(context, context.peer_system(), theirs),
    ]
    alternate(context.rounds, sides)
    return rows(ours, theirs)


def rows(ours: list[Moment], theirs: list[Moment]) -> list[Row]:
    """Pure."""
    peer = "Debian + libvirt"
    return [
        Row(
            promise=NAME,
            what="wall",
            unit="s",
            ours=tuple(moment.wall_s for moment in ours),
            peer=peer,
            theirs=tuple(moment.wall_s for moment in theirs),
            promised=SOONER,
        ),
        Row(
            promise=NAME,
            what="processor time of the virtual server",
            unit="s",
            ours=tuple(moment.cpu_s for moment in ours),
            peer=peer,
            theirs=tuple(moment.cpu_s for moment in theirs),
            promised=SOONER,
        ),
    ]


def _side(context: Context, system: System, into: list[Moment]) -> Callable[[], None]:
    def once() -> Moment:
        with powered_on(system, timeout=TIMEOUT_S) as (_, moment):
            return moment

    def turn() -> None:
        moment = tried(once, context.report)
        into.append(moment)
        context.say(f"{system.name}: ready after {moment.wall_s:.1f} s, {moment.cpu_s:.1f} CPU s")

    return turn
