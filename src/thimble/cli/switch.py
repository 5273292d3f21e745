"""`thimble net …`: virtual switches."""

from __future__ import annotations

import secrets

import click

from thimble.cli.command import ChangingCommand, HostCommand, act, choice
from thimble.cli.session import CliSession
from thimble.cli.standard import add_delete, add_list
from thimble.cli.tables import Column, facts, table
from thimble.cli.vm_parse import forward as parse_forward
from thimble.contract.network import Forward, Switch, SwitchChange, SwitchCreate, SwitchKind, SwitchList
from thimble.core.problem import Code, Problem

COLUMNS = (
    Column("name", least=10),
    Column("kind"),
    Column("up"),
    Column("subnet or uplink", least=18),
    Column("ports", right=True),
    Column("forwards", right=True),
    Column("note", least=8),
)


@click.group(help="Virtual switches.")
def net() -> None:
    """The group."""


def listing(switches: SwitchList, *, width: int | None) -> str:
    """One row each. Pure."""
    rows = [
        (
            one.name, str(one.kind), "yes" if one.up else "no", one.subnet or one.uplink, str(len(one.ports)),
            str(len(one.forwards)), "" if one.up else one.why,
        )
        for one in switches.switches
    ]  # fmt: skip
    return table(COLUMNS, rows, width=width) if rows else "no switches"


def arrow(one: Forward) -> str:
    """`2222/tcp → web1:22`. Pure."""
    return f"{one.port}/{one.protocol} → {one.vm}:{one.to_port}"


def details(one: Switch) -> str:
    """Everything about one switch. Pure."""
    leases = [f"{lease.ip} {lease.mac} {lease.vm or lease.hostname}".rstrip() for lease in one.leases]
    return facts(
        [
            ("name", f"{one.name}, revision {one.rev}"),
            ("kind", str(one.kind)),
            ("up", "yes" if one.up else f"no: {one.why}"),
            ("bridge", one.bridge),
            ("uplink", one.uplink),
            ("subnet", one.subnet),
            ("gateway", one.gateway),
            ("ports", "\n".join(one.ports)),
            ("forwards", "\n".join(map(arrow, one.forwards))),
            ("leases", "\n".join(leases)),
        ]
    )


add_list(net, "switch.list", "List switches.", listing)


@net.command("show", cls=HostCommand)
@click.argument("name")
@click.pass_obj
def show_(session: CliSession, name: str) -> None:
    """Everything about one switch."""
    found: Switch = session.client.call("switch.get", path={"switch": name})
    session.emit(found, lambda: details(found))


@net.command("create", cls=ChangingCommand)
@click.argument("name")
@click.option("--kind", type=choice(SwitchKind), help="[bridged with --uplink, else nat]")
@click.option("--subnet", default="", metavar="CIDR", help="nat: such as 192.168.77.0/24.  [a free one]")
@click.option("--uplink", default="", metavar="NIC", help="bridged: a NIC or a bridge of the host.")
@click.option(
    "--forward", "forwards", multiple=True, metavar="PORT:VM:PORT/tcp", help="nat: such as 2222:web1:22/tcp."
)
@click.pass_obj
def create(
    session: CliSession, name: str, kind: str | None, subnet: str, uplink: str, forwards: tuple[str, ...]
) -> None:
    """Create a switch."""
    wanted = SwitchCreate(
        name=name,
        kind=SwitchKind(kind) if kind else SwitchKind.BRIDGED if uplink else SwitchKind.NAT,
        subnet=subnet,
        uplink=uplink,
        forwards=tuple(map(parse_forward, forwards)),
    )
    made: Switch = act(session, "switch.create", wanted, key=secrets.token_hex(16))
    where = made.subnet or made.uplink
    session.done(made, lambda: f"created {made.name} ({made.kind})" + (f" on {where}" if where else ""))


@net.command("change", cls=ChangingCommand)
@click.argument("name")
@click.option("--forward", "add", multiple=True, metavar="PORT:VM:PORT/tcp", help="Add this forward.")
@click.option("--unforward", "remove", multiple=True, metavar="PORT[/tcp]", help="Drop the one of this port.")
@click.pass_obj
def change(session: CliSession, name: str, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Change a switch's port forwards."""
    seen: Switch = session.client.call("switch.get", path={"switch": name})
    wanted = SwitchChange(forwards=forwarded(seen.forwards, add, remove))
    made: Switch = act(session, "switch.change", wanted, path={"switch": name}, if_match=seen.rev)
    session.done(made, lambda: f"{made.name} forwards " + (", ".join(map(arrow, made.forwards)) or "nothing"))


def forwarded(old: tuple[Forward, ...], add: tuple[str, ...], remove: tuple[str, ...]) -> tuple[Forward, ...]:
    """`old` with the changes. Pure; raises `Problem` NOT_FOUND when there is nothing to drop."""
    if not add and not remove:
        raise Problem(Code.INVALID, "nothing to change", hint="Use --forward or --unforward.")
    gone = {text if "/" in text else f"{text}/tcp" for text in remove}
    have = {f"{one.port}/{one.protocol}" for one in old}
    if unknown := gone - have:
        raise Problem(
            Code.NOT_FOUND,
            f"there is no forward of port {sorted(unknown)[0]}",
            hint=f"There is {', '.join(sorted(have)) or 'none'}.",
        )
    kept = [one for one in old if f"{one.port}/{one.protocol}" not in gone]
    return (*kept, *map(parse_forward, add))


add_delete(net, "switch", "Delete a switch no VM uses.")
