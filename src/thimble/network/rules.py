"""What switches and port forwards are acceptable. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from thimble.contract.network import Forward, Protocol, SwitchCreate, SwitchKind
from thimble.core.ids import name_reasons
from thimble.core.problem import Code, Reason
from thimble.network import subnet
from thimble.network.records import PortUse, SwitchRecord

if TYPE_CHECKING:
    from thimble.sys.link import Link

_PRIVATE = tuple(
    found
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15")
    if (found := subnet.parse(text))
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks need to know of the host and of the other switches."""

    switches: dict[str, SwitchRecord] = {}
    links: dict[str, Link] = {}
    routes: tuple[subnet.Subnet, ...] = ()
    default_route: tuple[str, ...] = ()  # links that lead out
    hosts: tuple[PortUse, ...] = ()
    listening: frozenset[tuple[Protocol, int]] = frozenset()


def create_reasons(request: SwitchCreate, facts: Facts | None) -> list[Reason]:
    """Every blocker of a new switch. Without `facts`: what is wrong with it on any host."""
    found = name_reasons(request.name, "$.name")
    if facts is not None and request.name in facts.switches:
        found.append(
            Reason(message=f"there is a switch {request.name} already", code=Code.EXISTS, path="$.name")
        )
    for field, kind, given in (
        ("subnet", SwitchKind.NAT, request.subnet),
        ("forwards", SwitchKind.NAT, request.forwards),
        ("uplink", SwitchKind.BRIDGED, request.uplink),
    ):
        if given and request.kind is not kind:
            found.append(Reason(message=f"{field} goes with kind {kind}", path=f"$.{field}"))
    if request.kind is SwitchKind.NAT and request.subnet:
        found += subnet_reasons(request.subnet, facts)
    if request.kind is SwitchKind.BRIDGED:
        found += uplink_reasons(request.uplink, facts)
    if request.kind is SwitchKind.NAT and facts is not None:
        found += forward_reasons(request.name, request.forwards, facts)
    return found


def subnet_reasons(text: str, facts: Facts | None) -> list[Reason]:
    wanted = subnet.parse(text)
    if wanted is None:
        return [Reason(message=f"{text!r} is no subnet such as 192.168.77.0/24", path="$.subnet")]
    if not subnet.PREFIX_MIN <= wanted.prefix <= subnet.PREFIX_MAX:
        message = f"a subnet has a prefix of {subnet.PREFIX_MIN} to {subnet.PREFIX_MAX} bits"
        return [Reason(message=message, path="$.subnet")]
    found = []
    if not any(wanted.overlaps(private) and wanted.prefix >= private.prefix for private in _PRIVATE):
        found.append(Reason(message=f"{text} is not private address space", path="$.subnet"))
    return found + (_overlaps(text, wanted, facts) if facts is not None else [])


def _overlaps(text: str, wanted: subnet.Subnet, facts: Facts) -> list[Reason]:
    found = []
    for name, other in facts.switches.items():
        theirs = subnet.parse(other.subnet)
        if theirs is not None and theirs.overlaps(wanted):
            found.append(
                Reason(message=f"{text} overlaps with the switch {name}", code=Code.IN_USE, path="$.subnet")
            )
    for route in facts.routes:
        if route.prefix and route.overlaps(wanted):
            found.append(
                Reason(
                    message=f"{text} overlaps with the host's route to {route}",
                    code=Code.IN_USE,
                    path="$.subnet",
                )
            )
    return found


def conflict(text: str, bridge: str, routes: list[tuple[str, subnet.Subnet]]) -> str:
    """The link by which the host reaches (a part of) the subnet `text` already; empty if there is none.

    Routes that hold the whole subnet and more are fine: ours is the more specific one.
    """
    wanted = subnet.parse(text)
    if wanted is None:
        return ""
    for name, route in routes:
        if name != bridge and route.overlaps(wanted) and route.prefix >= wanted.prefix:
            return name
    return ""


def uplink_reasons(uplink: str, facts: Facts | None) -> list[Reason]:
    """A bridge may be joined; a NIC only when nothing of the host depends on it."""

    def no(message: str, code: Code = Code.CONFLICT) -> list[Reason]:
        return [Reason(message=message, code=code, path="$.uplink")]

    if not uplink:
        return no("kind bridged needs uplink: a NIC or a bridge of the host", Code.INVALID)
    if facts is None:
        return []
    link = facts.links.get(uplink)
    if link is None:
        return no(f"the host has no link {uplink!r}", Code.NOT_FOUND)
    user = next((n for n, r in facts.switches.items() if uplink in (r.uplink, r.bridge)), "")
    if user:
        return no(f"{uplink} belongs to the switch {user}", Code.IN_USE)
    if link.kind == "bridge":
        return []
    if not link.ether or link.kind == "tun":
        return no(f"{uplink} is no Ethernet device", Code.INVALID)
    if link.master:
        return no(f"{uplink} is a port of {link.master}; name that bridge instead", Code.IN_USE)
    if link.addresses or uplink in facts.default_route:
        return no(
            f"{uplink} carries the host's own address: the host would be cut off. Make a bridge over it"
            f" in the host's network settings and name that bridge"
        )
    return []


def forward_reasons(switch: str, forwards: tuple[Forward, ...], facts: Facts) -> list[Reason]:
    """Ports taken twice, by other switches or by the host itself; targets that are not there."""
    found: list[Reason] = []
    seen: dict[tuple[Protocol, int], str] = {}
    own: set[tuple[Protocol, int]] = set()
    for name, record in facts.switches.items():
        for forward in record.forwards:
            key = (forward.protocol, forward.port)
            if name == switch:
                own.add(key)
            else:
                seen[key] = f"forwarded by the switch {name}"
    for number, forward in enumerate(forwards):
        path = f"$.forwards[{number}]"
        key = (forward.protocol, forward.port)
        if key in seen:
            message = f"{forward.protocol} port {forward.port} is {seen[key]}"
            found.append(Reason(message=message, code=Code.IN_USE, path=f"{path}.port"))
        elif key in facts.listening and key not in own:
            message = f"{forward.protocol} port {forward.port} is used by the host itself"
            found.append(Reason(message=message, code=Code.IN_USE, path=f"{path}.port"))
        seen[key] = "named twice"
        if target(forward, switch, facts.hosts) is None:
            message = f"no VM {forward.vm!r} has an address on the switch {switch}"
            found.append(Reason(message=message, code=Code.NOT_FOUND, path=f"{path}.vm"))
    return found


def target(forward: Forward, switch: str, hosts: tuple[PortUse, ...]) -> str | None:
    """The address a forward leads to; None while its VM is not there."""
    for host in hosts:
        if host.switch == switch and host.ip and forward.vm in (host.vm_id, host.vm_name):
            return host.ip
    return None


def mac_reasons(mac: str, hosts: tuple[PortUse, ...], vm: str, path: str) -> list[Reason]:
    """Whose the address `mac` is already, unless it is `vm`'s own."""
    for host in hosts:
        if host.mac.lower() == mac.lower() and host.vm_id != vm:
            return [Reason(message=f"{mac} is that of {host.vm_name}", code=Code.IN_USE, path=path)]
    return []
