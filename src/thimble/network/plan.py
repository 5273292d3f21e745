"""From what is wanted and what is, to the effects that remain. Pure.

Property: applying the effects and planning again yields none. Bridges carry an alias that says whose they
are; only those are ever removed. An adopted bridge is looked at, never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import msgspec

from thimble.contract.network import SwitchKind
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


class MakeBridge(msgspec.Struct, frozen=True):
    switch: str
    bridge: str
    owner: str

    def describe(self) -> str:
        return f"makes the bridge {self.bridge} for the switch {self.switch}"

    def lines(self) -> list[str]:
        # an own, stable MAC: without one a bridge takes the lowest of its ports', which come and go
        mac = f"52:54:{crc32(self.bridge.encode()):08x}"
        mac = ":".join((mac[:5], mac[6:8], mac[8:10], mac[10:12], mac[12:14]))
        return [
            f"link add name {self.bridge} address {mac} type bridge forward_delay 0 stp_state 0",
            *Claim(self.switch, self.bridge, self.owner).lines(),
        ]


class Claim(msgspec.Struct, frozen=True):
    """Say that a bridge is ours; alone only after a crash between making and saying so."""

    switch: str
    bridge: str
    owner: str

    def describe(self) -> str:
        return f"marks the bridge {self.bridge} as ours"

    def lines(self) -> list[str]:
        return [f"link set dev {self.bridge} alias {self.owner} addrgenmode none"]


class SetAddress(msgspec.Struct, frozen=True):
    switch: str
    bridge: str
    address: str

    def describe(self) -> str:
        return f"gives {self.bridge} the address {self.address}"

    def lines(self) -> list[str]:
        return [f"address replace {self.address} brd + dev {self.bridge}"]


class DropAddress(msgspec.Struct, frozen=True):
    switch: str
    bridge: str
    address: str

    def describe(self) -> str:
        return f"takes the address {self.address} from {self.bridge}"

    def lines(self) -> list[str]:
        return [f"address delete {self.address} dev {self.bridge}"]


class JoinUplink(msgspec.Struct, frozen=True):
    switch: str
    bridge: str
    nic: str

    def describe(self) -> str:
        return f"puts {self.nic} into {self.bridge}"

    def lines(self) -> list[str]:
        return [f"link set dev {self.nic} master {self.bridge} up"]


class SetUp(msgspec.Struct, frozen=True):
    switch: str
    bridge: str

    def describe(self) -> str:
        return f"switches {self.bridge} on"

    def lines(self) -> list[str]:
        return [f"link set dev {self.bridge} up"]


class RemoveBridge(msgspec.Struct, frozen=True):
    switch: str
    bridge: str

    def describe(self) -> str:
        return f"removes the bridge {self.bridge}"

    def lines(self) -> list[str]:
        return [f"link delete dev {self.bridge}"]


class SetSysctl(msgspec.Struct, frozen=True):
    key: str
    value: str

    def describe(self) -> str:
        return f"sets {self.key.replace('/', '.')} to {self.value}"


class LoadRules(msgspec.Struct, frozen=True):
    text: str

    def describe(self) -> str:
        return f"loads {self.text.count(' dnat ip to ') // 2} forwards and address translation"


class DropRules(msgspec.Struct, frozen=True):
    def describe(self) -> str:
        return "removes the packet rules"


class StopDhcp(msgspec.Struct, frozen=True):
    bridge: str

    def describe(self) -> str:
        return f"stops DHCP and DNS on {self.bridge}"


class StartDhcp(msgspec.Struct, frozen=True):
    plan: render.DhcpPlan

    def describe(self) -> str:
        return f"starts DHCP and DNS on {self.plan.bridge}"


class TellDhcp(msgspec.Struct, frozen=True):
    plan: render.DhcpPlan

    def describe(self) -> str:
        return f"tells DHCP on {self.plan.bridge} of {self.plan.hosts.count(chr(10))} VMs"


LinkEffect: TypeAlias = MakeBridge | Claim | SetAddress | DropAddress | JoinUplink | SetUp | RemoveBridge
Effect: TypeAlias = LinkEffect | SetSysctl | LoadRules | DropRules | StopDhcp | StartDhcp | TellDhcp


def wanted(
    switches: dict[str, SwitchRecord],
    hosts: tuple[PortUse, ...],
    settings: Settings,
    conflicts: frozenset[str] = frozenset(),
    lent: dict[str, str] | None = None,
) -> Wanted:
    """Everything that the switches and the VMs on them ask of the host.

    `lent`: addresses of this host on switches that have none of their own.
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
                address=net.cidr if net else (lent or {}).get(name, ""),
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


def plan(want: Wanted, actual: Actual) -> tuple[Effect, ...]:
    """What has to be done, in this order."""
    effects: list[Effect] = []
    names = {bridge.name for bridge in want.bridges}
    running = {dhcp.bridge for dhcp in want.dhcp}
    effects += [StopDhcp(bridge) for bridge in sorted(actual.dhcp) if bridge not in running]
    effects += [
        RemoveBridge("", name)
        for name, link in sorted(actual.links.items())
        if link.kind == "bridge" and link.alias == want.owner and name not in names
    ]
    for bridge in want.bridges:
        if not bridge.adopted:
            effects += _bridge(bridge, want.owner, actual.links)
    effects += [SetSysctl(key, value) for key, value in want.sysctls if actual.sysctls.get(key) != value]
    if render.rules_digest(want.rules) != actual.rules:
        effects.append(LoadRules(want.rules) if want.rules else DropRules())
    for dhcp in want.dhcp:
        told = actual.dhcp.get(dhcp.bridge)
        if told is None or told.config != dhcp.config:
            effects.append(StartDhcp(dhcp))
        elif told != dhcp:
            effects.append(TellDhcp(dhcp))
    return tuple(effects)


def _bridge(bridge: Bridge, owner: str, links: dict[str, Link]) -> list[Effect]:
    link = links.get(bridge.name)
    effects: list[Effect] = []
    if link is None:
        effects.append(MakeBridge(bridge.switch, bridge.name, owner))
    elif link.alias != owner:
        effects.append(Claim(bridge.switch, bridge.name, owner))
    has = link.addresses if link else ()
    if bridge.address and bridge.address not in has:
        effects.append(SetAddress(bridge.switch, bridge.name, bridge.address))
    effects += [
        DropAddress(bridge.switch, bridge.name, address) for address in has if address != bridge.address
    ]
    nic = links.get(bridge.uplink)
    if bridge.uplink and (nic is None or nic.master != bridge.name or not nic.up):
        effects.append(JoinUplink(bridge.switch, bridge.name, bridge.uplink))
    if link is None or not link.up:
        effects.append(SetUp(bridge.switch, bridge.name))
    return effects
