"""What settings of the management network and the log are acceptable, and what proves them good. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec
from msgspec import UNSET

from thimble.contract.management import ManagementChange, ManagementNet, ManagementSettings
from thimble.core.ids import mac_reasons
from thimble.core.problem import Code, Reason

_SYSLOG_PORT = 514
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


def management_reasons(settings: ManagementNet) -> list[Reason]:
    """Everything wrong with `settings`; the paths are those of its fields."""
    found: list[Reason] = []

    def no(field: str, message: str) -> None:
        found.append(Reason(message=message, path=f"$.{field}"))

    if settings.nic:
        found += mac_reasons(settings.nic, "$.nic")
    for version, address, gateway, auto in (
        (4, "address", "gateway", ("dhcp", "off")),
        (6, "address6", "gateway6", ("auto", "off")),
    ):
        value, way = getattr(settings, address), getattr(settings, gateway)
        if value not in auto and (why := _interface(value, version)):
            no(address, f"{why}; or write {' or '.join(auto)}")
        if way and value in auto:
            no(gateway, f"a gateway goes with a static {address}")
        elif way and (why := _gateway(way, value, version)):
            no(gateway, why)
    for number, server in enumerate(settings.dns):
        if not _address(server):
            no(f"dns[{number}]", f"{server!r} is no IP address")
    if settings.address == "off" and settings.address6 == "off":
        no("address6", "without any address nobody could reach the host")
    return found


def changed(old: ManagementSettings, wanted: ManagementChange) -> ManagementSettings:
    """The settings with what is asked of them."""
    asked = {
        field: value
        for field in ManagementSettings.__struct_fields__
        if (value := getattr(wanted, field)) is not UNSET
    }
    new = msgspec.structs.replace(old, **asked)
    return msgspec.structs.replace(new, nic=new.nic.lower())


def differences(old: ManagementSettings, new: ManagementSettings) -> list[str]:
    """What changes, in words."""
    found = []
    for field in ManagementSettings.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            shown = ", ".join(after) if isinstance(after, tuple) else str(after)
            found.append(f"sets {field} of the management network to {shown or 'nothing'}")
    return found


#: Less is no time to connect again.
CONFIRM_MIN_S = 10


def trial_reasons(seconds: int, *, decided: bool, nic: str, nics: Collection[str]) -> list[Reason]:
    """Why settings cannot be tried. `decided`: by `ip=` of the kernel command line, whatever we say."""
    found = []
    if seconds < CONFIRM_MIN_S:
        message = f"{seconds} s are too short to connect again: 0 for no confirmation, or 10 to 3600"
        found.append(Reason(message=message, path="$.confirm_within"))
    if decided:
        message = "`ip=` on the kernel command line decides: other settings would not be in force"
        found.append(Reason(message=message, code=Code.CONFLICT))
    if nic and nic not in nics:
        message = f"this host has no network card {nic}; it has {', '.join(sorted(nics)) or 'none'}"
        found.append(Reason(message=message, path="$.nic"))
    return found


def confirm_reasons(*, in_force: float, since: float, console: bool, problem: str) -> list[Reason]:
    """Why a connection made at `since` does not prove that the host is reached with its new settings.

    Who is at the console sees the addresses and may keep what nobody has reached yet.
    """
    if console:
        return []
    if not in_force:
        why = f": {problem}" if problem else ""
        message = f"the new settings are not in force yet, the old address still answers{why}"
        return [Reason(message=message, code=Code.CONFLICT)]
    if since <= in_force:
        message = "this connection was made before the change, and proves nothing: connect again"
        return [Reason(message=message, code=Code.CONFLICT)]
    return []


def time_reasons(servers: tuple[str, ...], path: str) -> list[Reason]:
    """Everything wrong with NTP servers."""
    return [
        Reason(message=f"{server!r} is neither a host name nor an address", path=f"{path}[{number}]")
        for number, server in enumerate(servers)
        if not _NAME.fullmatch(server) and not _address(server)
    ]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log goes."""

    protocol: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


def syslog_target(text: str) -> Target | None:
    """`udp://10.0.0.9`, `tcp://[2001:db8::9]:6514`; None when it is no such thing."""
    protocol, colon, rest = text.partition("://")
    if protocol not in ("udp", "tcp") or not colon or not rest or any(mark in rest for mark in "/?#@ "):
        return None
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        port = port.removeprefix(":") if closed and (not port or port[0] == ":") else "x"
    else:
        host, _, port = rest.partition(":")
    if not host or (port and not port.isascii()) or (port and not port.isdigit()):
        return None
    number = int(port or _SYSLOG_PORT)
    return Target(protocol=protocol, host=host, port=number) if 0 < number < 65536 else None


def syslog_reasons(text: str, path: str) -> list[Reason]:
    """Why the log cannot go there; empty text is nowhere."""
    if not text or syslog_target(text):
        return []
    message = f"{text[:80]!r} is no syslog target such as udp://10.0.0.9:514 or tcp://logs.example:6514"
    return [Reason(message=message, path=path)]


def _interface(text: str, version: int) -> str:
    import ipaddress

    example = "10.0.0.5/24" if version == 4 else "2001:db8::5/64"
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        return f"{text!r} is no address with its prefix such as {example}"
    if "/" not in text or found.version != version:
        return f"{text!r} is no IPv{version} address with its prefix such as {example}"
    net = found.network
    if found.ip.is_multicast or found.ip.is_unspecified or found.ip.is_loopback:
        return f"{text} is no address a host can have"
    if version == 4 and net.prefixlen < 31 and found.ip in (net.network_address, net.broadcast_address):
        return f"{text} is the network's own or broadcast address, not a host's"
    return ""


def _gateway(text: str, interface: str, version: int) -> str:
    import ipaddress

    try:
        way = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no IP address"
    if way.version != version:
        return f"{text} is no IPv{version} address"
    try:
        mine = ipaddress.ip_interface(interface)
    except ValueError:
        return ""  # said already
    if way == mine.ip:
        return f"{text} is the host's own address"
    if way not in mine.network and not way.is_link_local:
        return f"{text} is not in {mine.network}: the host could not reach it"
    return ""


def _address(text: str) -> bool:
    import ipaddress

    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
