"""The management network's bridge `uplink` over one NIC; its addresses are addressing.py's.

    no NIC ──a NIC is chosen (nic_choice.py)──► bridged ──► addressing
       ▲                                       │
       └── that NIC is gone, or another wanted ┘

Facts for the agent are in `/run/thimble/net/uplink.json`, replaced at each change.
Nothing here is waited for.
"""

from __future__ import annotations

import os
import socket

from . import bridge, rtnl
from .addressing import Addressing
from .ipparam import UplinkPlan
from .nic_choice import NicCandidate, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..children import Children
    from ..loop import Loop

BRIDGE = "uplink"
DIRECTORY = "/run/thimble/net"
PATIENCE = 3.0
# Seconds a NIC named by settings gets to appear before another one is used.
STAND_IN = 10.0


class Uplink:
    """Owns the bridge and its NIC. `wanted`: the NIC the command line names. `changed()`: new facts."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        wanted: str,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._loop, self._say, self._changed = loop, say, changed
        self._plan, self._named = UplinkPlan(), wanted
        self._wanted = wanted
        self._links: dict[int, rtnl.LinkMessage] = {}
        self._patient = True
        self._bridged = False
        self.nic = ""
        self.mac = ""
        self.addressing = Addressing(loop, children, BRIDGE, say, changed)
        self._netlink = self._open_netlink()

    def start(self, plan: UplinkPlan) -> None:
        """The drivers of the NICs are loaded: brings NICs up and waits for a link."""
        self._want(plan)
        os.makedirs(DIRECTORY, exist_ok=True)
        bridge.make_bridge(BRIDGE)
        self._bridged = True
        self._loop.watch(self._netlink.fileno(), self._read)
        self._netlink.send(rtnl.dump_request(rtnl.RTM_GETLINK))
        self._loop.after(PATIENCE, self._patience_over)

    def change(self, plan: UplinkPlan) -> None:
        """Other settings while the host runs; virtual machines on the bridge keep their ports."""
        before = self._wanted
        self._want(plan)
        if not self.nic:
            self._choose()
        elif self._wanted and self._wanted != before and self._wanted not in (self.nic, self.mac):
            self._exchange()
        else:
            self._address(plan)
        self._changed()

    def replace_plan(self, plan: UplinkPlan) -> None:
        """The same settings from another source, as when they were confirmed: nothing on the wire changes."""
        self._plan = self.addressing.plan = plan
        self._changed()

    def settled(self) -> bool:
        """Whether the wanted NIC and addresses are in use and the old addresses are gone."""
        right = not self._wanted or self._wanted in (self.nic, self.mac)
        return bool(self.nic) and right and self.addressing.settled

    def ntp(self) -> list[str]:
        """Time servers that were asked for."""
        return list(self._plan.ntp)

    def facts(self) -> dict[str, Any]:
        """What `/run/thimble/net/uplink.json` says."""
        here, plan = self.addressing, self._plan
        return {
            "bridge": BRIDGE,
            "nic": self.nic,
            "mac": self.mac,
            "interface": here.interface or BRIDGE,
            "vlan": plan.vlan,
            "addresses": [{"address": item, "prefix": prefix} for item, prefix in here.addresses.items()],
            "gateway": here.gateway,
            "dns": here.dns(),
            "search": here.lease.search or [item for item in (here.lease.domain,) if item],
            "ntp": plan.ntp + here.lease.ntp,
            "hostname": here.lease.hostname,
            "dhcp": plan.dhcp,
            "source": plan.source,
            "problem": here.problem,
        }

    def source(self) -> str:
        """Where the settings come from."""
        return self._plan.source

    def urls(self) -> list[str]:
        """Addresses worth showing, as a browser takes them."""
        best = self.addressing.good() or [item for item in self.addressing.addresses if ":" not in item]
        return [f"https://[{item}]/" if ":" in item else f"https://{item}/" for item in best]

    def _want(self, plan: UplinkPlan) -> None:
        self._plan = plan
        self._wanted = self._named or plan.device
        if plan.stand_in and self._wanted and not self._named:
            self._loop.after(STAND_IN, self._let_stand_in)

    def _let_stand_in(self) -> None:
        if not self.nic and self._wanted:
            self._say(f"warning: network card {self._wanted} from the settings not found: using another one")
            self._wanted = ""
            self._choose()

    def _open_netlink(self) -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((0, rtnl.GROUPS))
        return sock

    def _read(self, _: int) -> None:
        while True:
            try:
                data = self._netlink.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # messages were lost: ask for everything again
                self._netlink.send(rtnl.dump_request(rtnl.RTM_GETLINK))
                continue
            for item in rtnl.parse(data):
                self._on_link(item) if isinstance(item, rtnl.LinkMessage) else self._on_address(item)
        self._choose()

    def _on_link(self, link: rtnl.LinkMessage) -> None:
        if link.gone:
            self._links.pop(link.index, None)
            if link.name == self.nic:
                self._say(f"network card {link.name} is gone")
                self.nic = ""
            return
        is_new = link.index not in self._links
        self._links[link.index] = link
        if is_new and bridge.is_hardware(link.name):
            bridge.quiet_ipv6(link.name)
            try:
                bridge.set_up(link.name)
            except OSError as error:
                self._say(f"network card {link.name}: {error.strerror}")

    def _on_address(self, item: rtnl.AddressMessage) -> None:
        link = self._links.get(item.index)
        if link is not None and link.name == self.addressing.interface and item.address:
            self.addressing.on_address(item.address, item.prefix, gone=item.gone, usable=item.usable)

    def _choose(self) -> None:
        if self.nic or not self._bridged:
            return
        nics = self._nics()
        name = choose(nics, self._wanted, self._patient)
        if name:
            self._take(name, next(nic.mac for nic in nics if nic.name == name))

    def _nics(self) -> list[NicCandidate]:
        return [
            NicCandidate(link.name, link.mac, bridge.bus_address(link.name), link.has_carrier())
            for link in self._links.values()
            if bridge.is_hardware(link.name)
        ]

    def _exchange(self) -> None:
        """Moves the bridge to another NIC if that is there; else the present one stays."""
        nics = self._nics()
        name = choose(nics, self._wanted, False)
        if name:
            bridge.remove_port(BRIDGE, self.nic)
            self._take(name, next(nic.mac for nic in nics if nic.name == name))
            return
        self._say(f"warning: network card {self._wanted} from the settings not found: keeping {self.nic}")
        self._address(self._plan)

    def _address(self, plan: UplinkPlan) -> None:
        """Applies the addresses of this plan; the kernel is asked for those its interface has already."""
        before = self.addressing.interface
        self.addressing.apply(plan)
        if self.addressing.interface != before:
            self._netlink.send(rtnl.dump_request(rtnl.RTM_GETADDR))

    def _patience_over(self) -> None:
        self._patient = False
        self._choose()
        if not self.nic:
            self._say("no network card has a link yet")

    def _take(self, name: str, mac: str) -> None:
        bridge.add_port(BRIDGE, name)
        bridge.set_up(BRIDGE)
        self.nic, self.mac = name, mac
        self._changed()
        self._address(self._plan)
