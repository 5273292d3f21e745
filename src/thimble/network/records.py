"""What the network keeps and hands to others, as values."""

from __future__ import annotations

import msgspec

from thimble.contract.network import Forward, SwitchKind


class SwitchRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A switch as it was asked for; its id is its name."""

    kind: SwitchKind
    bridge: str  # the kernel's name
    subnet: str = ""  # nat
    chosen: bool = False  # nat: the subnet was chosen by us and may be chosen anew while nobody uses it
    uplink: str = ""  # bridged: the MAC of the NIC put into the bridge, or a name of what is no card
    adopted: bool = False  # the bridge is somebody else's: never made, changed or removed by us
    forwards: tuple[Forward, ...] = ()


class PortUse(msgspec.Struct, frozen=True, kw_only=True):
    """A VM's NIC that wants a port, running or not. `ip` is empty where addresses are not ours."""

    vm_id: str
    vm_name: str
    nic: str
    switch: str
    mac: str
    ip: str = ""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An open port. The caller hands both descriptors to QEMU and closes its own."""

    name: str
    fd: int
    vhost_fd: int | None
