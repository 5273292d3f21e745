"""`thimble host serve-boot|neighbours`: network boot for neighbours, and their reports."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import click

from thimble.cli import fleet_run as each_
from thimble.cli import tables
from thimble.cli.command import ChangingCommand, act, width
from thimble.cli.deploy import sent
from thimble.cli.document import given
from thimble.cli.session import CliSession
from thimble.cli.tables import Column, table
from thimble.contract.netboot import DocumentFor, Mode, Neighbour, NeighbourList, Netboot, ServeBoot, Stage
from thimble.core.units import show_size

ANY = "any"
SERIAL = "serial:"
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
#: Seconds between two looks of --watch.
WATCH_S = 2.0


# ── serving ──────────────────────────────────────────────────────────────────────────────────────


def details(found: Netboot) -> str:
    """What is served, and to whom. Pure."""
    settings = found.settings
    if settings is None:
        return "network boot is off"
    image = settings.image or "the running image"
    size = f", {show_size(found.image_bytes)}" if found.image_bytes else ""
    lines = [
        ("serving", f"at {found.address}" if found.on else f"not now: {found.why}"),
        ("switch", settings.switch),
        ("addresses", _addresses(settings)),
        ("allowed", ", ".join(settings.allow)),
        ("documents", ", ".join(document.match for document in settings.documents)),
        ("image", f"{image}{size}"),
        ("at most", f"{settings.most} neighbours"),
        ("sent", show_size(found.bytes_sent)),
        ("refused", f"{found.refused} requests" if found.refused else ""),
    ]
    return tables.facts([(name, text) for name, text in lines if text])


def _addresses(settings: ServeBoot) -> str:
    if settings.mode is Mode.PROXY:
        return "from the DHCP server that is there"
    return "from this host" + (f", of {settings.subnet}" if settings.subnet else "")


def document(text: str) -> DocumentFor:
    """`[MATCH=]FILE`, read. Raises `Problem` when it cannot be."""
    head, equals, rest = text.partition("=")
    named = equals and (head == ANY or _MAC.fullmatch(head) or head.startswith(SERIAL))
    match, source = (head, rest) if named else (ANY, text)
    return DocumentFor(match=match, text=given(source).text)


@click.command("serve-boot", cls=ChangingCommand)
@click.option("--switch", metavar="NAME", help="The switch the neighbours are on.")
@click.option("--proxy", is_flag=True, help="Another DHCP server hands out addresses there.")
@click.option(
    "--subnet",
    metavar="CIDR",
    help="Where this host has no address there: its subnet, or 10.9.0.2/24.",
)
@click.option(
    "--allow", multiple=True, metavar="MAC|serial:N|any", help="Which neighbours are served; repeatable."
)
@click.option("--document", "documents", multiple=True, metavar="[MATCH=]FILE",
              help="Their host document; MATCH as in --allow; repeatable.  [any]")  # fmt: skip
@click.option("--image", metavar="FILE|URL|IMAGE", help="Serve this image.  [the running one]")
@click.option("--most", type=click.IntRange(1, 1024), help="Serve at most this many neighbours.  [64]")
@click.option("--off", is_flag=True, help="Stop network boot.")
@click.pass_obj
def serve_boot(session: CliSession, /, *, off: bool, switch: str | None, **options: Any) -> None:
    """Boot neighbours from this host, over PXE and UEFI HTTP boot. Without options it shows what is served.

    Those with a document of their own (a MAC's or a serial number's) are allowed as well.
    """
    more = [name for name, value in options.items() if value]
    if off:
        if switch or more:
            raise click.UsageError("--off cannot be combined with other options")
        act(session, "netboot.stop")
        session.say("network boot is off; neighbours that run are not affected")
        return
    if not switch:
        if more or session.dry_run:
            raise click.UsageError("--switch is required: the switch the neighbours are on")
        found: Netboot = session.client.call("netboot.get")
        session.emit(found, lambda: details(found))
        return
    made: Netboot = act(session, "netboot.serve", _wanted(session, switch, **options))
    session.done(made, lambda: details(made))


def _wanted(
    session: CliSession,
    switch: str,
    *,
    proxy: bool,
    subnet: str | None,
    allow: tuple[str, ...],
    documents: tuple[str, ...],
    image: str | None,
    most: int | None,
) -> ServeBoot:
    """Files are read before anything is sent."""
    texts = tuple(document(text) for text in documents)
    if image and not session.dry_run:
        image = sent(session, image)
    return ServeBoot(
        switch=switch,
        mode=Mode.PROXY if proxy else Mode.DHCP,
        subnet=subnet or "",
        allow=allow,
        documents=texts,
        image=image or "",
        **({"most": most} if most else {}),
    )


# ── those that came ──────────────────────────────────────────────────────────────────────────────

_COLUMNS = (
    Column("n", right=True),
    Column("name", least=5),
    Column("mac"),
    Column("serial", least=4),
    Column("address"),
    Column("stage"),
    Column("vms", right=True),
    Column("doc", least=3),
    Column("last seen", least=8, right=True),
)


def listing(neighbours: Sequence[Neighbour], *, now: float, width: int | None) -> str:
    """A table, and below it the errors that were reported. Pure."""
    if not neighbours:
        return "no neighbours yet"
    lines = [table(_COLUMNS, [_row(one, now) for one in neighbours], width=width)]
    lines += [
        f"{one.number}: {one.report.problem}"
        for one in neighbours
        if one.report and one.report.problem and one.stage is Stage.FAILED
    ]
    return "\n".join(lines)


def _row(one: Neighbour, now: float) -> tuple[str, ...]:
    vms = one.report.vms if one.report else ()
    running = sum(vm.state == "running" for vm in vms)
    return (
        str(one.number),
        one.report.name if one.report else "–",
        one.mac,
        one.serial or "–",
        one.ip or "–",
        one.stage.value,
        f"{running}/{len(vms)}" if one.report else "–",
        _document(one.document),
        ago(now - one.seen) if one.seen else "never",
    )


def _document(match: str) -> str:
    if _MAC.fullmatch(match):
        return "mac"
    return "serial" if match.startswith(SERIAL) else match or "none"


def ago(seconds: float) -> str:
    """`12 s ago`, `3 min ago`, `4 h ago`, `2 d ago`. Pure."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} ago"
    return f"{whole} s ago"


@click.command("neighbours", cls=ChangingCommand)
@click.option("--forget", metavar="MAC", help="Forget this neighbour; its number becomes free.")
@click.option("--watch", "-w", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--each", is_flag=True, help="Run a command on each neighbour that is ready.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.pass_obj
def neighbours(
    session: CliSession, *, forget: str | None, watch: bool, each: bool, words: tuple[str, ...]
) -> None:
    """List the hosts booted from this one, with their reports.

    \b
    thimble host neighbours --each -- vm list
        Token or password: THIMBLE_TOKEN, a profile of that host, THIMBLE_PASSWORD, or asked for once.
    """
    if bool(forget) + watch + each > 1:
        raise click.UsageError("--forget, --watch and --each exclude each other")
    if each != bool(words):
        raise click.UsageError("a command goes with --each: thimble host neighbours --each -- vm list")
    if session.dry_run and not forget:
        raise click.UsageError("--dry-run goes with --forget")
    if forget:
        act(session, "neighbour.delete", path={"mac": forget})
        session.say(f"{forget} forgotten")
        return
    if each:
        raise click.exceptions.Exit(each_.run(session, _found(session).neighbours, words))
    _show(session)
    while watch:
        time.sleep(WATCH_S)
        if not session.json:
            click.clear()
        _show(session)


def _found(session: CliSession) -> NeighbourList:
    found: NeighbourList = session.client.call("neighbour.list")
    return found


def _show(session: CliSession) -> None:
    found = _found(session)
    session.emit(found, lambda: listing(found.neighbours, now=time.time(), width=width()))


COMMANDS = (serve_boot, neighbours)
