"""The texts that nftables and dnsmasq are driven with. Pure; tested against golden files.

The rule set is one table, replaced as a whole in one transaction; other tables are never looked at. It begins
with a digest of itself as a comment, by which a later agent sees whether it still stands.
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from thimble.contract.network import Protocol
from thimble.network.records import PortUse
from thimble.network.subnet import Subnet

_MARK = "thimble rules "


class Nat(msgspec.Struct, frozen=True):
    """A NAT switch in the rules."""

    bridge: str
    subnet: Subnet


class Dnat(msgspec.Struct, frozen=True):
    """A forward with its target resolved."""

    bridge: str
    protocol: Protocol
    port: int
    address: str
    to_port: int


def rules(table: str, nats: tuple[Nat, ...], closed: tuple[str, ...], dnats: tuple[Dnat, ...]) -> str:
    """The file for `nft -f -`; empty when there is nothing to say. `closed`: bridges nothing is routed to."""
    if not nats and not closed:
        return ""
    body = "\n".join(
        (
            *_chain("guard", "filter hook prerouting priority raw", _guard(nats)),
            *_chain("host", "filter hook input priority filter", _to_host(nats, closed)),
            *_chain("incoming", "nat hook prerouting priority dstnat", [_forward(dnat) for dnat in dnats]),
            *_chain("local", "nat hook output priority -100", [_forward(dnat) for dnat in dnats]),
            *_chain("outgoing", "nat hook postrouting priority srcnat", _masquerade(nats)),
            *_chain("forward", "filter hook forward priority filter", _filter(nats, closed)),
        )
    )
    head = f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n"
    return f'{head}\tcomment "{_MARK}{crc32(body.encode()):08x}"\n{body}\n}}\n'


def rules_digest(text: str) -> str:
    """The digest in a rule set, rendered or as `nft list table` shows it; empty when there is none."""
    _, found, rest = text.partition(_MARK)
    return rest[:8] if found else ""


def _chain(name: str, kind: str, lines: list[str]) -> list[str]:
    return [
        f"\tchain {name} {{",
        f"\t\ttype {kind}; policy accept;",
        *(f"\t\t{line}" for line in lines),
        "\t}",
    ]


def _guard(nats: tuple[Nat, ...]) -> list[str]:
    # forwards from 127.0.0.1 need route_localnet on the bridge; guests must not reach the loopback by it
    return [f'iifname "{nat.bridge}" ip daddr 127.0.0.0/8 drop' for nat in nats]


def _to_host(nats: tuple[Nat, ...], closed: tuple[str, ...]) -> list[str]:
    """Guests get addresses, names and a ping from the host, and are answered; its API is not for them."""
    lines = ["ct state established,related accept"]
    for nat in nats:
        lines += [
            f'iifname "{nat.bridge}" udp dport {{ 53, 67 }} accept',
            f'iifname "{nat.bridge}" tcp dport 53 accept',
            f'iifname "{nat.bridge}" icmp type echo-request accept',
            f'iifname "{nat.bridge}" reject',
        ]
    return [*lines, *(f'iifname "{bridge}" drop' for bridge in closed)]


def _forward(dnat: Dnat) -> str:
    return f"fib daddr type local {dnat.protocol} dport {dnat.port} dnat ip to {dnat.address}:{dnat.to_port}"


def _masquerade(nats: tuple[Nat, ...]) -> list[str]:
    lines = []
    for nat in nats:
        lines += [
            f'ip saddr {nat.subnet} oifname != "{nat.bridge}" masquerade',
            f'ip saddr {{ {nat.subnet}, 127.0.0.0/8 }} oifname "{nat.bridge}" ct status dnat masquerade',
        ]
    return lines


def _filter(nats: tuple[Nat, ...], closed: tuple[str, ...]) -> list[str]:
    lines = ["ct state established,related accept"]
    for bridge in (*(nat.bridge for nat in nats), *closed):
        lines.append(f'iifname "{bridge}" oifname "{bridge}" accept')
    for nat in nats:
        lines += [
            f'oifname "{nat.bridge}" ct status dnat accept',
            f'oifname "{nat.bridge}" drop',
            f'iifname "{nat.bridge}" ip saddr != {nat.subnet} drop',
        ]
    for bridge in closed:
        lines += [f'iifname "{bridge}" drop', f'oifname "{bridge}" drop']
    return lines


class DhcpPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one dnsmasq is driven with. A change of `config` restarts it, one of the rest does not."""

    switch: str
    bridge: str
    config: str
    hosts: str
    names: str


def dhcp(
    switch: str,
    nat: Nat,
    hosts: tuple[PortUse, ...],
    *,
    directory: str,
    domain: str,
    account: tuple[str, str],
) -> DhcpPlan:
    """`directory`: where its files are; `account`: user and group it runs as."""
    return DhcpPlan(
        switch=switch,
        bridge=nat.bridge,
        config=_config(nat, directory, domain, account),
        hosts="".join(f"{host.mac},{host.ip},{label(host.vm_name)}\n" for host in hosts),
        names="".join(f"{host.ip} {label(host.vm_name)}.{domain} {label(host.vm_name)}\n" for host in hosts),
    )


def _config(nat: Nat, directory: str, domain: str, account: tuple[str, str]) -> str:
    first, last = nat.subnet.dynamic
    return f"""\
# Written by Thimble at every start; changes are lost.
user={account[0]}
group={account[1]}
pid-file={directory}/pid
log-facility=-
quiet-dhcp
interface={nat.bridge}
except-interface=lo
bind-interfaces
no-hosts
addn-hosts={directory}/names
domain={domain}
local=/{domain}/
domain-needed
bogus-priv
resolv-file=/etc/resolv.conf
cache-size=1000
dhcp-range={first},{last},{nat.subnet.netmask},1h
dhcp-option=option:router,{nat.subnet.gateway}
dhcp-option=option:dns-server,{nat.subnet.gateway}
dhcp-hostsfile={directory}/hosts
dhcp-leasefile={directory}/leases
dhcp-ignore-names=tag:!known
dhcp-authoritative
dhcp-rapid-commit
"""


def label(name: str) -> str:
    """A host name label for a VM's name: dots and underscores become hyphens."""
    return name.lower().replace(".", "-").replace("_", "-").strip("-")
