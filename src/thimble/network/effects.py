"""What can be done to this host's networks: each effect in words and, for links, as `ip` commands. Pure."""

from __future__ import annotations

from typing import TypeAlias
from zlib import crc32

import msgspec

from thimble.network.render import DhcpPlan


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
    plan: DhcpPlan

    def describe(self) -> str:
        return f"starts DHCP and DNS on {self.plan.bridge}"


class TellDhcp(msgspec.Struct, frozen=True):
    plan: DhcpPlan

    def describe(self) -> str:
        return f"updates DHCP on {self.plan.bridge} with {self.plan.hosts.count(chr(10))} VMs"


LinkEffect: TypeAlias = MakeBridge | Claim | SetAddress | DropAddress | JoinUplink | SetUp | RemoveBridge
Effect: TypeAlias = LinkEffect | SetSysctl | LoadRules | DropRules | StopDhcp | StartDhcp | TellDhcp
