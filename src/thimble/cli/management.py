"""`thimble host network …`: the management network, and changes that are undone unless they prove good."""

from __future__ import annotations

from typing import Any

import click
from msgspec import UNSET

from thimble.cli import reconnect, tables
from thimble.cli.command import ChangingCommand, act, host_options, output_options
from thimble.cli.session import CliSession
from thimble.cli.vm_parse import seconds
from thimble.contract.management import REACH, Management, ManagementChange, ManagementSettings
from thimble.core.units import show_seconds

CONFIRM = "60s"


def details(found: Management) -> str:
    """Pure."""
    now = found.settings
    pending = found.pending
    lines = [
        ("card", now.nic or "the first with a link"),
        ("VLAN", str(now.vlan) if now.vlan else "none"),
        ("address", _with(now.address, now.gateway)),
        ("IPv6 address", _with(now.address6, now.gateway6)),
        ("name servers", ", ".join(now.dns)),
        ("time servers", ", ".join(now.ntp)),
        ("looked after", "" if found.managed else "by the operating system this agent runs in"),
    ]
    if pending is not None:
        lines.append(("not confirmed", _pending(pending.left_s, pending.problem, in_force=pending.in_force)))
        lines.append(("before", before(now, pending.previous)))
    return tables.facts([(name, text) for name, text in lines if text])


def _with(address: str, gateway: str) -> str:
    return f"{address}, gateway {gateway}" if gateway else address


def _pending(left: float, problem: str, *, in_force: bool) -> str:
    state = "in force" if in_force else problem or "not in force yet"
    return f"{state}; undone in {show_seconds(left)} unless `thimble host network confirm` keeps it"


def before(new: ManagementSettings, old: ManagementSettings) -> str:
    """What holds again if the new ones are undone. Pure."""
    different = [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return ", ".join(f"{name} {_value(getattr(old, name))}" for name in different)


def _value(value: Any) -> str:
    return " ".join(value) or "none" if isinstance(value, tuple) else str(value) or "none"


class _Network(click.Group):
    """Alone it shows."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["params"] = [*(options.get("params") or []), *host_options(), *output_options()]
        options["invoke_without_command"] = True
        super().__init__(*args, **options)


@click.group("network", cls=_Network)
@click.pass_context
def network(ctx: click.Context) -> None:
    """How the host itself is reached: its card, VLAN and addresses."""
    if ctx.invoked_subcommand is None:
        session: CliSession = ctx.obj
        found: Management = session.client.call("management.get")
        session.emit(found, lambda: details(found))


@network.command("set", cls=ChangingCommand)
@click.option("--nic", metavar="MAC", help="Its network card; '' is the first with a link.")
@click.option("--vlan", type=click.IntRange(0, 4094), help="0: untagged.")
@click.option("--address", metavar="A.B.C.D/N|dhcp|off", help="Its IPv4 address.")
@click.option("--gateway", metavar="ADDRESS", help="With a static address.")
@click.option("--address6", metavar="ADDRESS/N|auto|off", help="Its IPv6 address.")
@click.option("--gateway6", metavar="ADDRESS", help="With a static address6.")
@click.option("--dns", multiple=True, metavar="ADDRESS", help="A name server; may be repeated; '' is none.")
@click.option("--ntp", multiple=True, metavar="SERVER", help="A time server; may be repeated; '' is none.")
@click.option("--confirm-within", default=CONFIRM, metavar="TIME", help=f"How long to try.  [{CONFIRM}]")
@click.option("--keep", is_flag=True, help="Do not try it: keep it, whether the host can be reached or not.")
@click.pass_obj
def set_(session: CliSession, /, *, confirm_within: str, keep: bool, **given: Any) -> None:
    """Change it. What is not given stays.

    The host tries what could cut it off: unless this command reaches it anew and confirms, it goes back.
    """
    wanted = asked(given, 0 if keep else round(seconds(confirm_within)))
    if not wanted.confirm_within or session.dry_run:
        kept: Management = act(session, "management.change", wanted)
        session.done(kept, lambda: "the management network is so from now on")
        return
    with reconnect.brief(session) as client:
        answer: Management | None = reconnect.through(lambda: client.call("management.change", wanted))
    if answer is not None and answer.pending is None:
        session.done(answer, lambda: "the management network is so already")
        return
    addresses = tuple(one for one in (wanted.address, wanted.address6) if isinstance(one, str))
    made = reconnect.confirm(session, addresses, wanted.confirm_within)
    session.done(made, lambda: "reached and confirmed: the management network is so from now on")


def asked(given: dict[str, Any], within: int) -> ManagementChange:
    """What the options say. What cannot cut the host off is not tried; DHCP takes the gateway along. Pure."""
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    for name in ("dns", "ntp"):
        if name in fields:
            fields[name] = tuple(server for server in fields[name] if server)
    for address, gateway, automatic in (("address", "gateway", "dhcp"), ("address6", "gateway6", "auto")):
        if fields.get(address) in (automatic, "off"):
            fields.setdefault(gateway, "")
    change = ManagementChange(**fields)
    cuts = any(getattr(change, name) is not UNSET for name in REACH)
    return ManagementChange(**fields, confirm_within=within if cuts else 0)


@network.command("confirm", cls=ChangingCommand)
@click.pass_obj
def confirm(session: CliSession) -> None:
    """Keep new settings that wait for it: this command has reached the host with them."""
    kept: Management = act(session, "management.confirm")
    session.done(kept, lambda: "the management network is so from now on")


@network.command("undo", cls=ChangingCommand)
@click.pass_obj
def undo(session: CliSession) -> None:
    """Take new settings back at once."""
    back = reconnect.through(lambda: act(session, "management.undo"))
    if back is not None:
        session.done(back, lambda: "the management network is as it was before")
    else:
        session.say("the management network goes back; the host answers where it did before")
