"""The management network on the wire: how the host itself is reached."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from thimble.contract.common import In, Out

Vlan = Annotated[int, Meta(ge=0, le=4094)]
ConfirmWithin = Annotated[int, Meta(ge=0, le=3600)]


#: Fields of the settings that can cut a host off.
REACH = ("nic", "vlan", "address", "gateway", "address6", "gateway6")


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


class PendingNet(Out, frozen=True, kw_only=True):
    """The settings are in force on the wire, and undone by themselves unless `management.confirm` keeps them.

    `previous`: what then holds again. `in_force`: the new addresses are there and the old ones gone; only a
    connection made after that confirms. `problem`: why it is not so yet, if that is known.
    """

    until: float  # seconds since the epoch, by the host's clock
    left_s: float
    previous: ManagementSettings
    in_force: bool = False
    problem: str = ""


class Management(Out, frozen=True, kw_only=True):
    """`managed`: false when another operating system looks after the network."""

    rev: int  # 0: nothing was ever asked for, and the document or the kernel command line decides
    managed: bool
    settings: ManagementSettings  # those in force, confirmed or not
    pending: PendingNet | None = None


class ManagementChange(In, frozen=True, kw_only=True):
    """Absent fields stay. `confirm_within`: seconds after which it is all undone unless confirmed; 0: kept at
    once, or 10 to 3600."""

    nic: str | UnsetType = UNSET
    vlan: Vlan | UnsetType = UNSET
    address: str | UnsetType = UNSET
    gateway: str | UnsetType = UNSET
    dns: tuple[str, ...] | UnsetType = UNSET
    address6: str | UnsetType = UNSET
    gateway6: str | UnsetType = UNSET
    ntp: tuple[str, ...] | UnsetType = UNSET
    confirm_within: ConfirmWithin = 0
