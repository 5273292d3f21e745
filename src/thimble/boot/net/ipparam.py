"""`ip=` of the kernel command line, as the kernel documents it (admin-guide/nfs/nfsroot.rst). Pure.

    ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0
    ip=dhcp  (on, any, both; also as AUTOCONF)      ip=off  (none: no addresses at all)

IPv6 addresses stand in brackets, NETMASK is then a prefix length: `ip=[2001:db8::7]::[2001:db8::1]:64`.
The parameter may be given twice, once per family. What is not given statically is configured by DHCP and
router advertisements, unless `ip=off` says otherwise.
"""

from __future__ import annotations

from .netaddr import is_v4, is_v6, prefix_of_netmask

_DHCP = ("dhcp", "on", "any", "both", "bootp", "rarp")
_OFF = ("off", "none")


class Static:
    """One static address: `address/prefix`, with what goes with it (empty when not given)."""

    __slots__ = ("address", "dns", "family", "gateway", "prefix")

    def __init__(self, family: int, address: str, prefix: int, gateway: str, dns: list[str]) -> None:
        self.family, self.address, self.prefix, self.gateway, self.dns = family, address, prefix, gateway, dns


class UplinkPlan:
    """How the management network gets its addresses.

    `given`: from the kernel command line. `stand_in`: if the named NIC is missing, another one is used.
    """

    __slots__ = (
        "device", "dhcp", "dns", "given", "hostname", "ntp", "source", "stand_in", "static", "vlan",
        "warnings",
    )  # fmt: skip

    def __init__(self) -> None:
        self.source, self.given, self.stand_in = "default", False, False
        self.vlan = 0
        self.dns: list[str] = []
        self.static: list[Static] = []
        self.dhcp: list[int] = [4, 6]
        self.device = ""
        self.hostname = ""
        self.ntp: list[str] = []
        self.warnings: list[str] = []


def plan(values: list[str]) -> UplinkPlan:
    """The plan of all `ip=` values of a command line; a wrong one is left out with a warning."""
    found = UplinkPlan()
    if values:
        found.source, found.given = "the kernel command line", True
    for value in values:
        problem = _apply(found, value)
        if problem:
            found.warnings.append(f"ip={value}: {problem}; ignored")
    found.dhcp = [family for family in found.dhcp if family not in [s.family for s in found.static]]
    return found


def split_fields(value: str) -> list[str]:
    """Fields between colons, those inside brackets kept whole and without the brackets."""
    fields, field, depth = [], "", 0
    for char in value:
        if char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        elif char == ":" and depth == 0:
            fields.append(field)
            field = ""
        else:
            field += char
    return [*fields, field]


def _apply(found: UplinkPlan, value: str) -> str:
    """Adds one value to the plan; returns what is wrong with it, or nothing."""
    fields = split_fields(value)
    if len(fields) == 1:
        return _autoconf(found, fields[0])
    if len(fields) == 2 and fields[1] in (*_DHCP, *_OFF):  # DEVICE:AUTOCONF, as other initrds understand it
        found.device = fields[0]
        return _autoconf(found, fields[1])
    client, _, gateway, netmask, hostname, device, autoconf, *servers = fields + [""] * (7 - len(fields))
    if len(servers) > 3:
        return "too many fields"
    if not client:
        problem = _autoconf(found, autoconf) if autoconf else ""
    else:
        problem = _static(found, client, gateway, netmask, [s for s in servers[:2] if s])
    if not problem:
        found.hostname = hostname or found.hostname
        found.device = device or found.device
        found.ntp += servers[2:3] if servers[2:3] != [""] else []
    return problem


def _autoconf(found: UplinkPlan, word: str) -> str:
    if word in _DHCP:
        return ""
    if word in _OFF:
        found.dhcp = []
        return ""
    return f"{word!r} is neither an address nor dhcp nor off"


def _static(found: UplinkPlan, client: str, gateway: str, netmask: str, dns: list[str]) -> str:
    family = 4 if is_v4(client) else 6 if is_v6(client) else 0
    if not family:
        return f"{client!r} is not an address (IPv6 needs brackets)"
    check = is_v4 if family == 4 else is_v6
    if gateway and not check(gateway):
        return f"gateway {gateway!r} is not an IPv{family} address"
    bad = [server for server in dns if not is_v4(server) and not is_v6(server)]
    if bad:
        return f"name server {bad[0]!r} is not an address"
    prefix = prefix_of_netmask(netmask, client)
    if prefix is None:
        return f"netmask {netmask!r} is wrong"
    found.static.append(Static(family, client, prefix, gateway, dns))
    return ""
