"""From what is wanted and what is, to the effects that remain. Pure.

Property: applying the effects and planning again yields none. Bridges carry an alias that says whose they
are; only those are ever removed. An adopted bridge is looked at, never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from thimble.contract.network import SwitchKind
from thimble.network import effects as do
from thimble.network import render, rules, subnet
from thimble.network.records import PortUse, SwitchRecord

if TYPE_CHECKING:
    from thimble.sys.link import Link


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all switches. `owner` marks our bridges; `run`: where dnsmasq's files go."""

    owner: str
    table: str
    run: str
    domain: str
    account: tuple[str, str]


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    switch: str
    name: str
    adopted: bool = False
    address: str = ""  # with prefix
    uplink: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    owner: str
    bridges: tuple[Bridge, ...] = ()
    rules: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()  # below /proc/sys, and the value
    dhcp: tuple[render.DhcpPlan, ...] = ()


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """`rules`: the digest of the rules that stand; `dhcp`: what each running dnsmasq was told, by bridge."""

    links: dict[str, Link] = {}
    rules: str = ""
    sysctls: dict[str, str] = {}
    dhcp: dict[str, render.DhcpPlan] = {}


def wanted(
    switches: dict[str, SwitchRecord],
    hosts: tuple[PortUse, ...],
    settings: Settings,
    conflicts: frozenset[str] = frozenset(),
    assigned: dict[str, str] | None = None,
) -> Wanted:
    """Everything that the switches and the VMs on them ask of the host.

    `assigned`: addresses of this host on switches that have none of their own.
    A NAT switch in `conflicts` gets its bridge, but no address: the host would lose its own way there.
    """
    bridges, nats, closed, dnats, dhcp = [], [], [], [], []
    sysctls: list[tuple[str, str]] = []
    for name, record in sorted(switches.items()):
        own_subnet = record.kind is SwitchKind.NAT and name not in conflicts
        net = subnet.parse(record.subnet) if own_subnet else None
        bridges.append(
            Bridge(
                switch=name,
                name=record.bridge,
                adopted=record.adopted,
                address=net.cidr if net else (assigned or {}).get(name, ""),
                uplink=record.uplink if not record.adopted else "",
            )
        )
        if record.kind is SwitchKind.ISOLATED:
            closed.append(record.bridge)
        if net is None:
            continue
        nat = render.Nat(record.bridge, net)
        mine = tuple(sorted(host_list(name, net, hosts), key=lambda host: (host.vm_id, host.nic)))
        nats.append(nat)
        targets = _dnats(name, record, mine)
        dnats += targets
        if targets:
            sysctls.append((f"net/ipv4/conf/{record.bridge}/route_localnet", "1"))
        if mine:  # nobody to serve: no dnsmasq
            where = f"{settings.run}/{record.bridge}"
            dhcp.append(
                render.dhcp(
                    name, nat, mine, directory=where, domain=settings.domain, account=settings.account
                )
            )
    if nats:
        sysctls.insert(0, ("net/ipv4/ip_forward", "1"))
    return Wanted(
        owner=settings.owner,
        bridges=tuple(bridges),
        rules=render.rules(settings.table, tuple(nats), tuple(closed), tuple(dnats)),
        sysctls=tuple(sysctls),
        dhcp=tuple(dhcp),
    )


def host_list(switch: str, net: subnet.Subnet, hosts: tuple[PortUse, ...]) -> list[PortUse]:
    """The VMs' NICs with an address on `switch`."""
    return [host for host in hosts if host.switch == switch and net.holds(host.ip)]


def _dnats(switch: str, record: SwitchRecord, hosts: tuple[PortUse, ...]) -> list[render.Dnat]:
    found = []
    for forward in record.forwards:
        address = rules.target(forward, switch, hosts)
        if address is not None:
            found.append(render.Dnat(record.bridge, forward.protocol, forward.port, address, forward.to_port))
    return found


def plan(want: Wanted, actual: Actual) -> tuple[do.Effect, ...]:
    """What has to be done, in this order."""
    effects: list[do.Effect] = []
    names = {bridge.name for bridge in want.bridges}
    running = {dhcp.bridge for dhcp in want.dhcp}
    effects += [do.StopDhcp(bridge) for bridge in sorted(actual.dhcp) if bridge not in running]
    effects += [
        do.RemoveBridge("", name)
        for name, link in sorted(actual.links.items())
        if link.kind == "bridge" and link.alias == want.owner and name not in names
    ]
    for bridge in want.bridges:
        if not bridge.adopted:
            effects += _bridge(bridge, want.owner, actual.links)
    effects += [do.SetSysctl(key, value) for key, value in want.sysctls if actual.sysctls.get(key) != value]
    if render.rules_digest(want.rules) != actual.rules:
        effects.append(do.LoadRules(want.rules) if want.rules else do.DropRules())
    for dhcp in want.dhcp:
        told = actual.dhcp.get(dhcp.bridge)
        if told is None or told.config != dhcp.config:
            effects.append(do.StartDhcp(dhcp))
        elif told != dhcp:
            effects.append(do.TellDhcp(dhcp))
    return tuple(effects)


def _bridge(bridge: Bridge, owner: str, links: dict[str, Link]) -> list[do.Effect]:
    link = links.get(bridge.name)
    effects: list[do.Effect] = []
    if link is None:
        effects.append(do.MakeBridge(bridge.switch, bridge.name, owner))
    elif link.alias != owner:
        effects.append(do.Claim(bridge.switch, bridge.name, owner))
    has = link.addresses if link else ()
    if bridge.address and bridge.address not in has:
        effects.append(do.SetAddress(bridge.switch, bridge.name, bridge.address))
    effects += [
        do.DropAddress(bridge.switch, bridge.name, address) for address in has if address != bridge.address
    ]
    nic = links.get(bridge.uplink)
    if bridge.uplink and (nic is None or nic.master != bridge.name or not nic.up):
        effects.append(do.JoinUplink(bridge.switch, bridge.name, bridge.uplink))
    if link is None or not link.up:
        effects.append(do.SetUp(bridge.switch, bridge.name))
    return effects
