"""Who is served, under which number and with which document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from thimble.contract.netboot import DocumentFor, Mode, ServeBoot
from thimble.contract.network import SwitchKind
from thimble.core.ids import is_mac
from thimble.core.problem import Code, Reason
from thimble.network import subnet

ANY = "any"
SERIAL = "serial:"
#: Documents are as large as `document` takes them.
TEXT_MAX = 1 << 20
_FIELD = re.compile(r"\{\{\s*(\w+)\s*\}\}")
FIELDS = ("n", "mac", "serial", "server")


def match_reasons(match: str, path: str) -> list[Reason]:
    if match == ANY or is_mac(match) or (match.startswith(SERIAL) and len(match) > len(SERIAL)):
        return []
    return [
        Reason(
            message=f"{match!r} is neither a MAC such as 52:54:00:12:34:56, nor serial:NUMBER, nor any",
            path=path,
        )
    ]


def reasons(wanted: ServeBoot, kinds: dict[str, SwitchKind]) -> list[Reason]:
    """What is wrong with the settings themselves. `kinds`: the switches there are."""
    found: list[Reason] = []
    kind = kinds.get(wanted.switch)
    if kind is None:
        message = f"there is no switch {wanted.switch!r}"
        found.append(Reason(message=message, code=Code.NOT_FOUND, path="$.switch"))
    elif kind is SwitchKind.NAT:
        message = "a NAT switch has no wire to neighbours: take a bridged or an isolated one"
        found.append(Reason(message=message, path="$.switch"))
    place = subnet_of(wanted.subnet)
    if wanted.subnet and place is None:
        message = f"{wanted.subnet!r} is neither a subnet such as 10.9.0.0/24 nor an address in one"
        found.append(Reason(message=message, path="$.subnet"))
    elif place is not None and wanted.mode is Mode.PROXY and subnet.parse(wanted.subnet) == place[1]:
        message = (
            "with another DHCP server there, say which address this host is to have: such as 10.9.0.2/24"
        )
        found.append(Reason(message=message, path="$.subnet"))
    for number, match in enumerate(wanted.allow):
        found += match_reasons(match, f"$.allow[{number}]")
    seen: set[str] = set()
    for number, document in enumerate(wanted.documents):
        path = f"$.documents[{number}]"
        found += match_reasons(document.match, f"{path}.match")
        if document.match.lower() in seen:
            found.append(Reason(message=f"{document.match} has two documents", path=f"{path}.match"))
        seen.add(document.match.lower())
        if len(document.text) > TEXT_MAX:
            found.append(Reason(message=f"a document has at most {TEXT_MAX >> 10} KiB", path=f"{path}.text"))
        for field in sorted({name for name in _FIELD.findall(document.text) if name not in FIELDS}):
            known = ", ".join("{{" + name + "}}" for name in FIELDS)
            found.append(Reason(message=f"{{{{{field}}}}} is not known: {known} are", path=f"{path}.text"))
    if not wanted.allow and all(document.match == ANY for document in wanted.documents):
        message = "nobody would be served: name MACs, serial numbers or `any`"
        found.append(Reason(message=message, path="$.allow"))
    return found


def allowed(wanted: ServeBoot, mac: str, serial: str) -> bool:
    """Is this machine served? Those with a document of their own are."""
    names = {match.lower() for match in wanted.allow}
    names |= {document.match.lower() for document in wanted.documents if document.match != ANY}
    return not names.isdisjoint({ANY, mac.lower()} | ({f"{SERIAL}{serial.lower()}"} if serial else set()))


def addresses_for(wanted: ServeBoot) -> tuple[str, ...]:
    """The MACs DHCP answers alone; none when it cannot know: serial numbers come only later, with HTTP."""
    names = [*wanted.allow, *(document.match for document in wanted.documents if document.match != ANY)]
    return tuple(sorted({name.lower() for name in names})) if all(map(is_mac, names)) else ()


def document_for(wanted: ServeBoot, mac: str, serial: str) -> DocumentFor | None:
    """The one of this machine: by its MAC, else by its serial number, else the one for any."""
    by_match = {document.match.lower(): document for document in wanted.documents}
    names = [mac.lower(), f"{SERIAL}{serial.lower()}" if serial else "", ANY]
    return next((by_match[name] for name in names if name in by_match), None)


def filled(text: str, values: dict[str, str]) -> str:
    """The template with `values` in the places of `{{name}}`."""
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), text)


def next_number(taken: Iterable[int]) -> int:
    """The lowest that is free, from 1."""
    used = set(taken)
    return next(number for number in range(1, len(used) + 2) if number not in used)


def serial(text: str) -> str:
    """As firmware has it, without what nobody prints; at most 64 characters."""
    kept = "".join(letter for letter in text.strip() if letter.isascii() and letter.isprintable())
    return kept[:64]


def subnet_of(cidr: str) -> tuple[str, subnet.Subnet] | None:
    """An address with prefix as (address, its subnet); a subnet with its first address."""
    address, _, prefix = cidr.partition("/")
    number = subnet.number_of(address)
    if number is None or not prefix.isdecimal() or not 1 <= int(prefix) <= 30:
        return None
    size = 1 << (32 - int(prefix))
    net = subnet.Subnet(number - number % size, int(prefix))
    return (net.gateway if number == net.base else address), net


def assigned_subnet(cidr: str) -> str:
    """The subnet of an address that was put on a switch for this; empty for none."""
    found = subnet_of(cidr)
    return str(found[1]) if found else ""
