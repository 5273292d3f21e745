"""The management network: the bridge `uplink` over one NIC, and its addresses.

    no NIC ──a NIC is chosen (choice.py)──► bridged ──dhcpcd or static──► addresses come and go
       ▲                                       │
       └──────────── that NIC is gone ─────────┘

Facts for the agent are in `/run/thimble/net/uplink.json`, replaced at each change.
Nothing here is waited for.
"""

from __future__ import annotations

import json
import os
import socket

from . import bridge, lease, rtnl
from .choice import Nic, choose
from .netaddr import is_link_local
from .supervise import Supervised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ipparam import Plan
    from .jobs import Children
    from .loop import Loop, Timer

BRIDGE = "uplink"
DIRECTORY = "/run/thimble/net"
PATIENCE = 3.0
DHCPCD = "/usr/sbin/dhcpcd"
DHCPCD_CONF = "/run/thimble/dhcpcd.conf"
_DHCPCD_TEXT = """\
duid ll
clientid
hostname
persistent
nodelay
noarp
noalias
slaac hwaddr
option domain_name_servers, domain_name, domain_search, host_name, ntp_servers
option classless_static_routes, interface_mtu
option dhcp6_name_servers, dhcp6_domain_search, dhcp6_ntp_server, dhcp6_sntp_servers
require dhcp_server_identifier
script /dev/null
"""


class Uplink:
    """Owns the bridge, its NIC and its DHCP client. `changed()` is called when the facts changed."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        plan: Plan,
        wanted: str,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._loop, self._children, self._plan, self._say, self._changed = loop, children, plan, say, changed
        self._wanted = wanted or plan.device
        self._links: dict[int, rtnl.Link] = {}
        self._patient = True
        self._bridged = False
        self._settle: Timer | None = None
        self.nic = ""
        self.mac = ""
        self.addresses: dict[str, int] = {}
        self.lease = lease.Facts()
        self.gateway = next((static.gateway for static in plan.static if static.gateway), "")
        self.dhcpcd = Supervised("dhcpcd", loop, self._launch_dhcpcd, say, children.words)
        self._netlink = self._open_netlink()

    def start(self) -> None:
        """The drivers of the NICs are loaded: brings NICs up and waits for link."""
        os.makedirs(DIRECTORY, exist_ok=True)
        bridge.make_bridge(BRIDGE)
        self._bridged = True
        self._loop.watch(self._netlink.fileno(), self._read)
        self._netlink.send(rtnl.dump_request(rtnl.RTM_GETLINK))
        self._loop.after(PATIENCE, self._patience_over)

    def dns(self) -> list[str]:
        """Name servers: given statically, then learned."""
        static = [server for item in self._plan.static for server in item.dns]
        return static + [server for server in self.lease.dns if server not in static]

    def facts(self) -> dict[str, Any]:
        """What `/run/thimble/net/uplink.json` says."""
        return {
            "bridge": BRIDGE,
            "nic": self.nic,
            "mac": self.mac,
            "addresses": [{"address": item, "prefix": prefix} for item, prefix in self.addresses.items()],
            "gateway": self.gateway,
            "dns": self.dns(),
            "search": self.lease.search or [item for item in (self.lease.domain,) if item],
            "ntp": self._plan.ntp + self.lease.ntp,
            "hostname": self.lease.hostname,
            "dhcp": self._plan.dhcp,
        }

    def urls(self) -> list[str]:
        """Addresses worth showing, as a browser takes them."""
        best = [item for item in self.addresses if not is_link_local(item)]
        best = best or [item for item in self.addresses if ":" not in item]
        return [f"https://[{item}]/" if ":" in item else f"https://{item}/" for item in best]

    def _open_netlink(self) -> socket.socket:
        door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        door.bind((0, rtnl.GROUPS))
        return door

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
                self._on_link(item) if isinstance(item, rtnl.Link) else self._on_address(item)
        self._choose()

    def _on_link(self, link: rtnl.Link) -> None:
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

    def _choose(self) -> None:
        if self.nic or not self._bridged:
            return
        nics = [
            Nic(link.name, link.mac, bridge.bus_address(link.name), link.has_carrier())
            for link in self._links.values()
            if bridge.is_hardware(link.name)
        ]
        name = choose(nics, self._wanted, self._patient)
        if name:
            self._take(name, next(nic.mac for nic in nics if nic.name == name))

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
        for static in self._plan.static:
            self._set_static(f"{static.address}/{static.prefix}", static.gateway)
        if self._plan.dhcp:
            with open(DHCPCD_CONF, "w") as file:
                file.write(_DHCPCD_TEXT)
            self.dhcpcd.restart()

    def _set_static(self, address: str, gateway: str) -> None:
        commands = [f"address replace {address} dev {BRIDGE} nodad" if ":" in address else ""]
        commands = commands if commands[0] else [f"address replace {address} dev {BRIDGE}"]
        if gateway:
            commands.append(f"route replace default via {gateway} dev {BRIDGE}")
        path = "/run/thimble/static-{}.ip".format("6" if ":" in address else "4")
        with open(path, "w") as file:
            file.write("\n".join([*commands, ""]))

        def ended(status: int) -> None:
            if status:
                self._say(f"static address {address} could not be set")

        self._children.spawn(["/usr/sbin/ip", "-force", "-batch", path], ended)

    def _launch_dhcpcd(self, on_exit: Callable[[int], None]) -> int:
        argv = [DHCPCD, "-B", "-q", *self._families(), "-f", DHCPCD_CONF, BRIDGE]
        return self._children.spawn(argv, on_exit)

    def _families(self) -> list[str]:
        """The option for a dhcpcd of one family; it is found again only by the very same one."""
        return [] if len(self._plan.dhcp) == 2 else [f"-{family}" for family in self._plan.dhcp]

    def _on_address(self, item: rtnl.Address) -> None:
        link = self._links.get(item.index)
        if link is None or link.name != BRIDGE or not item.address:
            return
        before = dict(self.addresses)
        if item.gone:
            self.addresses.pop(item.address, None)
        elif item.usable:
            self.addresses[item.address] = item.prefix
        if self.addresses != before:
            self._changed()
        if self._settle is None and self._plan.dhcp and not item.address.startswith("fe80:"):
            self._settle = self._loop.after(0.3, self._ask_dhcpcd)

    def _ask_dhcpcd(self) -> None:
        self._settle = None
        lines: list[str] = []

        def ended(_: int) -> None:
            blocks = lease.parse_dump("\n".join(lines))
            self.lease = lease.facts(blocks)
            routers = [block["routers"].split()[0] for block in blocks if block.get("routers")]
            self.gateway = next((s.gateway for s in self._plan.static if s.gateway), "") or "".join(
                routers[:1]
            )
            self._changed()

        self._children.spawn([DHCPCD, *self._families(), "--dumplease", BRIDGE], ended, collect=lines)


def write_json(path: str, value: object) -> None:
    """Replaces a JSON file in one step; readers see the old one or the new one."""
    with open(f"{path}.new", "w") as file:
        json.dump(value, file, indent=1)
    os.replace(f"{path}.new", path)
