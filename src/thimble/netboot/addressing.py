"""Where neighbours are served, the blockers, and what it would do in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from thimble.contract.netboot import Mode, ServeBoot
from thimble.core.problem import Code, Problem, Reason
from thimble.netboot import rules
from thimble.network.records import SwitchRecord
from thimble.network.service import Network
from thimble.network.subnet import Subnet
from thimble.sys import link

#: Every link there is, by name.
Links = Callable[[], Awaitable[dict[str, link.Link]]]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Where it is served: a bridge, this host's address there, and whether that is made for this."""

    switch: str
    bridge: str
    address: str
    net: Subnet
    made: bool

    @property
    def cidr(self) -> str:
        """The address with its prefix."""
        return f"{self.address}/{self.net.prefix}"


async def find(
    network: Network, wanted: ServeBoot, record: SwitchRecord, before: str, look: Links
) -> tuple[Serving | None, list[Reason]]:
    """Where it would serve, or the blockers. `before`: the subnet chosen for this switch before.

    Raises `Problem` IN_USE when no subnet is free, FAILED when the links cannot be listed.
    """
    switch, bridge = wanted.switch, record.bridge
    assigned = network.assigned.get(switch, "")
    links = await look()
    has = [text for text in (links[bridge].addresses if bridge in links else ()) if text != assigned]
    found = next((one for text in has if (one := rules.subnet_of(text))), None)
    if found is not None:
        address, net = found
        given = rules.subnet_of(wanted.subnet)
        if given is not None and given[1] != net:
            message = f"this host is {address} in {net} on that switch: leave subnet out"
            return None, [Reason(message=message, path="$.subnet")]
        return Serving(switch=switch, bridge=bridge, address=address, net=net, made=False), []
    if record.adopted:
        message = f"this host has no address on the switch {switch}: give it one"
        return None, [Reason(message=message, code=Code.CONFLICT, path="$.switch")]
    given = rules.subnet_of(wanted.subnet or before)
    if given is None:
        net = network.free_subnet()
        given = net.gateway, net
    address, net = given
    if str(net) != rules.assigned_subnet(assigned) and wanted.subnet:
        from thimble.network.rules import subnet_reasons

        if blockers := subnet_reasons(str(net), await network.facts()):
            return None, blockers
    return Serving(switch=switch, bridge=bridge, address=address, net=net, made=True), []


def words(wanted: ServeBoot, serving: Serving) -> list[str]:
    """What serving does, for a dry run."""
    lines = []
    if serving.made:
        lines.append(f"gives this host the address {serving.address} on the switch {serving.switch}")
    if wanted.mode is Mode.DHCP:
        lines.append(f"gives addresses of {serving.net} on the switch {serving.switch}")
    else:
        lines.append(f"tells machines on the switch {serving.switch} what to boot, beside their DHCP server")
    names = sorted({*wanted.allow, *(document.match for document in wanted.documents)} - {rules.ANY})
    who = "any machine" if rules.ANY in wanted.allow else ", ".join(names)
    return [*lines, f"boots {who} with this host's image"]


def document_reasons(wanted: ServeBoot) -> list[Reason]:
    """Documents are read as the first neighbour would get them."""
    from thimble.document.read import read

    found: list[Reason] = []
    sample = {"n": "1", "mac": "52:54:00:00:00:01", "serial": "1", "server": "192.0.2.1"}
    for number, document in enumerate(wanted.documents):
        try:
            read(rules.filled(document.text, sample))
        except Problem as problem:
            reasons = problem.reasons or (Reason(message=problem.detail),)
            found += [
                msgspec.structs.replace(
                    reason,
                    path=f"$.documents[{number}].text",
                    message=f"document for {document.match}: "
                    + (f"{reason.line}:{reason.column}: " if reason.line else "")
                    + reason.message,
                )
                for reason in reasons
            ]
    return found
