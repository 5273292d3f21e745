"""`thimble host network …`: the management network; changes are undone unless confirmed (commit-confirm)."""

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
    return f"{state}; undone in {show_seconds(left)} unless you run `thimble host network confirm`"


def before(new: ManagementSettings, old: ManagementSettings) -> str:
    """The settings that return if the new ones are undone. Pure."""
    different = [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return ", ".join(f"{name} {_value(getattr(old, name))}" for name in different)


def _value(value: Any) -> str:
    return " ".join(value) or "none" if isinstance(value, tuple) else str(value) or "none"


class _Network(click.Group):
    """Without a subcommand it shows the settings."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["params"] = [*(options.get("params") or []), *host_options(), *output_options()]
        options["invoke_without_command"] = True
        super().__init__(*args, **options)


@click.group("network", cls=_Network)
@click.pass_context
def network(ctx: click.Context) -> None:
    """Show how the host is reached: NIC, VLAN and addresses."""
    if ctx.invoked_subcommand is None:
        session: CliSession = ctx.obj
        found: Management = session.client.call("management.get")
        session.emit(found, lambda: details(found))


@network.command("set", cls=ChangingCommand)
@click.option("--nic", metavar="MAC", help="MAC of its NIC; '' is the first with a link.")
@click.option("--vlan", type=click.IntRange(0, 4094), help="0: untagged.")
@click.option("--address", metavar="A.B.C.D/N|dhcp|off", help="Its IPv4 address.")
@click.option("--gateway", metavar="ADDRESS", help="With a static address.")
@click.option("--address6", metavar="ADDRESS/N|auto|off", help="Its IPv6 address.")
@click.option("--gateway6", metavar="ADDRESS", help="With a static address6.")
@click.option("--dns", multiple=True, metavar="ADDRESS", help="A name server; may be repeated; '' is none.")
@click.option("--ntp", multiple=True, metavar="SERVER", help="A time server; may be repeated; '' is none.")
@click.option(
    "--confirm-within",
    default=CONFIRM,
    metavar="TIME",
    help=f"Undo the change after this time without confirmation.  [{CONFIRM}]",
)
@click.option(
    "--keep", is_flag=True, help="Keep the change at once, without confirming that the host can be reached."
)
@click.pass_obj
def set_(session: CliSession, /, *, confirm_within: str, keep: bool, **given: Any) -> None:
    """Change it. Options not given stay.

    Commit-confirm: the host undoes a change that could cut it off unless this command confirms it in time.
    """
    wanted = asked(given, 0 if keep else round(seconds(confirm_within)))
    if not wanted.confirm_within or session.dry_run:
        kept: Management = act(session, "management.change", wanted)
        session.done(kept, lambda: "the new management network settings are permanent")
        return
    with reconnect.brief(session) as client:
        answer: Management | None = reconnect.through(lambda: client.call("management.change", wanted))
    if answer is not None and answer.pending is None:
        session.done(answer, lambda: "nothing to change: the management network has these settings already")
        return
    addresses = tuple(one for one in (wanted.address, wanted.address6) if isinstance(one, str))
    made = reconnect.confirm(session, addresses, wanted.confirm_within)
    session.done(made, lambda: "reached and confirmed: the new management network settings are permanent")


def asked(given: dict[str, Any], within: int) -> ManagementChange:
    """The settings as the options say; without a trial if they cannot cut the host off. Pure."""
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
    """Confirm the new settings: this command has reached the host with them."""
    kept: Management = act(session, "management.confirm")
    session.done(kept, lambda: "the new management network settings are permanent")


@network.command("undo", cls=ChangingCommand)
@click.pass_obj
def undo(session: CliSession) -> None:
    """Undo the new settings at once."""
    back = reconnect.through(lambda: act(session, "management.undo"))
    if back is not None:
        session.done(back, lambda: "the management network has its old settings")
    else:
        session.say("the new settings are undone; the host answers at its old address")
