"""Virtual switches on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from thimble.contract.common import In, Listed, Name, Out


class SwitchKind(StrEnum):
    NAT = "nat"  # an own subnet behind the host's address, with DHCP and DNS
    BRIDGED = "bridged"  # ports are on the uplink's wire
    ISOLATED = "isolated"  # only its own ports


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Forward(In, frozen=True, kw_only=True):
    """A port of the host handed to a VM behind a NAT switch."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    vm: str  # name or id
    to_port: Annotated[int, Meta(ge=1, le=65535)]
    protocol: Protocol = Protocol.TCP


class SwitchCreate(In, frozen=True, kw_only=True):
    name: Name
    kind: SwitchKind
    subnet: str = ""  # nat: such as `192.168.77.0/24`; a free one is chosen when empty
    uplink: str = ""  # bridged: a NIC or an existing bridge of the host
    forwards: tuple[Forward, ...] = ()


class SwitchChange(In, frozen=True, kw_only=True):
    forwards: tuple[Forward, ...] | UnsetType = UNSET


class Lease(Out, frozen=True, kw_only=True):
    mac: str
    ip: str
    hostname: str
    vm: str


class Switch(Out, frozen=True, kw_only=True):
    name: str
    rev: int
    kind: SwitchKind
    bridge: str  # the kernel's name of it
    subnet: str
    gateway: str
    uplink: str
    forwards: tuple[Forward, ...]
    ports: tuple[str, ...]  # `vm name/nic name`
    leases: tuple[Lease, ...]
    up: bool
    why: str  # when it is not up: the reason


class SwitchList(Listed, frozen=True, kw_only=True):
    switches: tuple[Switch, ...]
