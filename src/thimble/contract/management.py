"""The management network on the wire: how the host itself is reached."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from thimble.contract.common import In, Out

Vlan = Annotated[int, Meta(ge=0, le=4094)]


class ManagementNet(In, frozen=True, kw_only=True):
    """Which network card, and which addresses."""

    nic: str = ""  # its MAC; the first with a link when empty
    vlan: Vlan = 0  # 0: untagged
    address: str = "dhcp"  # or `10.0.0.5/24`, or `off`
    gateway: str = ""
    dns: tuple[str, ...] = ()
    address6: str = "auto"  # router advertisements and DHCPv6; or `2001:db8::5/64`, or `off`
    gateway6: str = ""


class ManagementSettings(ManagementNet, frozen=True, kw_only=True):
    """All that is kept. `ntp`: servers to take the time from; those of DHCP when empty."""

    ntp: tuple[str, ...] = ()


class Management(Out, frozen=True, kw_only=True):
    """`managed`: false when another operating system looks after the network."""

    rev: int  # 0: nothing was ever asked for, and the document or the kernel command line decides
    managed: bool
    settings: ManagementSettings


class ManagementChange(In, frozen=True, kw_only=True):
    """Absent fields stay."""

    nic: str | UnsetType = UNSET
    vlan: Vlan | UnsetType = UNSET
    address: str | UnsetType = UNSET
    gateway: str | UnsetType = UNSET
    dns: tuple[str, ...] | UnsetType = UNSET
    address6: str | UnsetType = UNSET
    gateway6: str | UnsetType = UNSET
    ntp: tuple[str, ...] | UnsetType = UNSET
